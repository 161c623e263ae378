"""A first request: `spec new`, a spec from standard input, and the id that a submission makes or is given."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Cli, Quick, Result, at_terminal

from jitvault import shipped_files as shipped
from jitvault.documents.paths import request_path
from jitvault.documents.signed import payload_of
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault
from jitvault.vault.documents import Documents

COMPLETE = ("--agent", "research-agent", "--intent", "Count last week's orders: all of them.")
MADE = r"[bcdfghjklmnpqrstvwxz2456789]{8}"
# a Vault that does not answer, and no token: a command that needs either fails
NO_VAULT = {"VAULT_ADDR": "http://127.0.0.1:9"}


@pytest.fixture
def alone(tmp_path: Path) -> Cli:
    """Commands without a token or a server; each has a standard input of its own."""
    return Cli(NO_VAULT, tmp_path)


@pytest.fixture
def drawn(cli: Cli, tmp_path: Path) -> Path:
    """A complete spec that makes an id at each submission."""
    file = tmp_path / "drawn.yaml"
    cli(None, "spec", "new", "postgres-readonly", *COMPLETE, "--generate-name", "drawn-", "--out", file)
    return file


def ids(result: Result) -> set[str]:
    return set(re.findall(rf"\bdrawn-{MADE}\b", result.stdout + result.stderr))


def submitted(world: World, task: str) -> dict[str, Any]:
    """What is signed in the operator's request for a task."""
    documents = Documents(Vault(Connection(world.address), world.admin_token))
    envelope = documents.get(request_path(world.entity_ids["operator"], task, "submit"))
    assert envelope is not None
    return payload_of(envelope)


# -- spec new ---------------------------------------------------------------------------------------------


def test_it_prints_the_same_at_every_width_and_as_json(alone: Cli) -> None:
    narrow, wide = (
        alone(None, "spec", "new", "pki-service", extra={"COLUMNS": width}).stdout for width in ("80", "120")
    )
    assert narrow == wide and max(map(len, narrow.splitlines())) < 80
    assert "# one of orders\n        service: orders\n" in narrow
    as_json = alone(None, "spec", "new", "pki-service", "-o", "json")
    assert as_json.json == yaml.safe_load(narrow) and as_json.stderr == ""
    assert as_json.json["spec"]["window"] == {"for": "15m"} and as_json.json["spec"]["criticality"] == "medium"


def test_on_a_terminal_no_line_of_it_is_folded(alone: Cli) -> None:
    piped = alone(None, "spec", "new", "postgres-readonly", *COMPLETE)
    shown = subprocess.run(
        [sys.executable, "-m", "jitvault", "spec", "new", "postgres-readonly", *COMPLETE],
        env=alone.environment(None),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == piped.stdout and piped.stderr == ""


def test_what_is_left_open_is_named_by_both_commands(alone: Cli, tmp_path: Path) -> None:
    file = tmp_path / "a b.yaml"
    made = alone(None, "spec", "new", "postgres-readonly", "--out", file)
    assert made.stdout == "" and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"Fill in spec.agent and spec.intent. Then run `jitvault spec check '{file}'`." in made.stderr
    refused = alone(None, "spec", "check", file, code=8)
    assert "spec.agent: <agent> is a placeholder" in refused.stderr and "spec.intent: <intent> is" in refused.stderr
    file.write_text(file.read_text().replace("<agent>", "research-agent").replace("<intent>", "Count."))
    assert "postgres-readonly-*: the spec is valid" in alone(None, "spec", "check", file).stdout
    assert "cannot be written: File exists" in alone(None, "spec", "new", "pki-service", "--out", file, code=2).stderr


def test_a_complete_one_names_the_next_command_and_quietly_nothing(alone: Cli, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    assert "Next: `jitvault grant " in alone(None, "spec", "new", "pki-service", *COMPLETE, "--out", file).stderr
    file.unlink()
    login = {"JITVAULT_AGENT_LOGIN": "jwt", "JITVAULT_TEMPLATES": str(shipped.templates_dir())}
    named = alone(None, "spec", "new", "pki-service", *COMPLETE, "--tool", "curl", "--out", file, extra=login).stderr
    assert " --file CERTIFICATE=pki-service.certificate --file KEY=pki-service.private_key -- CMD`" in named
    assert yaml.safe_load(file.read_text())["spec"]["tools"] == ["curl"]
    file.unlink()
    assert alone(None, "spec", "new", "pki-service", "--out", file, "-q").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["postgres-readonl"], 9, "there is no template 'postgres-readonl' (did you mean postgres-readonly?)"),
        (["pki-service", "--for", "61m"], 2, "--for: template pki-service takes 10s to 1h, got 1h1m"),
        (["pki-service", "--for", "9s"], 2, "--for: template pki-service takes 10s to 1h, got 9s"),
        (["pki-service", "--with", "service=oders"], 2, "expected one of orders, got 'oders' (did you mean orders?)"),
        (["pki-service", "--with", "servce=orders"], 2, "unknown parameter 'servce' (did you mean service?)"),
        (["pki-service", "--with", "service"], 2, "--with 'service': expected NAME=VALUE"),
        (["pki-service", "--criticality", "lwo"], 2, "error: --criticality: expected 'low', 'medium', 'high' or"),
        (["pki-service", "--agent", "a\x1b[31m"], 2, "error: --agent: expected the name of a Vault entity"),
        (["pki-service", "--intent", "a\u202eb"], 2, "error: --intent: expected one paragraph"),
        (["pki-service", "--id", "../x"], 2, "error: --id: expected 1 to 63 of a-z"),
        (["pki-service", "--generate-name", "x" * 56], 2, "error: --generate-name: expected 1 to 55 of a-z"),
        (["pki-service", "--id", "a", "--generate-name", "b-"], 2, "--id and --generate-name exclude each other"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(alone: Cli, arguments: list[str], code: int, said: str) -> None:
    refused = alone(None, "spec", "new", *arguments, code=code)
    assert said in refused.stderr and refused.stdout == "" and "\x1b" not in refused.stderr


def test_templates_of_ones_own_are_begun_and_completed_by_a_shell(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "templates" / "postgres-readonly.yaml").read_text()
    directory = tmp_path / "templates"
    directory.mkdir()
    (directory / "one.yaml").write_text(
        text.replace("name: postgres-readonly", "name: orders-reader").replace("choices: [app]", "choices: [app, hr]")
    )
    here = Cli({**NO_VAULT, "JITVAULT_TEMPLATES": str(directory)}, tmp_path)
    assert yaml.safe_load(here(None, "spec", "new", "orders-reader").stdout)["spec"]["access"] == [
        {"template": "orders-reader", "with": {"database": "<database>"}}
    ]
    chosen = here(None, "spec", "new", "orders-reader", *COMPLETE, "--with", "database=hr")
    assert "reads database/creds/hr-readonly" in here(None, "spec", "check", "-", given=chosen.stdout).stdout


# -- standard input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "form"), [("postgres-readonly", "yaml"), ("postgres-readwrite", "json"), ("pki-service", "yaml")]
)
def test_what_it_prints_is_granted_as_it_is(cli: Cli, template: str, form: str) -> None:
    new = cli(None, "spec", "new", template, *COMPLETE, "-o", form, extra=NO_VAULT)
    risky = template != "postgres-readonly"
    asked = cli("operator", "grant", "-", "-o", "json", given=new.stdout, code=4 if risky else 0)
    task = asked.json["task_id"]
    assert re.fullmatch(rf"{template}-{MADE}", task)
    if risky:
        cli("approver-1", "approve", task, "--yes", "-q")
        cli("operator", "grant", task, "-q")
    assert cli("agent", "unwrap", task, "-q", worker=False).stdout.count("\n") == 1
    assert cli("operator", "complete", task, "-q").stdout == f"{task}\n"


def test_every_command_that_takes_a_spec_takes_standard_input(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    text = file.read_text()
    assert cli(None, "spec", "check", "-", given=text).stdout == cli(None, "spec", "check", file).stdout
    explained = cli("operator", "policy", "explain", "-", given=text)
    assert explained.stdout == cli("operator", "policy", "explain", file).stdout
    submitted = cli("operator", "submit", "-", given=text)
    granted = cli("operator", "grant", "-", given=text)
    for result in (submitted, granted):
        assert re.findall(r"jitvault .*", result.stdout) and " -\n" not in result.stdout.replace("unwrap -", "")
    assert f"jitvault grant {file.stem}" in submitted.stdout
    for command in (("submit",), ("spec", "check"), ("policy", "explain")):
        refused = cli("operator", *command, "-", given="kind: Task", code=8)
        assert "standard input:1: metadata: a value is required" in refused.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "standard input is empty"),
        (b" \n\t\n", "standard input is empty"),
        (b"\x00\xff\xfe", "standard input:1:2: expected UTF-8 text"),
        (b"kind: Task\nspec: \x80", "standard input:2:7: expected UTF-8 text"),
        (b"#" * 10_000_000, "standard input: expected at most 65536 bytes, got more"),
        (b"metadata: {id: a", "standard input:1:17: expected valid YAML or JSON"),
        (b"kind: Task\n", "standard input:1: metadata: a value is required"),
    ],
    ids=["empty", "blank", "binary", "not-utf-8", "huge", "not-yaml", "not-a-spec"],
)
def test_what_is_no_spec_is_refused_by_the_name_of_standard_input(cli: Cli, given: bytes, said: str) -> None:
    refused = cli("operator", "grant", "-", given=given.decode(errors="surrogateescape"), code=8)
    assert refused.stdout == "" and said in refused.stderr
    assert "Nothing was written." in refused.stderr and "Correct the file" not in refused.stderr


def test_standard_input_that_is_closed_is_refused(cli: Cli) -> None:
    script = f"exec {sys.executable} -m jitvault spec check - <&-"
    done = subprocess.run(
        ["sh", "-c", script], env=cli.environment(None), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 8 and "standard input is closed" in done.stderr


def test_at_a_terminal_it_says_what_it_waits_for(cli: Cli, spec: Callable[..., Path]) -> None:
    text = json.dumps(yaml.safe_load(spec().read_text()))
    # the end of a line, and then Ctrl-D
    typed = at_terminal(cli, "operator", "spec", "check", "-", answer=f"{text}\n\x04", question="of its own.")
    assert typed.code == 0 and "Reading a task spec from this terminal" in typed.stdout
    assert "the spec is valid" in typed.stdout


def test_a_file_that_is_called_so_is_read_by_its_path(
    tmp_path: Path, spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "-").write_text(spec(task="a-file").read_text())
    monkeypatch.chdir(tmp_path)
    assert Quick(NO_VAULT, tmp_path)(None, "spec", "check", "./-", "-q").stdout == "a-file\n"


# -- the id -----------------------------------------------------------------------------------------------


def test_each_submission_makes_a_task_and_says_its_id_wherever_it_prints(
    quick: Quick, world: World, drawn: Path
) -> None:
    one = quick("operator", "submit", drawn)
    other = quick("operator", "grant", drawn)
    as_json = quick("operator", "submit", drawn, "-o", "json")
    quiet = quick("operator", "submit", drawn, "-q")
    made = [ids(each) for each in (one, other, as_json, quiet)]
    assert [len(each) for each in made] == [1, 1, 1, 1] and len(set.union(*made)) == 4
    task = one.stdout.split()[1]
    assert one.stderr.startswith(f"The id of this task is {task}\n")
    assert as_json.stderr == "" and re.fullmatch(rf"drawn-{MADE}", as_json.json["task_id"])
    assert quiet.stdout == quiet.stderr.removeprefix("The id of this task is ")
    signed = submitted(world, task)
    assert signed["task"] == signed["spec"]["metadata"]["id"] == task and "generateName" not in json.dumps(signed)


def test_an_access_whose_token_nobody_prints_has_an_id_all_the_same(quick: Quick, drawn: Path) -> None:
    quiet = quick("operator", "grant", drawn, "-q")
    assert quiet.stdout == "" and len(ids(quiet)) == 1, "deliver: agent prints no token"


def test_an_id_that_is_given_is_that_of_the_task_whatever_the_file_says(
    quick: Quick, world: World, drawn: Path, spec: Callable[..., Path]
) -> None:
    for n, file in enumerate((drawn, spec())):
        task = f"given-{os.getpid()}-{n}"
        assert quick("operator", "grant", file, "--id", task, "-o", "json").json["task_id"] == task
        again = quick("operator", "grant", file, "--id", task, "-o", "json")
        assert again.json["task_id"] == task, "the same command goes on with the same task"
        assert submitted(world, task)["spec"]["metadata"]["id"] == task
        checked = quick(None, "spec", "check", file, "--id", task, "-o", "json").json
        assert checked["spec"]["metadata"]["id"] == task
        assert quick("operator", "policy", "explain", file, "--id", task, "-o", "json").json["task_id"] == task


def test_before_a_submission_there_is_no_id(quick: Quick, drawn: Path) -> None:
    shown = quick(None, "spec", "check", drawn, "-o", "json").json["spec"]["metadata"]
    assert shown == {"generateName": "drawn-", "labels": {}}
    assert quick(None, "spec", "check", drawn, "-q").stdout == ""
    assert "drawn-*: the spec is valid" in quick(None, "spec", "check", drawn).stdout
    assert quick("operator", "policy", "explain", drawn, "-o", "json").json["task_id"] is None
    assert "Task drawn-* would be approved" in quick("operator", "policy", "explain", drawn).stdout


@pytest.mark.parametrize("command", [("grant",), ("submit",), ("spec", "check"), ("policy", "explain")], ids=" ".join)
def test_a_wrong_id_is_refused_before_anything(quick: Quick, drawn: Path, command: tuple[str, ...]) -> None:
    for task in ("A", "../x", "a/b", "a..b", "x" * 64, "", "-x", "a b", "hvs.CAESIJ"):
        refused = quick("operator", *command, drawn, f"--id={task}", code=2)
        assert "error: --id: expected 1 to 63 of a-z 0-9 . _ -" in refused.stderr and ids(refused) == set(), task


def test_an_id_is_for_a_spec_and_a_revision_for_an_id(quick: Quick, drawn: Path) -> None:
    assert "--id names the task of a spec" in quick("operator", "grant", "no-spec", "--id", "a", code=2).stderr
    for command in ("grant", "submit"):
        refused = quick("operator", command, drawn, "--revise", code=2)
        assert "--revise replaces the spec of a task" in refused.stderr and ids(refused) == set()


@pytest.mark.parametrize("form", [(), ("-q",), ("-o", "json")], ids=" ".join)
def test_whoever_no_worker_answers_goes_on_with_the_id(cli: Cli, drawn: Path, form: tuple[str, ...]) -> None:
    late = cli("operator", "grant", drawn, "--wait", "1", *form, worker=False, code=13)
    (task,) = ids(late)
    said = " ".join(late.stderr.split())
    assert f"go on with `jitvault grant {task}`, since the same command makes another task" in said
    assert cli("operator", "grant", task, "-o", "json").json["state"] == "issued"


def test_whoever_is_interrupted_or_killed_finds_the_task_by_what_was_said(cli: Cli, drawn: Path) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        argv = [sys.executable, "-m", "jitvault", "submit", str(drawn), "--wait", "30s"]
        process = subprocess.Popen(
            argv, env=cli.environment("operator", worker=False), stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        first = process.stderr.readline()
        task = first.removeprefix("The id of this task is ").strip()
        deadline = time.monotonic() + 20
        while "no worker has admitted" not in cli("operator", "status", task, worker=False, code=9).stderr:
            assert time.monotonic() < deadline
        process.send_signal(number)
        _, rest = process.communicate(timeout=20)
        assert process.returncode == (130 if number is signal.SIGINT else -number)
        if number is signal.SIGINT:
            assert f"go on with `jitvault grant {task}`" in rest
        assert cli("operator", "grant", task, "-o", "json").json["state"] == "issued"


def test_whom_vault_refuses_is_told_that_nothing_was_written(quick: Quick, drawn: Path) -> None:
    refused = quick("auditor", "submit", drawn, worker=False, code=10)
    assert "nothing was written" in refused.stderr and "go on with" not in refused.stderr
