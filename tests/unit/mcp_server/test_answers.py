"""What is told to a model is JSON of 40,000 characters at most, and says what it leaves out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.errors import JitvaultError
from jitvault.mcp.answers import LONGEST, fitting, printed, told
from jitvault.mcp.arguments import TOOLS
from jitvault.mcp.frames import LONGEST_STDERR, LONGEST_STDOUT, Output
from jitvault.mcp.hints import hint_of
from jitvault.mcp.said import failure_in, waits_for

# a character that JSON spells with six, so that few of them fill an answer
TEXTS = st.builds(lambda text, times: text * times, st.text(max_size=20), st.integers(0, 3000))


@given(TEXTS, TEXTS, st.integers(0, 10**9), st.none() | st.integers(0, 255), st.booleans())
def test_an_answer_about_a_tool_is_short_enough_and_counts_what_it_drops(
    out: str, err: str, dropped: int, code: int | None, is_utf8: bool
) -> None:
    out, err = out[:LONGEST_STDOUT], err[:LONGEST_STDERR]
    output = Output(1, code, stdout=out, stderr=err, cut_stdout=dropped, cut_stderr=0, is_utf8=is_utf8)
    answer = printed("run-1", output)
    facts = json.loads(answer.text)
    assert len(answer.text) <= LONGEST and not answer.is_error
    assert out.startswith(facts["stdout"]) and err.startswith(facts["stderr"])
    left = len(out) - len(facts["stdout"]) + dropped
    assert (f"{left:,} characters of stdout" in facts.get("cut", "")) == bool(left)
    assert (facts.get("exit_code"), facts["state"]) == (code, "running" if code is None else "ended")
    assert ("note" in facts) != is_utf8


@given(st.lists(st.builds(lambda text: {"name": text}, TEXTS), max_size=6), st.integers(0, 5000))
def test_as_many_items_as_fit_are_kept(items: list[dict[str, str]], most: int) -> None:
    kept, more = fitting(items, most)
    assert kept == items[: len(kept)] and len(kept) + more == len(items)
    assert len(json.dumps(kept, ensure_ascii=False)) <= most + 2
    assert more == 0 or len(json.dumps(items[: len(kept) + 1], ensure_ascii=False)) > most


def test_an_answer_that_is_too_long_says_so() -> None:
    answer = told({"words": "x" * LONGEST})
    assert answer.is_error and "longer than 40,000" in answer.text


SAID = """Task t waits for 1 approval by jitvault-approvers; this command waits 30m more
Task t waits for 2 approvals by data-owner; this command waits 29m more
{
  "error": {"exit_code": 3, "message": "task t is denied", "hint": "Ask for less."}
}
"""


def test_what_exec_said_is_understood() -> None:
    failure = failure_in(SAID, 125)
    assert failure is not None and (failure.message, failure.hint) == (
        "task t is denied",
        "Tell your user: Ask for less.",
    )
    assert waits_for(SAID, "t") == "2 approvals by data-owner" and waits_for(SAID, "other") == ""


def test_what_is_no_error_of_ours_is_not_told() -> None:
    for said in ("Traceback: secret", '{\n  "error": "secret"}', '{\n  "error"'):
        failure = failure_in(said, 1)
        assert failure is not None and failure.message == "the process that held the access ended with 1"
        assert failure_in(said, 0, is_expected=True) is None


@pytest.mark.parametrize("kind", JitvaultError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_a_hint_names_the_tools_of_the_server_or_is_for_the_user(kind: type[JitvaultError]) -> None:
    hint = hint_of(kind.exit_code, kind.default_hint)
    assert hint.startswith("Tell your user: ") or ("`jitvault" not in hint and any(tool in hint for tool in TOOLS))
