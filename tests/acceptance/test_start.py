"""What a command does before and around its work: help, version, wrong command lines, Ctrl-C, tracebacks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from commands import Cli
from forked import run_forked

HEAVY = {"hvac", "sqlalchemy", "pydantic", "alembic", "cedarpy", "msgspec"}
COMMANDS = [
    *(["submit"], ["grant"], ["complete"], ["revoke"], ["cancel"], ["approve"], ["deny"], ["unwrap"]),
    *(["status"], ["list"], ["report"], ["init"], ["spec", "check"], ["templates", "list"], ["templates", "show"]),
    *(
        ["demo"],
        ["dev"],
        ["freeze"],
        ["unfreeze"],
        ["audit", "status"],
        ["worker"],
        ["audit", "accept"],
        ["audit", "receive"],
    ),
]
NOTHING = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def run(*args: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "jitvault", *args]
    return subprocess.run(argv, env=environment or NOTHING, capture_output=True, text=True, timeout=30, check=False)


def forked(*args: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """For what comes after the start."""
    return run_forked(args, environment or NOTHING)


def imports(environment: dict[str, str], *args: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The command, and the top level packages that it imported."""
    argv = [sys.executable, "-X", "importtime", "-m", "jitvault", *args]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize(
    ("args", "heavy"),
    [
        (["--help"], HEAVY),
        # typer itself takes pydantic to read parameters, for any program
        (["audit", "--help"], HEAVY - {"pydantic"}),
    ],
    ids=["--help", "audit --help"],
)
def test_a_list_of_commands_imports_nothing_that_only_a_running_command_needs(args: list[str], heavy: set[str]) -> None:
    done, imported = imports(NOTHING, *args)
    assert done.returncode == 0 and "typer" in imported, "this has to see what is imported"
    assert not imported & heavy


@pytest.mark.parametrize(
    ("who", "args"),
    [
        ("agent", ["unwrap", "no-such-task"]),
        ("agent", ["status", "no-such-task"]),
        ("approver-1", ["approvals"]),
        ("approver-1", ["approve", "no-such-task"]),
        ("operator", ["list"]),
        ("operator", ["complete", "no-such-task"]),
        ("operator", ["templates", "list"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_who_has_no_ledger_waits_for_no_database_library_and_no_policy_engine(
    cli: Cli, who: str, args: list[str]
) -> None:
    _, imported = imports(cli.environment(who, worker=False), *args)
    assert "hvac" in imported, "this has to get as far as Vault"
    assert not imported & {"sqlalchemy", "alembic", "cedarpy"}


def test_help_of_every_command_says_what_it_does_and_explains_every_option() -> None:
    program = (
        "import contextlib, io, json, sys\nfrom jitvault.cli import app\nfound = {}\n"
        f"for words in {COMMANDS!r}:\n"
        "    sys.argv, out = ['jitvault', *words, '--help'], io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):\n        app.main()\n"
        "    found[' '.join(words)] = out.getvalue()\n"
        "print(json.dumps(found))"
    )
    # one process for all: each of their own is what `test_help_imports_nothing_heavy` starts
    done = subprocess.run([sys.executable, "-c", program], env=NOTHING, capture_output=True, text=True, check=True)
    for name, text in json.loads(done.stdout).items():
        words = [line.strip(" │") for line in text.splitlines() if line.strip(" │╭╮╰╯─")]
        assert words[0].startswith(f"Usage: jitvault {name}"), name
        assert words[1][0].isupper() and len(words[1]) > 15, name
        for line in words:
            if line.startswith("--"):
                assert len(line.split(maxsplit=1)) == 2, (name, line)
        # what stands before the options goes on to the edge of the terminal: no line ends where its source does
        said = text.split("╭")[0].splitlines()
        for line, following in pairwise(said):
            if line.strip() not in ("", "Example:") and following.strip():
                assert len(f" {line.strip()} {following.split()[0]}") > 79, (name, line)


def test_every_command_is_in_the_help() -> None:
    shown = run("--help").stdout
    for words in COMMANDS:
        assert re.search(rf"│ {words[0]} ", shown), words


def test_without_a_command_the_help_is_printed() -> None:
    done = run()
    assert "For operators" in done.stdout and "Traceback" not in done.stderr


def test_the_version_is_one_line_on_stdout() -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"jitvault \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["banana"], "banana"),
        (["grant", "task", "--banana"], "--banana"),
        (["status"], "TASK"),
        (["grant", "task", "--wait", "soon"], "--wait"),
        (["report", "-o", "xml"], "-o"),
        (["worker", "--concurrency", "0"], "--concurrency"),
        (["worker", "--slow-slots", "65"], "--slow-slots"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_command_line_is_2_and_names_what_is_wrong(args: list[str], said: str) -> None:
    done = forked(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "--help" in done.stderr


def test_errors_are_json_on_stderr_with_json_also_for_a_wrong_command_line() -> None:
    for args, code in ((["status", "task", "--banana", "--json"], 2), (["status", "some-task", "--json"], 5)):
        done = forked(*args, environment={**NOTHING, "VAULT_ADDR": "http://127.0.0.1:9", "VAULT_TOKEN": "s.nobody"})
        assert (done.returncode, done.stdout) == (code, "")
        error = json.loads(done.stderr)["error"]
        assert sorted(error) == ["exit_code", "hint", "message"]
        assert error["exit_code"] == code and error["message"] and error["hint"]


def test_an_error_has_a_message_and_a_hint_and_no_traceback_unless_debug() -> None:
    nobody = {**NOTHING, "VAULT_ADDR": "http://127.0.0.1:9", "VAULT_TOKEN": "s.nobody-at-all"}
    plain, debug = (forked("list", *more, environment=nobody) for more in ([], ["--debug"]))
    first, second = plain.stderr.splitlines()
    assert plain.returncode == 5
    assert first.startswith("error: ") and second.startswith("  ")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr and "VaultNotServing" in debug.stderr
    assert "s.nobody-at-all" not in plain.stderr + debug.stderr


def test_a_wrong_setting_is_2_and_names_the_variable_and_never_a_token(cli: Cli, spec: Callable[..., Path]) -> None:
    # nor the value: it can be a secret that got into the wrong variable
    wrong = {"JITVAULT_SETTLE_WINDOW": "banana"}
    for command in (["list"], ["grant", str(spec())]):
        failed = cli("operator", *command, code=2, extra=wrong)
        assert "JITVAULT_SETTLE_WINDOW: expected" in failed.stderr and "banana" not in failed.stderr
        assert not any(cli.variables[name] in failed.stderr for name in cli.variables if name.endswith("_TOKEN"))


def test_ctrl_c_is_130_and_says_that_nothing_is_lost(cli: Cli, spec: Callable[..., Path]) -> None:
    argv = [sys.executable, "-m", "jitvault", "grant", str(spec()), "--wait", "60"]
    environment = cli.environment("operator", worker=False)
    waiting = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=6)
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=10)
    # where an import makes a class at that moment, Python ends by the signal itself, which a shell calls 130 as well
    assert waiting.returncode in (130, -signal.SIGINT) and out == ""
    assert err.startswith(("error: interrupted\n  ", "No worker has answered")) and "error: interrupted\n  " in err
    # the first is what is said before the request was signed
    assert "The next command on the task finishes what was begun" in err or (
        "A worker that has not answered yet may still issue it" in err
        and f"`jitvault cancel {Path(argv[4]).stem}` cancels the task" in err
    )


def test_whoever_reads_the_output_may_leave_early(cli: Cli) -> None:
    argv = [sys.executable, "-m", "jitvault", "templates", "list", "--json"]
    writing = subprocess.Popen(argv, env=cli.environment(None), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writing.stdout is not None and writing.stderr is not None
    writing.stdout.close()
    said = writing.stderr.read()
    writing.stderr.close()
    assert (writing.wait(timeout=10), said) == (128 + signal.SIGPIPE, b""), "1 would be a bug, 0 a result"


def test_a_worker_that_logs_json_prints_nothing_else_and_says_last_why_it_ended() -> None:
    done = run("worker", "--log", "json")
    (died,) = map(json.loads, done.stderr.splitlines())
    assert (died["event"], died["level"], died["exit_code"]) == ("died", "error", done.returncode)
    assert "worker's identity" in died["error"] and died["hint"]
