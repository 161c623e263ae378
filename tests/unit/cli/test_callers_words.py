"""What a Python program says to the process that holds its access, however the pipe cuts it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jitvault.cli.access.hold_steps import Caller, hints_for_a_program
from jitvault.errors import (
    ApprovalMissing,
    Denied,
    JitvaultError,
    NotFound,
    OutcomeUnknown,
    VaultBusy,
    WaitTimedOut,
    WrongState,
)


@pytest.fixture
def standard_input() -> Iterator[int]:
    """Yield the end of a pipe that writes to this process's standard input."""
    before = os.dup(0)
    ours, its = os.pipe()
    os.dup2(ours, 0)
    yield its
    os.dup2(before, 0)
    for each in (before, ours, its):
        os.close(each)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 9999), max_size=5), st.data())
def test_questions_are_no_end_and_the_word_after_them_is(
    standard_input: int, numbers: list[int], data: st.DataObject
) -> None:
    text = "".join(f"look {number}\n" for number in numbers).encode()
    caller, found = Caller(), list[int]()
    while text:
        cut = data.draw(st.integers(1, len(text)))
        os.write(standard_input, text[:cut])
        text = text[cut:]
        assert not caller.left({0})
        found += caller.asked()
    assert found == numbers
    os.write(standard_input, b"failed KeyError\n")
    assert caller.left({0}) and caller.note == "the block of the Python program was left by KeyError"


def test_questions_that_were_kept_waiting_are_no_end(standard_input: int) -> None:
    os.write(standard_input, "".join(f"look {number}\n" for number in range(100)).encode())
    caller, found = Caller(), list[int]()
    while len(found) < 100:
        assert not caller.left({0})
        found += caller.asked()
    assert found == list(range(100))
    os.write(standard_input, b"x" * 1000)
    assert caller.left({0}) or caller.left({0}), "a word that never ends"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ApprovalMissing("no", hint="Ask olga."), "Ask olga. `task(…, wait=…)` waits longer"),
        (WaitTimedOut("no"), "enter the block again"),
        (VaultBusy("no"), "enter the block again when Vault answers"),
        (OutcomeUnknown("no", hint="Nobody has it."), "Enter another `with task(…)`"),
        (WrongState("no", hint="`--id ID` …"), "Enter another `with task(…)`"),
        (NotFound("no", hint="Name a file."), "Name a file."),
        (Denied("no", hint="Ask for less."), "Ask for less."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_program_is_told_what_a_program_does_next(error: JitvaultError, hint: str) -> None:
    with pytest.raises(type(error)) as raised, hints_for_a_program():
        raise error
    assert hint in raised.value.hint
