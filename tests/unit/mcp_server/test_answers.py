"""What is told to a model is JSON of 40,000 characters at most, and says what it leaves out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.agent.command_events import Failed
from jitvault.errors import JitvaultError
from jitvault.mcp.answers import LONGEST, Failure, failure_of, fitting, printed, told
from jitvault.mcp.arguments import TOOLS
from jitvault.mcp.frames import LONGEST_STDERR, LONGEST_STDOUT, Output
from jitvault.mcp.hints import hint_of

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


def test_a_failed_command_is_answered_by_its_words_and_decided_on_by_its_exit_code() -> None:
    failure = failure_of(Failed(3, "task t is denied", "Ask for less."))
    assert failure == Failure("task t is denied", "Tell your user: Ask for less.", 3)
    longest = failure_of(Failed(3, "m" * 9_000, "h" * 9_000))
    assert len(longest.message) == len(longest.hint) == 2_000


@pytest.mark.parametrize("kind", JitvaultError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_a_hint_names_the_tools_of_the_server_or_is_for_the_user(kind: type[JitvaultError]) -> None:
    hint = hint_of(kind.exit_code, kind.default_hint)
    assert hint.startswith("Tell your user: ") or ("`jitvault" not in hint and any(tool in hint for tool in TOOLS))
