"""What `jitvault unwrap --read` gives an agent to connect with, and what a mistyped one is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from commands import Cli, Quick, Result, at_terminal, without_limits

from jitvault.formats.secret import Secret
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault

Spec = Callable[..., Path]
FOR_AGENT = "  deliver: agent\n"
LOST = {"XDG_STATE_HOME": "/dev/null"}


@pytest.fixture(scope="module")
def variables(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Policies that count no findings of the tests before."""
    yield {**variables, "JITVAULT_POLICIES": str(without_limits(tmp_path_factory.mktemp("policies") / "all"))}


def for_agent(cli: Cli, spec: Spec, *templates: str) -> str:
    """The id of a task that was granted, with its wrapping in the agent's inbox."""
    file = spec(more=FOR_AGENT)
    if templates:
        choices = {"pki-service": {"service": "orders"}}
        document = yaml.safe_load(file.read_text())
        document["spec"]["access"] = [
            {"template": each, "with": choices.get(each, {"database": "app"})} for each in templates
        ]
        file.write_text(json.dumps(document))
    cli("operator", "submit", file, code=None)
    for approver in ("approver-1", "approver-2"):
        cli(approver, "approve", file.stem, "--yes", code=None)
    cli("operator", "grant", file.stem)
    return file.stem


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def query(environment: dict[str, str], dsn: str) -> int:
    """How many orders somebody finds who has nothing but this environment and this text."""
    code = f"import os, psycopg; print(psycopg.connect({dsn}).execute('SELECT count(*) FROM orders').fetchone()[0])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    return int(done.stdout)


def sourced(text: str) -> dict[str, str]:
    done = subprocess.run(
        ["sh", "-c", 'eval "$T"; unset T; exec env -0'], env={"T": text}, stdout=subprocess.PIPE, check=True
    )
    return dict(each.split("=", 1) for each in done.stdout.decode().split("\0") if each)


# -- the formats ----------------------------------------------------------------------------------------------


def test_the_variables_connect_by_themselves(quick: Quick, spec: Spec, world: World, tmp_path: Path) -> None:
    out = tmp_path / "orders.env"
    shown = quick("agent", "unwrap", for_agent(quick, spec), "--read", "-o", "env", "--out", out)
    assert (shown.stdout, out.stat().st_mode & 0o777) == ("", 0o600)
    assert "renewed for you, do not renew" in in_one_line(shown.stderr)
    found = sourced(out.read_text())
    assert query({**found, "PATH": os.environ["PATH"]}, "''") == query({}, repr(found["DATABASE_URL"])) == 3
    assert (found["PGHOST"], found["PGPORT"]) == (world.servers.postgres.host, str(world.servers.postgres.port))
    expires, ends = (datetime.fromisoformat(found[f"JITVAULT_{name}_AT"]) for name in ("EXPIRES", "ENDS"))
    assert 60 < (expires - datetime.now(expires.tzinfo)).total_seconds() <= 120
    assert 600 < (ends - expires).total_seconds() < 900


def test_the_url_is_all_that_is_printed_to_a_pipe(cli: Cli, quick: Quick, spec: Spec) -> None:
    shown = cli("agent", "unwrap", for_agent(quick, spec), "--read", "-o", "dsn")
    assert shown.stdout.count("\n") == 1 and query({}, repr(shown.stdout.strip())) == 3
    assert re.findall(r"\d{4}-\d\d-\d\d", shown.stderr) == re.findall(r"until (\d{4}-\d\d-\d\d)", shown.stderr) != []


def test_json_says_where_and_until_when(quick: Quick, spec: Spec, world: World) -> None:
    task = for_agent(quick, spec)
    shown = quick("agent", "unwrap", task, "--read", "-o", "json").json
    assert sorted(shown) == ["ends_at", "expires_at", "heartbeat_s", "secrets", "task_id"]
    (secret,) = shown["secrets"]
    postgres = world.servers.postgres
    connection = {"host": postgres.host, "port": postgres.port, "database": "app", "tls": "disable"}
    assert (secret["connection"], secret["with"]) == (connection, {"database": "app"})
    assert secret["expires_at"] == shown["expires_at"] < shown["ends_at"]
    assert shown["ends_at"][:19] == quick("operator", "status", task, "--json").json["ends_at"][:19]
    token = quick("agent", "unwrap", for_agent(quick, spec), "--json").json
    assert token["uses"][0]["connection"] == connection and token["expires_at"] < token["ends_at"]


def test_people_read_where_to_connect(cli: Cli, quick: Quick, spec: Spec, world: World) -> None:
    width = 80
    address = f"127.0.0.1:{world.servers.postgres.port}, database app, without TLS"
    for more in ((), ("--read",)):
        shown = at_terminal(cli, "agent", "unwrap", for_agent(quick, spec), *more, width=width)
        assert shown.code == 0 and re.search(rf"^  connect +{address}$", shown.stdout, re.MULTILINE)
        # a token is never folded, and HashiCorp Vault's is longer than such a line
        folded = [line for line in shown.stdout.splitlines() if max(map(len, line.split()), default=0) < width]
        assert [line for line in folded if len(line) > width] == []


def test_approvers_read_it_before_they_sign(quick: Quick, spec: Spec, world: World) -> None:
    file = spec(criticality="high")
    quick("operator", "submit", file, code=None)
    waiting = quick("approver-1", "approvals", "--json").json["tasks"]
    (words,) = (each["words"] for each in waiting if each["task_id"] == file.stem)
    assert f"  used at 127.0.0.1:{world.servers.postgres.port}, database app, without TLS" in words
    shown = quick("operator", "templates", "show", "postgres-readonly")
    assert f"connects 127.0.0.1:{world.servers.postgres.port}, database app, without TLS" in in_one_line(shown.stdout)
    quick("operator", "cancel", file.stem)


def test_of_several_credentials_each_name_says_which(quick: Quick, spec: Spec, world: World) -> None:
    both = ("postgres-readonly", "postgres-readwrite")
    found = sourced(quick("agent", "unwrap", for_agent(quick, spec, *both), "--read", "-o", "env").stdout)
    assert query({}, repr(found["POSTGRES_READONLY_DATABASE_URL"])) == 3
    assert found["POSTGRES_READONLY_PGUSER"] != found["POSTGRES_READWRITE_PGUSER"] and "PGUSER" not in found
    urls = quick("agent", "unwrap", for_agent(quick, spec, *both), "--read", "-o", "dsn").stdout.splitlines()
    assert [url.split()[0] for url in urls] == list(both)
    mixed = sourced(
        quick("agent", "unwrap", for_agent(quick, spec, both[0], "pki-service"), "--read", "-o", "env").stdout
    )
    assert query({**mixed, "PATH": os.environ["PATH"]}, "''") == 3
    assert mixed["PKI_SERVICE_PRIVATE_KEY"].startswith("-----BEGIN EC PRIVATE KEY-----\n")


def test_a_certificate_has_no_url_and_nothing_is_lost(quick: Quick, spec: Spec) -> None:
    shown = quick("agent", "unwrap", for_agent(quick, spec, "pki-service"), "--read", "-o", "dsn", code=9)
    assert shown.json["secrets"][0]["fields"]["private_key"]
    assert "error: pki-service: no database and address is known, so there is no URL" in in_one_line(shown.stderr)


def test_a_format_of_secrets_needs_read_and_nothing_is_unwrapped(quick: Quick, spec: Spec) -> None:
    task = for_agent(quick, spec)
    for format_ in ("env", "dsn"):
        refused = quick("agent", "unwrap", task, "-o", format_, code=2)
        assert f"-o {format_} prints what was read" in refused.stderr
    assert quick("agent", "unwrap", task, "-o", "json").json["token"]


def test_the_last_read_is_told_to_whoever_reads_by_jitvault(quick: Quick, spec: Spec, tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    shipped = Path(quick.variables["JITVAULT_TEMPLATES"])
    text = (shipped / "postgres-readonly.yaml").read_text().replace("lease_budget: 5", "lease_budget: 1")
    (templates / "postgres-readonly.yaml").write_text(text)
    extra = {"JITVAULT_TEMPLATES": str(templates)}
    file = spec()

    def read(*more: str) -> Result:
        file = spec(more=FOR_AGENT)
        quick("operator", "grant", file, extra=extra)
        return quick("agent", "unwrap", file.stem, "--read", *more)

    last = "reads 1 of 1 done: that was the last one, and another one ends the task"
    assert last in in_one_line(read().stdout)
    assert last in in_one_line(read("-o", "env").stderr)
    assert "that was the last one" not in quick("agent", "unwrap", for_agent(quick, spec), "--read").stdout
    assert file.exists()


def test_whoever_could_read_only_a_part_is_told_how_many_reads_are_done(quick: Quick, spec: Spec, world: World) -> None:
    task = for_agent(quick, spec, "postgres-readonly", "postgres-readwrite")
    admin = Vault(Connection(world.address), world.admin_token)
    role = "database/roles/app-readwrite"
    before = (admin.read(role) or {})["data"]
    fields = {"db_name", "default_ttl", "max_ttl", "creation_statements", "revocation_statements"}
    admin.delete(role)
    try:
        result = quick("agent", "unwrap", task, "--read", "-o", "env", "--json", code=2)
        assert "name two formats" in result.stderr
        result = quick("agent", "unwrap", task, "--read", "--json", code=None)
    finally:
        admin.write(role, {name: before[name] for name in fields})
    assert result.error["hint"].endswith("do not unwrap again. 1 of 8 reads are done.")
    own = Vault(Connection(world.address), Secret(result.json["token"]))
    assert (own.read("database/creds/app-readonly") or {})["data"]


# -- how a wrapping token is named ----------------------------------------------------------------------------


def test_no_command_is_suggested_with_a_token_in_it(cli: Cli, quick: Quick, spec: Spec) -> None:
    shown = quick("operator", "grant", spec())
    (token,) = re.findall(r"^  token +(\S+)$", shown.stdout, re.MULTILINE)
    assert f"unwrap {token}" not in in_one_line(shown.stdout) and "jitvault unwrap -\n" in shown.stdout
    assert quick("agent", "unwrap", "-", "--json", given=f"{token}\n").json["token"]
    out = spec().with_suffix(".json")
    assert f"jitvault unwrap {out}\n" in quick("operator", "grant", spec(), "--out", out).stdout
    task = spec(more=FOR_AGENT)
    delivered = quick("operator", "grant", task)
    unwraps = f"unwrap within 2m, once, by research-agent: jitvault unwrap {task.stem} --read"
    assert unwraps in in_one_line(delivered.stdout)
    assert delivered.stderr == ""
    usage = in_one_line(cli(None, "unwrap", "--help").stdout)
    assert "[OPTIONS] {TASK|FILE|-}" in usage and not re.search(r"unwrap \W?TOKEN", usage)
    # as an argument it still works
    (token,) = re.findall(r"^  token +(\S+)$", quick("operator", "grant", spec()).stdout, re.MULTILINE)
    assert quick("agent", "unwrap", token, "--json").json["token"]


def test_at_a_terminal_the_token_is_asked_for_and_not_shown(cli: Cli, quick: Quick, spec: Spec) -> None:
    (token,) = re.findall(r"^  token +(\S+)$", quick("operator", "grant", spec()).stdout, re.MULTILINE)
    shown = at_terminal(cli, "agent", "unwrap", "-", answer=token, question="(not shown): ")
    assert shown.code == 0 and "  token " in shown.stdout and token not in shown.stdout


def test_what_is_mistyped_is_told_what_is_wrong(
    quick: Quick, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    wrapped, empty, spec_file = tmp_path / "wrapped.json", tmp_path / "empty.json", spec()
    quick("operator", "grant", spec(), "--out", wrapped)
    empty.write_text(" \n")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "cut.json").write_text('{\n  "task_id": "t",\n  "wrapping": [{"token": "hvs.secret"\n')
    for what, code, message in (
        (tmp_path / "wraped.json", 9, f"there is no file '{tmp_path}/wraped.json' (did you mean {wrapped}?)"),
        ("nosuch.json", 9, "there is no file 'nosuch.json'"),
        (empty, 8, f"{empty} is empty"),
        (tmp_path, 8, f"'{tmp_path}' is a directory"),
        ("folder", 8, "'folder' is a directory"),
        (spec_file, 8, f"{spec_file}: this is neither a wrapping token nor the JSON output of `jitvault grant`"),
        (tmp_path / "other.json", 8, f"{tmp_path / 'other.json'}: this JSON holds no wrapping token"),
        (
            tmp_path / "cut.json",
            8,
            f"{tmp_path / 'cut.json'}: this is no JSON: line 3, column 38: Expecting ',' delimiter",
        ),
    ):
        # without a token as well: nothing is asked of Vault for a file
        for who in ("agent", None):
            error = quick(who, "unwrap", what, "--json", code=code).error
            assert error["message"].startswith(message), error
            assert "`jitvault unwrap TASK`" in error["hint"] and "Correct the file" not in error["hint"]
    alone = quick(None, "unwrap", "nosuch", "--json", code=2).error["message"]
    assert alone.startswith("there is no file nosuch, and to look for a task") and alone.endswith(
        "VAULT_TOKEN is not set"
    )
    assert quick("agent", "unwrap", wrapped, "--json").json["token"]


def test_an_empty_inbox_says_why(quick: Quick, spec: Spec) -> None:
    def why(task: str, who: str = "agent") -> str:
        message = quick(who, "unwrap", task, "--json", code=9, extra=LOST).error["message"]
        assert isinstance(message, str)
        return message.removeprefix(f"nothing of task {task} is in your inbox: ")

    waiting, mine, ended = spec(criticality="high", more=FOR_AGENT), spec(), for_agent(quick, spec)
    quick("operator", "submit", waiting, code=None)
    quick("operator", "grant", mine)
    quick("agent", "unwrap", ended)
    quick("operator", "complete", ended)
    assert why("nosuch") == "there is no file nosuch, and no task of that name"
    meant = for_agent(quick, spec)
    typed = meant.replace("-", "_", 1)
    assert why(typed) == f"there is no file {typed}, and no task of that name (did you mean {meant}?)"
    denied = spec(criticality="high", more=FOR_AGENT)
    quick("operator", "submit", denied, code=None)
    quick("approver-1", "deny", denied.stem, "--yes", "--reason", "not now")
    assert why(denied.stem) == 'the task is denied, and gets no token: approver-1 denied it: "not now"'
    assert why(waiting.stem) == "the task is pending_approval, so its token is not made yet"
    assert why(mine.stem) == "its wrapping token went to operator"
    assert re.fullmatch(r"the task is (confirmed|sealed) \(completed\)", why(ended))
    assert why(mine.stem, "operator").startswith("its wrapping token was taken out")


def test_a_refused_token_is_named_by_where_it_came_from(quick: Quick, tmp_path: Path) -> None:
    wrong = "s." + "x" * 24
    home = tmp_path / "home"
    home.mkdir()
    (home / ".vault-token").write_text(wrong)
    for extra, source, more in (
        ({"VAULT_TOKEN": wrong}, "VAULT_TOKEN", "VAULT_TOKEN is set, so"),
        ({"BAO_TOKEN": wrong}, "BAO_TOKEN", "BAO_TOKEN is set, so"),
        ({"HOME": str(home)}, "~/.vault-token", "log in again"),
    ):
        error = quick(None, "unwrap", "some-task", "--json", code=10, extra=extra).error
        assert error["message"].endswith(f"permission denied; the token is that of {source}")
        assert more in error["hint"] and wrong not in str(error)
