"""The help of each command: examples that can be copied, its environment, and value names that say something."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from commands import Quick
from test_output_formats import LEAVES

from jitvault import settings
from jitvault.cli.app import _commands
from jitvault.cli.environment import environment_of

_FURTHER = {"JITVAULT_SANDBOX_SERVER", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"}


@pytest.fixture
def alone(tmp_path: Path) -> Quick:
    """Commands without any setting: nothing that they print comes from a server."""
    return Quick({}, tmp_path)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_an_example_can_be_copied(alone: Quick, path: tuple[str, ...]) -> None:
    width = "80"
    lines = [line.strip() for line in alone(None, *path, "--help", extra={"COLUMNS": width}).stdout.splitlines()]
    examples = [(lines[n + 1], lines[n + 2]) for n, line in enumerate(lines) if line == "Example:"]
    assert examples, "no example"
    for example, following in examples:
        words = shlex.split(re.sub(r"^source <\((.*)\)$", r"\1", example))
        assert words[: 1 + len(path)] == ["jitvault", *path]
        assert not following, "it goes on in the next line"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_an_example_names_only_options_that_there_are(path: tuple[str, ...]) -> None:
    command = LEAVES[path].imported()
    known = {name for each in command.params for name in each.opts}
    for example in re.findall(r"^Example:\n(.*)$", command.help, re.MULTILINE):
        used = {word for word in example.split() if re.fullmatch(r"--?[a-z].*", word)}
        assert used <= known, example


@pytest.mark.parametrize("path", [(), ("ledger",), *LEAVES], ids=" ".join)
def test_no_value_has_the_name_of_a_type(alone: Quick, path: tuple[str, ...]) -> None:
    shown = alone(None, *path, "--help").stdout
    assert not re.findall(r"<[a-z| ]+>", shown)


def test_a_flag_has_no_value_and_others_say_what_they_take(alone: Quick) -> None:
    shown = alone(None, "revoke", "--help").stdout
    assert re.search(r"--force +Close TASK", shown)
    assert re.search(r"--agent +NAME +End every", shown) and re.search(r"--reason +WHY +The reason", shown)
    assert re.search(r"--log +console\|json ", alone(None, "worker", "--help").stdout)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_the_environment_is_that_of_settings(alone: Quick, path: tuple[str, ...]) -> None:
    variables = environment_of(" ".join(path))
    assert variables.keys() <= {*settings.variables(), *_FURTHER}
    shown = alone(None, *path, "--help", extra={"COLUMNS": "80"}).stdout
    for name, meaning in variables.items():
        assert re.search(rf"^ {name} +{re.escape(meaning)} *$", shown, re.MULTILINE), "on one line at 80 columns"


def test_every_name_with_an_environment_is_a_command() -> None:
    from jitvault.cli import environment

    assert {tuple(path.split()) for path in environment._VARIABLES} <= LEAVES.keys()
    assert "policy" in _commands().commands


# verbs on tasks, and the two lists that belong to them, are commands; what is done to another thing is below its name
FLAT = (
    "submit grant extend complete revoke cancel freeze unfreeze freezes approve deny withdraw approvals unwrap status "
)
FLAT += "exec mcp list report verify export-keys worker sweep init tidy doctor demo dev completion"
GROUPS = {
    "agents": {"add", "remove", "list"},
    "approvers": {"add", "remove", "list"},
    "audit": {"receive", "status", "accept"},
    "findings": {"list", "close"},
    "ledger": {"upgrade", "grants", "check", "copy", "recover"},
    "policy": {"check", "test", "explain"},
    "spec": {"check"},
    "templates": {"list", "show", "check"},
}


def test_verbs_on_tasks_are_flat_and_other_things_are_groups() -> None:
    flat = {path[0] for path in LEAVES if len(path) == 1 and not LEAVES[path].hidden}
    assert flat == {*FLAT.split()}
    groups = {path[0] for path in LEAVES if len(path) == 2}
    assert groups == GROUPS.keys()
    for group, names in GROUPS.items():
        assert names <= {path[1] for path in LEAVES if path[0] == group}, "nothing is moved or renamed"


def test_json_of_exec_is_for_its_errors(alone: Quick) -> None:
    shown = " ".join(alone(None, "exec", "--help", extra={"COLUMNS": "120"}).stdout.split())
    assert "Print this command's errors as json; stdout is the program's." in shown and "Print the result" not in shown
