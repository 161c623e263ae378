"""The whole story, and then a search for every secret in everything that it left behind."""

from __future__ import annotations

import base64
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import PEOPLE, Cli, Result
from forked import run_forked
from ledgers import bind, new_file
from psycopg.conninfo import conninfo_to_dict

from jitvault.formats.secret import Secret
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault

Spec = Callable[..., Path]
# these two give secrets to whoever runs them: it is what they are for
SPEAKS = ("grant ", "unwrap ")


def spellings(secret: str) -> Iterator[bytes]:
    """How a secret can stand in a file: plain, base64 at each alignment, URL- and JSON-escaped, in hex."""
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    yield urllib.parse.quote(secret, safe="").encode()
    yield urllib.parse.quote_plus(secret).encode()
    yield json.dumps(secret)[1:-1].encode()
    yield "".join(f"\\u{ord(c):04x}" for c in secret).encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # what stands before and after changes the outer characters, never the inner ones
            yield encode(b"\x00" * shift + raw)[4 if shift else 0 : -4]


def leaks(secrets: dict[str, str], places: dict[str, bytes]) -> list[str]:
    """Which secret stands where; the secrets themselves are not in it."""
    return [
        f"{name} in {place}"
        for name, secret in secrets.items()
        for place, content in places.items()
        if any(spelling in content for spelling in spellings(secret))
    ]


def _password(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["password"])


class Story:
    """One task of high criticality from its spec to the sealed receipt, with things going wrong on the way."""

    def __init__(self, cli: Cli, world: World, spec: Spec, directory: Path) -> None:
        self.cli, self.world, self.directory = cli, world, directory
        self.secrets = {f"{who}'s token": cli.variables[variable] for who, variable in PEOPLE.items()}
        self.secrets["worker's token"] = cli.variables["JITVAULT_WORKER_TOKEN"]
        self.secrets["target's password"] = _password(cli.variables["JITVAULT_TARGET_DSN"])
        admin = Vault(Connection(world.address), world.admin_token)
        probe = (admin.read("jitvault/data/probes/postgres") or {})["data"]["data"]["dsn"]
        self.secrets["probe's password"] = _password(probe)
        self._tell(spec)

    def _tell(self, spec: Spec) -> None:
        first, second, delivered = spec(criticality="high"), spec(), spec(more="  deliver: agent\n")
        self._run("operator", "grant", first, code=4)
        for approver in ("approver-1", "approver-2"):
            self._run(approver, "approve", first.stem, "--yes")
        granted = self._run("operator", "grant", first.stem)
        wrapping = granted["wrapping"][0]["token"]
        # what somebody pastes by mistake must not come back in a message
        self._fails("agent", "unwrap", "-", given=wrapping + "x")
        self._fails("agent", "unwrap", "-", "--debug", given=wrapping[:-1])
        read = self._run("agent", "unwrap", "-", "--read", given=wrapping)
        self._fails("agent", "unwrap", "-", given=wrapping)
        self._fails("agent", "unwrap", "-", "--debug", given=wrapping)
        # where the command does not know that it was opened, Vault is asked
        elsewhere = {"XDG_STATE_HOME": str(self.directory / "another-users")}
        self._fails("agent", "unwrap", "-", given=wrapping, extra=elsewhere)
        self._fails("agent", "unwrap", "-", "--debug", given=wrapping, extra=elsewhere)
        self._keep("first", wrapping, read["secrets"][0])
        fields = read["secrets"][0]["fields"]
        self.login = {"user": fields["username"], "password": fields["password"]}

        other = self._run("operator", "grant", second)["wrapping"][0]["token"]
        token = self._run("agent", "unwrap", "-", given=other)["token"]
        answer = Vault(Connection(self.world.address), Secret(token)).read("database/creds/app-readonly")
        assert answer
        self._keep("second", other, {"fields": answer["data"]})
        self.secrets["second task token"] = token
        # Vault is away, a task is not there, a token is refused, the stream is missing: all of it is told
        self._fails("operator", "complete", second.stem, "--debug", extra={"VAULT_ADDR": "http://127.0.0.1:1"})
        self._fails("operator", "complete", "no-such-task", "--debug")
        self._fails("agent", "grant", first, "--debug")
        self._fails("operator", "complete", second.stem, "--debug", extra={"JITVAULT_AUDIT_FILE": "/nonexistent"})

        self._run("operator", "grant", delivered)
        self._run("operator", "revoke", delivered.stem, "--reason", "not needed")
        with psycopg.connect(self.world.servers.postgres.dsn("app", **self.login), autocommit=True) as connection:
            connection.execute("SELECT count(*) FROM orders")
            # the first one's wrapping was tried again, which is an interception
            for task, code in ((first, 12), (second, 0)):
                assert self._run("operator", "complete", task.stem, code=code)["confirmed"]
        # until the settle window is over
        time.sleep(2.2)
        for task, code in ((first, 12), (second, 0), (delivered, 0)):
            assert self._run("operator", "status", task.stem, code=code)["state"] == "sealed"
        self._run("operator", "audit", "status")
        self._run("operator", "list")
        files = ("--out", self.directory / "report.json", "--receipt", self.directory / "receipt.json")
        self.cli("auditor", "report", first.stem, *files)
        self.cli("auditor", "report", "-o", "csv", "--out", self.directory / "report.csv")
        self.cli("operator", "status", first.stem, code=12)
        self.cli("operator", "audit", "status")

    def _keep(self, which: str, wrapping: str, secret: dict[str, Any]) -> None:
        self.secrets[f"{which} wrapping token"] = wrapping
        self.secrets[f"{which} database password"] = secret["fields"]["password"]

    def _run(self, who: str, *args: str | Path, code: int = 0, given: str = "") -> dict[str, Any]:
        return dict(self.cli(who, *args, "--json", code=code, given=given).json)

    def _fails(self, who: str, *args: str | Path, given: str = "", extra: dict[str, str] | None = None) -> None:
        """A command that fails; with --debug it may show its traceback."""
        done = run_forked([*map(str, args)], {**self.cli.environment(who), **(extra or {})}, given, 60)
        assert done.returncode != 0, (args, done)
        self.cli.transcript.append((f"failing {args[0]}", Result(done.returncode, done.stdout, done.stderr)))

    def places(self) -> dict[str, bytes]:
        """Everything that is left: files, logs, and what the commands printed."""
        files = [path for path in self.directory.rglob("*") if path.is_file()]
        files += [path for path in self.world.servers.vault.directory.glob("*.log") if path.is_file()]
        files += [self.world.audit_file, self.world.servers.postgres.log_file]
        found = {str(path): path.read_bytes() for path in files}
        for number, (command, result) in enumerate(self.cli.transcript):
            if not command.startswith(SPEAKS):
                found[f"stdout of {number} {command}"] = result.stdout.encode()
            found[f"stderr of {number} {command}"] = result.stderr.encode()
        return found


@pytest.fixture
def story(world: World, variables: dict[str, str], spec: Spec, tmp_path: Path) -> Story:
    ledger = f"sqlite:///{bind(new_file(tmp_path / 'own-ledger.db'), world.installation)}"
    return Story(Cli({**variables, "JITVAULT_LEDGER": ledger}, tmp_path), world, spec, tmp_path)


def test_no_secret_is_left_anywhere(story: Story) -> None:
    places = story.places()
    assert {Path(place).name for place in places} >= {
        "own-ledger.db",
        "report.json",
        "report.csv",
        "receipt.json",
        story.world.audit_file.name,
        story.world.servers.postgres.log_file.name,
    }
    assert len(story.secrets) >= 14
    assert all(len(secret) >= 12 for secret in story.secrets.values())
    assert leaks(story.secrets, places) == []


@pytest.mark.parametrize("before", ["", "a", "ab"])
@pytest.mark.parametrize("after", ["", "z", "zy"])
def test_the_search_finds_what_is_planted(before: str, after: str) -> None:
    secret = 's.Aa1+/=&?é"\\xyz0123456789'
    text = before + secret + after
    planted = {
        "plain": text.encode(),
        "base64": base64.b64encode(text.encode()),
        "base64url": base64.urlsafe_b64encode(text.encode()),
        "url": urllib.parse.quote(text, safe="").encode(),
        "form": urllib.parse.quote_plus(text).encode(),
        "json": json.dumps(text).encode(),
        "hex": text.encode().hex().encode(),
    }
    assert len(leaks({"it": secret}, planted)) == len(planted)
    assert leaks({"it": secret}, {"elsewhere": text[:-8].encode()}) == ([] if len(after) < 8 else ["it"])
