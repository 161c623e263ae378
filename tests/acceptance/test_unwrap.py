"""`jitvault unwrap` as an agent types it: once and no more, with what the token may do, and what a theft looks like."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import SERVER, Cli, Quick, Result, at_terminal, without_limits

from jitvault.formats.secret import Secret
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault

Spec = Callable[..., Path]
RENEWED = "one more ends the task; renewed for you, do not renew"
TIME = r"2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
NOWHERE = {"VAULT_ADDR": "http://127.0.0.1:1"}


@pytest.fixture(scope="module")
def variables(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Policies that count no findings: an interception here is no reason for a denial in the next test."""
    yield {**variables, "JITVAULT_POLICIES": str(without_limits(tmp_path_factory.mktemp("policies") / "all"))}


def granted(cli: Cli, spec: Path) -> Path:
    """The task is granted; the file that `grant` wrote for its agent."""
    wrapped = spec.with_suffix(".json")
    cli("operator", "grant", spec, "--out", wrapped)
    return wrapped


def token_in(wrapped: Path) -> str:
    return str(json.loads(wrapped.read_text())["wrapping"][0]["token"])


def state_of(cli: Cli, task: str, code: int = 0) -> tuple[str, str | None, list[str]]:
    shown = cli("operator", "status", task, "--json", code=code).json
    return shown["state"], shown["end_reason"], [found["rule"] for found in shown["findings"]]


def in_one_line(text: str) -> str:
    return " ".join(text.split())


# -- a second time --------------------------------------------------------------------------------------------


def test_a_second_unwrap_by_the_same_person_is_refused_before_vault_is_asked(quick: Quick, spec: Spec) -> None:
    file = spec()
    wrapped = granted(quick, file)
    copy = wrapped.with_name("copy.json")
    shutil.copy(wrapped, copy)
    held = quick("agent", "unwrap", wrapped, "--json").json["token"]
    token = token_in(wrapped)
    tries: list[tuple[str, str]] = [(str(wrapped), ""), (str(copy), ""), (token, ""), ("-", token + "\n")]
    tries.append(("-", wrapped.read_text()))
    for what, given in tries:
        # Vault is nowhere, and nobody notices: it is not asked
        for extra in ({}, NOWHERE):
            error = quick("agent", "unwrap", what, "--json", given=given, code=9, extra=extra).error
            assert re.search(rf"of task {file.stem} before, at \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC", error["message"])
            assert f"`jitvault revoke {file.stem} --reason WHY`" in error["hint"]
            assert token not in str(error) and held not in str(error)
    assert state_of(quick, file.stem) == ("active", None, [])
    assert quick("operator", "complete", file.stem, "--json").json["confirmed"]


def test_on_a_terminal_it_says_when_and_what_to_do(cli: Cli, quick: Quick, spec: Spec) -> None:
    width = 80
    file = spec()
    wrapped = granted(quick, file)
    quick("agent", "unwrap", wrapped)
    shown = at_terminal(cli, "agent", "unwrap", str(wrapped), width=width)
    assert shown.code == 9
    printed = re.sub(r"\x1b\[\d*m", "", shown.stdout)
    assert [line for line in printed.splitlines() if len(line) > width] == []
    said = in_one_line(printed.replace("    | ", " "))
    assert said.startswith(f"error: you opened this wrapping token of task {file.stem} before, at ")
    assert "raise the alarm: the operator runs" in said
    piped = cli("agent", "unwrap", wrapped, code=9)
    assert piped.stdout == "" and f"`jitvault complete {file.stem}`" in piped.stderr


def test_another_user_is_not_the_same_person(quick: Quick, spec: Spec, tmp_path: Path) -> None:
    """Somebody opened it first: the agent's own unwrap ends the task, and both sides are told what to do."""
    file = spec()
    wrapped = granted(quick, file)
    quick("agent", "unwrap", wrapped, extra={"XDG_STATE_HOME": str(tmp_path / "thief")})
    error = quick("agent", "unwrap", wrapped, "--json", code=9).error
    assert "somebody opened it before you" in error["message"]
    for part in (
        "the task ends as intercepted",
        "As the agent, stop and tell the operator",
        f"`jitvault status {file.stem}`",
        "have whoever has the worker's identity run `jitvault findings close --agent NAME --reason WHY`",
    ):
        assert part in error["hint"]
    # what was not opened is not remembered as opened: each try is Vault's to answer
    assert "somebody opened it before you" in quick("agent", "unwrap", wrapped, "--json", code=9).error["message"]
    told = quick("operator", "status", file.stem, "--json", code=12)
    assert (told.json["end_reason"], told.json["proof"]["confirmed"]) == ("intercepted", True)
    for part in (
        "so the task was ended",
        "As the operator, find out",
        "whoever has the worker's identity",
        "As the agent, wait for that task",
    ):
        assert part in told.error["hint"]
    again = quick("operator", "complete", file.stem, "--json", code=12)
    assert again.error["hint"] == told.error["hint"]


def test_what_vault_did_not_answer_can_be_tried_again(quick: Quick, spec: Spec) -> None:
    wrapped = granted(quick, spec())
    quick("agent", "unwrap", wrapped, code=5, extra=NOWHERE)
    assert quick("agent", "unwrap", wrapped, "--json").json["token"]


def test_where_nothing_can_be_remembered_the_token_is_opened_all_the_same(quick: Quick, spec: Spec) -> None:
    wrapped = granted(quick, spec())
    result = quick("agent", "unwrap", wrapped, "--json", extra={"XDG_STATE_HOME": "/dev/null"})
    assert result.json["token"]
    assert "warning: /dev/null/jitvault/unwrapped cannot be written" in in_one_line(result.stderr)
    assert token_in(wrapped) not in result.stderr


def test_the_records_are_the_users_own_and_hold_no_token(quick: Quick, spec: Spec) -> None:
    wrapped = granted(quick, spec())
    held = quick("agent", "unwrap", wrapped, "--json").json["token"]
    directory = quick.home / ".local" / "state" / "jitvault" / "unwrapped"
    (record,) = directory.iterdir()
    assert (directory.stat().st_mode & 0o777, record.stat().st_mode & 0o777) == (0o700, 0o600)
    for secret in (token_in(wrapped), held):
        assert secret not in f"{record}{record.read_text()}"


def test_an_inbox_that_its_agent_emptied_says_when(quick: Quick, spec: Spec) -> None:
    file = spec(more="  deliver: agent\n")
    quick("operator", "grant", file)
    quick("agent", "unwrap", file.stem)
    error = quick("agent", "unwrap", file.stem, "--json", code=9).error
    assert error["message"].startswith(f"nothing of task {file.stem} is in your inbox: you opened its wrapping at 2")
    assert state_of(quick, file.stem) == ("active", None, [])
    for who, why in (("agent", "its wrapping was opened"), ("operator", "its wrapping token went to research-agent")):
        other = quick(who, "unwrap", file.stem, "--json", code=9, extra={"XDG_STATE_HOME": "/dev/null"}).error
        assert other["message"] == f"nothing of task {file.stem} is in your inbox: {why}"
    assert state_of(quick, file.stem) == ("active", None, [])


# -- what the token may do ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "limit", "words"),
    [
        (
            "postgres-readonly",
            "1",
            f"5 reads, {RENEWED}; one denied request ends the task",
        ),
        (
            "postgres-readwrite",
            "4",
            f"3 reads, {RENEWED}; 4 denied requests end the task",
        ),
    ],
)
def test_unwrap_says_what_the_agent_may_do(quick: Quick, spec: Spec, template: str, limit: str, words: str) -> None:
    extra = {"JITVAULT_DENIED_LIMIT": limit}

    def unwrapped(*more: str | Path) -> Result:
        file = spec(template=template)
        quick("operator", "submit", file, code=None)
        quick("approver-1", "approve", file.stem, "--yes", code=None)
        out = file.with_suffix(".json")
        quick("operator", "grant", file.stem, "--out", out, extra=extra)
        return quick("agent", "unwrap", out, *more)

    assert words in in_one_line(unwrapped().stdout)
    limits = unwrapped("--json").json["limits"]
    assert limits == {"reads": int(words[0]), "denied": int(limit)}
    out = spec().with_suffix(".token")
    filed = unwrapped("--out", out)
    assert json.loads(out.read_text())["limits"] == limits
    assert filed.stdout == "" and words in in_one_line(filed.stderr)


def test_on_a_terminal_what_it_may_do_is_wrapped_at_words(cli: Cli, quick: Quick, spec: Spec) -> None:
    width = 80
    shown = at_terminal(cli, "agent", "unwrap", str(granted(quick, spec())), width=width)
    may = shown.stdout[shown.stdout.index("  may") :]
    assert all(len(line) <= width for line in may.splitlines())
    assert in_one_line(may) == f"may 5 reads, {RENEWED}; one denied request ends the task"


def test_whoever_reads_at_once_is_told_that_nothing_is_to_be_renewed(quick: Quick, spec: Spec) -> None:
    shown = quick("agent", "unwrap", granted(quick, spec()), "--read")
    assert re.search(
        rf"use them until {TIME}, when the task ends; renewed for you, do not renew$", in_one_line(shown.stdout)
    )


@pytest.mark.parametrize(
    ("read", "kept"), [((), f"`{SERVER} token lookup` every 10s"), (("--read",), "--read does not show")]
)
def test_whoever_takes_a_task_with_a_heartbeat_is_told_what_keeps_it(
    quick: Quick, spec: Spec, read: tuple[str, ...], kept: str
) -> None:
    file = spec(window="15m, heartbeat: 30s", more="  deliver: agent\n")
    taken = f"jitvault exec {file.stem} -- CMD"
    shown = in_one_line(quick("operator", "grant", file).stdout)
    assert shown.endswith(f"once, by research-agent: {taken}")
    published = quick("operator", "status", file.stem, worker=False)
    assert f"next research-agent: {taken}" in in_one_line(published.stdout)
    said = in_one_line(quick("agent", "unwrap", file.stem, *read).stdout)
    assert (
        "note by its heartbeat the task ends 30s after the last look-up of" in said
        and kept in said
        and f"`{taken}`" in said
    )


def test_whoever_cannot_read_at_once_gets_the_token_instead(quick: Quick, spec: Spec, world: World) -> None:
    """The wrapping is open then, and a second unwrap is refused: nothing may be lost."""
    wrapped = granted(quick, spec())
    admin = Vault(Connection(world.address), world.admin_token)
    role = "database/roles/app-readonly"
    before = (admin.read(role) or {})["data"]
    fields = {"db_name", "default_ttl", "max_ttl", "creation_statements", "revocation_statements"}
    admin.delete(role)
    try:
        result = quick("agent", "unwrap", wrapped, "--read", "--json", code=None)
    finally:
        admin.write(role, {name: before[name] for name in fields})
    assert result.code in (9, 10)
    assert result.json["token"] and result.json["limits"]
    assert "the secrets could not be read" in result.error["message"]
    assert result.error["hint"].endswith("read with it, and do not unwrap again.")
    own = Vault(Connection(world.address), Secret(result.json["token"]))
    assert (own.read("database/creds/app-readonly") or {})["data"]


def test_the_last_read_that_is_left_is_told(quick: Quick, spec: Spec, world: World) -> None:
    file = spec()
    held = quick("agent", "unwrap", granted(quick, file), "--json").json
    assert held["limits"]["reads"] == 5
    own = Vault(Connection(world.address), Secret(held["token"]))
    for done in range(1, 6):
        own.read(held["reads"][0])
        shown = quick("operator", "status", file.stem, "--json").json
        assert shown["reads"] == {"done": done, "allowed": 5}
        said = in_one_line(quick("operator", "status", file.stem).stdout)
        assert ("that was the last one, and another one ends the task" in said) == (done == 5)
    # the agent sees the same on its own machine, without a ledger
    published = quick("agent", "status", file.stem, worker=False)
    assert "reads 5 of 5 done: that was the last one" in in_one_line(published.stdout)
    assert quick("operator", "complete", file.stem, "--json").json["confirmed"]


def test_the_wrapping_of_a_task_that_is_over_is_not_opened(quick: Quick, spec: Spec) -> None:
    """It would give a dead token, or look like one that somebody else opened."""
    file = spec(more="  deliver: agent\n")
    quick("operator", "grant", file)
    quick("operator", "revoke", file.stem)
    refused = quick("agent", "unwrap", file.stem, "--read", "-o", "env", code=9)
    assert (
        "(revoked by operator): what is in your inbox gives nothing any more" in refused.stderr and refused.stdout == ""
    )
