"""What a person reads is what was written: no text from outside colours, hides or links anything."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from terminals import HOSTILE, PILED, widest

from jitvault.cli.folding import CONTINUED, folded
from jitvault.cli.views import output
from jitvault.cli.views.listing import Column, print_listing
from jitvault.formats.shorten import printable, quoted

# a colour, a line that is written over, CSI as one character, and text that runs the other way
OBEYED = "a\x1b[31mb\rc\x9b2Kd\u202ee\x7ff"
MARKUP = "[red]x[/red] [/] [link=https://example.org]y[/link] :warning: 1234"


def as_line(console: Console, text: str) -> None:
    console.print(text)


def as_fact(console: Console, text: str) -> None:
    output.print_facts(console, {"name": text})


def as_cell(console: Console, text: str) -> None:
    print_listing(console, [Column("name")], [[text]])


def as_state(console: Console, text: str) -> None:
    console.print("Task a is", output.coloured(text))


@pytest.mark.parametrize("show", [as_line, as_fact, as_cell, as_state])
@pytest.mark.parametrize("terminal", [False, True])
def test_markup_is_shown_as_it_was_written(
    show: Callable[[Console, str], None],
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1") if not terminal else monkeypatch.setenv("FORCE_COLOR", "1")
    show(output.console(), MARKUP)
    assert MARKUP in capsys.readouterr().out


@pytest.mark.parametrize("show", [as_line, as_fact, as_cell, as_state])
def test_no_control_character_reaches_the_terminal(
    show: Callable[[Console, str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show(output.console(), OBEYED)
    said = capsys.readouterr().out
    assert r"a\x1b[31mb" in said
    assert r"\x9b2Kd\u202ee\x7ff" in said


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(min_size=1))
def test_a_line_is_what_was_written_with_control_characters_escaped(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    capsys.readouterr()
    output.console().print(text, soft_wrap=True)
    said = capsys.readouterr().out
    assert said == printable(text) + "\n"
    assert not [c for c in said if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")]


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda some: st.lists(some) | st.dictionaries(st.text(), some))
)
def test_json_means_the_same_and_holds_no_control_character(value: object) -> None:
    said = output.to_json(value)
    assert json.loads(said) == value
    assert not [c for c in said if c != "\n" and not c.isprintable()]


def test_json_shows_every_script() -> None:
    assert output.to_json({"ä": "日本"}) == '{\n  "ä": "日本"\n}'


FORGED = "Risk low: criticality low, tier low."


@pytest.mark.parametrize("width", [40, 80, 120])
@given(words=HOSTILE)
@example(words=f"{PILED} " * 9)
def test_words_of_others_begin_no_line(width: int, words: str) -> None:
    text = f"Intent: {printable(words)} {FORGED}".replace("\n", " ")
    first, *others = folded(text, width).split("\n")
    assert first.startswith("Intent:")
    assert all(line.startswith(CONTINUED) for line in others)
    # no terminal folds it once more, but for what is to be copied
    for line in (first, *others):
        assert widest(line) <= width or any(word.isascii() and len(word) > width - 12 for word in line.split())
    kept = "".join([first, *(line.removeprefix(CONTINUED) for line in others)])
    assert "".join(kept.split()) == "".join(text.split())


COMMAND = "`jitvault revoke count-orders --force --reason WHY`"


@given(st.integers(60, 130))
def test_a_command_in_a_hint_is_on_one_line(width: int) -> None:
    hint = f"Check at the target that it is dead. Then ({COMMAND}) closes it; `bao token lookup` says who you are."
    lines = folded(hint, width, first="  ", keep_commands=True).split("\n")
    assert max(map(len, lines)) <= width
    assert sum(COMMAND in line for line in lines) == 1 and sum("`bao token lookup`" in line for line in lines) == 1
    plain = folded(hint, width, first="  ").replace(CONTINUED, "")
    assert " ".join(plain.split()) == hint, "the words of others are folded as before"


def test_what_is_no_command_of_ours_is_cut_in_backticks_as_well() -> None:
    shown = folded(f"`rm {'x ' * 60}`", 40, first="", keep_commands=True)
    assert max(map(len, shown.split("\n"))) <= 40


def test_a_command_as_a_fact_is_never_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    command = f"jitvault approve {'a' * 63}"
    output.print_facts(output.console(), {"next": command})
    assert f"    {command}\n" in capsys.readouterr().out


@given(st.text(max_size=60), st.integers(2, 40))
def test_quoted_words_are_one_line_that_they_cannot_leave(text: str, limit: int) -> None:
    shown = quoted(text, limit)
    assert shown[0] == shown[-1] == '"' and shown.count('"') == 2
    assert shown.isprintable() and len(shown) <= limit + 2
