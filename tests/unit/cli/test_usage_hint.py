"""The hint of a command line that cannot be meant shows one that can."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from test_lazy_commands import LAZY

from jitvault.cli.app import _hint_for_usage


@pytest.mark.parametrize("path", LAZY, ids=" ".join)
def test_the_hint_is_one_command_of_that_name_with_options_that_it_has(path: tuple[str, ...]) -> None:
    command = LAZY[path].imported()
    wrong = ["--no-such-option"]
    with pytest.raises(typer.TyperException) as refused:
        command.make_context("jitvault " + " ".join(path), wrong)
    hint = _hint_for_usage(refused.value, wrong)
    assert "\n" not in hint
    examples = re.findall(r"For example: `([^`]*)`", hint)
    assert len(examples) == 1, hint
    # what another program reads, or a shell sources, is no part of it
    typed = shlex.split(examples[0].partition(" | ")[0].removeprefix("source <(").removesuffix(")"))
    words = ["jitvault", *path]
    assert typed[: len(words)] == words
    assert command.make_context(" ".join(words), typed[len(words) :]).args == []
