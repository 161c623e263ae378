"""What a row can hold that somebody edited: none of it is taken for a bug, and none of it stops the kill switch."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from jitvault.errors import CORRUPT_RECORD_ERRORS, JitvaultError
from jitvault.model.revision import Revision


@pytest.fixture
def calm() -> Iterator[None]:
    """Nothing is collected at the bottom of a deep recursion: its finalizers would fail there."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    "body", [b"", b"[", b"[]", b"null", b"5", b'{"agent": 1}', b"\xff", b"[" * 200_000], ids=lambda b: repr(b[:12])
)
def test_a_body_that_cannot_be_read_is_called_that(body: bytes) -> None:
    with pytest.raises((JitvaultError, *CORRUPT_RECORD_ERRORS)):
        _ = Revision.of(body).content["agent"]["name"]
