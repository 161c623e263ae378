"""`-o FORMAT`, its short form `--json` and `-h` are on every command, and mean the same everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Cli, Quick

from jitvault.cli.app import _commands

# what runs until Ctrl-C, and a script for a shell
WITHOUT_RESULT = frozenset({("dev",), ("mcp",), ("worker",), ("completion",)})


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, each in inner.items():
        yield from _leaves(each, (*path, name))


LEAVES = dict(_leaves(_commands()))


@pytest.fixture
def alone(tmp_path: Path) -> Quick:
    """Commands without any setting: nothing that they print comes from a server."""
    return Quick({}, tmp_path)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_that_prints_a_result_takes_o_and_json(path: tuple[str, ...]) -> None:
    options = {name for each in LEAVES[path].imported().params for name in each.opts}
    assert ({"-o", "--output", "--json"} <= options) is (path not in WITHOUT_RESULT)


@pytest.mark.parametrize("path", [(), ("findings",), *LEAVES], ids=" ".join)
def test_h_prints_what_help_prints(alone: Quick, path: tuple[str, ...]) -> None:
    short, long = (alone(None, *path, option) for option in ("-h", "--help"))
    assert short.stdout == long.stdout and "Usage: jitvault" in short.stdout


@pytest.mark.parametrize("options", [("-o", "json"), ("-ojson",), ("--output", "json"), ("--output=json",)])
@pytest.mark.parametrize("arguments", [("status", "..")], ids=" ".join)
def test_an_error_is_the_json_that_it_is_with_json(
    alone: Quick, arguments: tuple[str, ...], options: tuple[str, ...]
) -> None:
    expected = alone(None, *arguments, "--json", code=2)
    found = alone(None, *arguments, *options, code=2)
    assert json.loads(found.stderr) == json.loads(expected.stderr)
    assert "see all tasks with `jitvault list`" in found.error["hint"]


def test_a_wrong_format_names_those_that_the_command_has(alone: Quick) -> None:
    assert "-o: expected json, got 'yaml'" in alone(None, "list", "-o", "yaml", code=2).stderr
    refused = alone(None, "report", "-o", "xml", code=2)
    assert "-o: expected json or csv, got 'xml'" in refused.stderr
    assert "See `jitvault report --help`." in refused.stderr


@pytest.mark.parametrize("form", [[], ["-o", "json"]], ids=["text", "json"])
def test_the_help_of_a_wrong_command_line_is_that_of_the_command(alone: Quick, form: list[str]) -> None:
    assert "See `jitvault revoke --help`." in alone(None, "revoke", *form, code=2).stderr
    why = ["--reason", "x"]
    assert "See `jitvault freeze --help`." in alone(None, "freeze", "--all", "--agent", "x", *why, *form, code=2).stderr


def test_two_formats_are_refused(alone: Quick) -> None:
    refused = alone(None, "report", "-o", "csv", "--json", code=2)
    assert "-o csv and --json name two formats" in refused.error["message"]


def test_the_help_names_the_formats(alone: Quick) -> None:
    assert "json or csv" in " ".join(alone(None, "report", "--help").stdout.split())


def test_results_are_the_same_by_every_name_of_the_format(quick: Cli, spec: Callable[..., Path]) -> None:
    quick("operator", "submit", spec())
    listed = quick("operator", "templates", "list", "--json").json
    assert listed["templates"] and listed == quick("operator", "templates", "list", "-o", "json").json
    tables = [quick(None, "report", option, "csv").stdout for option in ("-o", "--output")]
    assert len({*tables}) == 1 and tables[0].startswith("task_id,")
    assert quick(None, "report", "-o", "json").json == quick(None, "report").json


def test_quiet_prints_the_id_or_the_token_alone(quick: Cli, spec: Callable[..., Path], tmp_path: Path) -> None:
    path = spec()
    task = yaml.safe_load(path.read_text())["metadata"]["id"]
    assert quick("operator", "spec", "check", path, "-q").stdout == f"{task}\n"
    submitted = quick("operator", "submit", path, "-q")
    assert (submitted.stdout, submitted.stderr) == (f"{task}\n", "")
    granted = quick("operator", "grant", path, "--quiet")
    assert granted.stdout.count("\n") == 1 and granted.stderr == ""
    token = quick("agent", "unwrap", "-", "-q", given=granted.stdout, worker=False)
    assert re.fullmatch(r"(hv)?s\.[\w-]{20,}\n", token.stdout) and token.stderr == ""
    again = quick("operator", "grant", task, "-q")
    assert (again.stdout, again.stderr) == ("", ""), "the token was taken: there is none to print"
    assert quick("operator", "status", task, "-q").stdout == "active\n"
    assert task in quick("operator", "list", "-q").stdout.split()
    assert quick("operator", "complete", task, "-q").stdout == f"{task}\n"
    written = quick(None, "report", task, "-q", "--out", tmp_path / "report.json")
    assert (written.stdout, written.stderr) == ("", "")
    assert quick("operator", "templates", "list", "-q").stdout.split() == sorted(
        each["metadata"]["name"] for each in quick("operator", "templates", "list", "-o", "json").json["templates"]
    )


def test_quiet_keeps_no_error_back_and_goes_with_json(quick: Cli) -> None:
    refused = quick("operator", "status", "no-such-task", "-q", code=9)
    assert refused.stdout == "" and "no-such-task" in refused.stderr
    both = quick("operator", "templates", "list", "-q", "-o", "json")
    assert both.json == quick("operator", "templates", "list", "-o", "json").json


def test_an_approver_who_signs_unasked_and_quietly_reads_one_id(quick: Cli, spec: Callable[..., Path]) -> None:
    path = spec(criticality="medium")
    task = yaml.safe_load(path.read_text())["metadata"]["id"]
    quick("operator", "submit", path, "-q")
    assert task in quick("approver-1", "approvals", "-q").stdout.split()
    signed = quick("approver-1", "approve", task, "--yes", "-q")
    assert (signed.stdout, signed.stderr) == (f"{task}\n", "")
