"""What a template says of the servers that take its certificates, and what is said where nobody looked."""

from __future__ import annotations

from typing import Any

import pytest

from jitvault.domain.confirmation import Probed
from jitvault.domain.verifiers import sessions_told

OVER = "that TLS sessions opened with its certificate are over"


def entry(**changes: Any) -> dict[str, Any]:
    return {"template": "a", "engine": "pki", **changes}


def test_sessions_of_certificates_are_told_as_not_proven_whoever_was_asked() -> None:
    asked = ["one.example.org:443", "two.example.org:8443"]
    named = entry(template="b", verifiers=asked, accepted_after_end_s=90)
    assert sessions_told([named, entry(), entry(), entry(template="c", engine="database")]) == [
        f"a: {OVER}; no server that takes it was ever asked",
        f"b: {OVER} (by the template's word they are 1m30s after its end); "
        f"when the template was checked {', '.join(asked)} was asked",
    ]


@pytest.mark.parametrize(
    ("refused", "sessions", "is_over"), [(True, 0, True), (True, None, True), (True, 1, False), (False, None, False)]
)
def test_what_nobody_looked_for_is_not_open_and_is_not_none_either(
    refused: bool, sessions: int | None, is_over: bool
) -> None:
    assert Probed(refused=refused, open_sessions=sessions, evidence="x").is_over is is_over
