from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass

import msgspec
import pytest

from jitvault.formats.secret import Secret

HIDDEN = "hvs.CAESIJ-not-to-be-seen"


@dataclass(frozen=True)
class Holder:
    token: Secret


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        ascii,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40} {secret:.3}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - this, too
        lambda secret: "{} {!s}".format(secret, secret),  # noqa: UP032 - and this
        lambda secret: f"{[secret]} {dict(a=secret)} {(secret,)}",  # noqa: C408
        lambda secret: repr(Holder(secret)),
        lambda secret: str(ValueError(secret)),
        lambda secret: " ".join(dir(secret)),
        lambda secret: json.dumps({"token": secret}, default=str),
    ],
)
def test_no_way_of_printing_shows_it(show: Callable[[Secret], str]) -> None:
    shown = show(Secret(HIDDEN))
    assert HIDDEN not in shown
    assert "not-to-be-seen" not in shown


def test_only_reveal_gives_it() -> None:
    assert Secret(HIDDEN).reveal() == HIDDEN


@pytest.mark.parametrize(
    "store",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        lambda secret: asdict(Holder(secret)),
        lambda secret: pickle.dumps([secret], protocol=0),
        vars,
        iter,
        len,
    ],
)
def test_it_is_not_stored_copied_or_encoded(store: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as caught:
        store(Secret(HIDDEN))
    assert HIDDEN not in str(caught.value)


def test_comparing_with_text_tells_nothing() -> None:
    assert Secret(HIDDEN) != HIDDEN
    assert Secret(HIDDEN) not in {HIDDEN}
    assert Secret(HIDDEN) != Secret(HIDDEN)


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret("0")


def test_nothing_can_be_added_to_it() -> None:
    with pytest.raises(AttributeError):
        Secret(HIDDEN).note = "x"  # type: ignore[attr-defined]


def _fail(secret: Secret) -> None:
    raise ValueError("failed", secret)


def test_neither_a_log_nor_a_traceback_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(HIDDEN)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("jitvault").info("token %s %r", secret, {"token": secret})
        try:
            _fail(secret)
        except ValueError as error:
            logging.getLogger("jitvault").exception("it failed")
            told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert HIDDEN not in caplog.text
    # the name of the module's own constant is not the secret's doing
    assert HIDDEN not in told.replace(f"HIDDEN = {HIDDEN!r}", "")
