"""What is wrong is refused before anything is written, with a message that says where and what was expected."""

from __future__ import annotations

import functools
import http.client
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from commands import Cli, Quick
from forked import run_forked
from ledgers import bind, new_file

from jitvault.errors import VaultRefused
from jitvault.formats.secret import Secret
from jitvault.sandbox.servers import VaultServer
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault
from jitvault.vault.documents import Documents
from jitvault.vault.tokens import Tokens

GOOD = """\
apiVersion: jitvault.dev/v1
kind: Task
metadata: {id: bad-input}
spec:
  agent: research-agent
  owner: data-owner
  intent: Count.
  criticality: low
  access:
    - template: postgres-readonly
      with: {database: app}
  window: {for: 15m}
"""


Answer = Callable[[BaseHTTPRequestHandler], None]
Serve = Callable[[Answer], str]


class Issued(NamedTuple):
    """A task that is issued: its spec, what `grant` printed, what `status` says of it."""

    file: Path
    granted: str
    status: dict[str, Any]


def dated(text: str) -> str:
    """The text with a time for each NOW+5m or NOW-5m in it, from now on: a spec that was dated when the tests were
    collected is another case by the time it is tried.
    """

    def time_of(found: re.Match[str]) -> str:
        return (datetime.now(UTC) + timedelta(minutes=int(found[1]))).strftime("%Y-%m-%dT%H:%M:%SZ")

    return re.sub(r"NOW([+-]\d+)m", time_of, text)


class Bad(NamedTuple):
    """GOOD with `old` replaced by `new`, and what the message has to say. An `old` of "" means: append; `dated` gives
    NOW+5m a time.
    """

    name: str
    old: str
    new: str
    said: str


WINDOW = "{for: 15m}"
APP = "{database: app}"
ACCESS = GOOD[GOOD.index("    - template") : GOOD.index("  window")]
BAD = [
    Bad("unknown-key", "", "extra: 1\n", ":13: extra: unknown field; expected one of apiVersion, kind, metadata, spec"),
    Bad("unknown-key-inside", "", "  colour: red\n", ":13: spec.colour: unknown field; expected one of agent, owner"),
    Bad(
        "duplicate-key",
        "  owner: ",
        "  agent: other\n  owner: ",
        ":6:3: duplicate key 'agent'; it was first given on line 5",
    ),
    Bad("anchor", "agent: ", "agent: &a ", ":5:10: expected no anchor (&) or alias (*)"),
    Bad("alias", "owner: data-owner", "owner: *a", ":6:10: expected no anchor (&) or alias (*)"),
    Bad("merge-key", "{database: app}", "{<<: {database: app}}", ":11:14: expected no merge key"),
    Bad("python-tag", "Count.", "!!python/object/apply:os.system [id]", ":7:11: expected no tag"),
    Bad("own-tag", "Count.", "!secret x", ":7:11: expected no tag, got '!secret'"),
    Bad("directive", "apiVersion", "%YAML 1.1\n---\napiVersion", "expected no % directive"),
    Bad("two-documents", "", "---\nkind: Task\n", ":13:1: expected one document, found a second"),
    Bad("not-yaml", "Count.", "[Count", "expected valid YAML or JSON"),
    Bad("a-missing-value", "intent: Count.", "intent:", ":7:10: a value is missing"),
    Bad("too-deep", "Count.", "[" * 25 + "]" * 25, "expected at most 20 levels of nesting"),
    Bad(
        "no-as-enum",
        "criticality: low",
        "criticality: no",
        ":8: spec.criticality: expected 'low', 'medium', 'high' or 'critical', got 'no'",
    ),
    Bad("1:30-as-enum", "criticality: low", "criticality: 1:30", "got '1:30'"),
    Bad(
        "octal-as-duration",
        WINDOW,
        "{for: 0123}",
        "spec.window.for: expected whole days, hours, minutes or seconds such as 15m or 1h30m, got '0123'",
    ),
    Bad(
        "number-as-duration", WINDOW, "{for: 900}", "spec.window.for: expected a duration such as 15m or 1h30m as text"
    ),
    Bad("number-as-text", "Count.", "12", ":7: spec.intent: expected text, got 12 (put text in quotes)"),
    Bad("true-as-text", "Count.", "true", ":7: spec.intent: expected text, got true"),
    Bad("yes-as-choice", "", "  deliver: yes\n", ":13: spec.deliver: expected 'requester' or 'agent', got 'yes'"),
    Bad(
        "over-2^53",
        "bad-input}",
        "bad-input, labels: {n: 9007199254740993}}",
        ":3:39: expected a number of at most 2^53",
    ),
    Bad("infinity", "bad-input}", "bad-input, labels: {n: 1e400}}", "expected a number of at most 2^53"),
    Bad("another-version", "jitvault.dev/v1", "jitvault.dev/v2", ":1: apiVersion: expected 'jitvault.dev/v1'"),
    Bad("another-kind", "kind: Task", "kind: AccessTemplate", ":2: kind: expected 'Task'"),
    Bad(
        "hidden-text",
        "Count.",
        '"Count\\u202E.tnuoC"',
        ":7: spec.intent: expected one paragraph that a reader sees as it is, found U+202E",
    ),
    Bad("escape-code", "Count.", '"\\e[31mCount"', "expected text without control characters, found U+001B"),
    Bad("raw-control", "Count.", "Co\x07unt", ":7:13: expected text without control characters, found U+0007"),
    Bad("parent", "", "  parent: a/b\n", ":13: spec.parent: expected 1 to 63 of a-z"),
    Bad("heartbeat", "", "  heartbeat: 30s\n", ":13: spec.heartbeat: unknown field"),
    *(
        Bad(f"id-{n}", "id: bad-input", f"id: {bad}", "metadata.id: expected 1 to 63 of a-z 0-9 . _ -")
        for n, bad in enumerate(
            ["../x", "a/b", "A", ".x", "a..b", "'a b'", "a*", "a+b", "ä", "'" + "x" * 64 + "'", "''"]
        )
    ),
    *(
        Bad(f"value-{n}", APP, f"{{database: {bad}}}", ":11: spec.access[0].with.database: expected 1 to 128 of A-Z")
        for n, bad in enumerate(["../app", "a/b", "'*'", "a+b", "a..b", "'a b'", "'{{x}}'", "a%2fb", "''"])
    ),
    Bad(
        "value-control", APP, '{database: "app\\x01"}', ":11:24: expected text without control characters, found U+0001"
    ),
    Bad("agent-path", "research-agent", "a/../b", ":5: spec.agent: expected the name of a Vault entity"),
    Bad("template-path", "postgres-readonly", "../postgres", ":10: spec.access[0].template: expected 1 to 63 of"),
    Bad("network-path", "", "  network: a/b\n", ":13: spec.network: expected 1 to 32 of a-z 0-9 -"),
    Bad(
        "unknown-template",
        "postgres-readonly",
        "mysql",
        "spec.access[0].template: unknown template mysql; the templates are: pki-service, postgres-readonly",
    ),
    Bad("outside-choices", APP, "{database: payroll}", "spec.access[0].with: "),
    Bad("missing-parameter", APP, "{}", "spec.access[0].with: "),
    Bad("unknown-parameter", APP, "{database: app, schema: x}", "spec.access[0].with: "),
    Bad("window-past", WINDOW, "{until: 'NOW-5m'}", "spec.window.until: expected a time to come"),
    Bad("window-zero", WINDOW, "{for: 0s}", "spec.window.for: expected a duration of more than zero"),
    Bad("window-negative", WINDOW, "{for: -5m}", "spec.window.for: expected whole days"),
    Bad("window-sub-second", WINDOW, "{for: 500ms}", "spec.window.for: expected whole days"),
    Bad("window-decimal", WINDOW, "{for: 1.5h}", "spec.window.for: expected whole days"),
    Bad("window-too-short", WINDOW, "{for: 5s}", "spec.window.for: expected at least"),
    Bad("window-over-max", WINDOW, "{for: 61m}", "spec.window.for: expected a window of at most 1h"),
    Bad("until-over-max", WINDOW, "{until: 'NOW+120m'}", "spec.window.until: expected a window of at most 1h"),
    Bad(
        "window-both",
        WINDOW,
        "{for: 5m, until: 'NOW+5m'}",
        "spec.window: expected exactly one of for and until",
    ),
    Bad("window-neither", WINDOW, "{}", "spec.window: expected exactly one of for and until"),
    Bad(
        "until-no-zone",
        WINDOW,
        "{until: '2030-01-01T00:00:00'}",
        "spec.window.until: expected a date and time with Z or an offset",
    ),
    Bad(
        "until-sub-second",
        WINDOW,
        "{until: '2030-01-01T00:00:00.5Z'}",
        "spec.window.until: expected a date and time with Z or an offset",
    ),
    Bad(
        "until-before-not-before",
        WINDOW,
        "{until: 'NOW+5m', not_before: 'NOW+6m'}",
        "spec.window.until: expected a time after not_before",
    ),
    Bad("no-access", "access:\n" + ACCESS, "access: []\n", ":9: spec.access: expected 1 or more entries, got 0"),
    Bad("access-missing", "access:\n" + ACCESS, "tools: []\n", "spec.access: a value is required"),
    Bad("same-access-twice", ACCESS, ACCESS + ACCESS, ":9: spec.access: expected each access once, entries 0 and 1"),
    Bad(
        "same-access-other-reason",
        ACCESS,
        ACCESS + ACCESS + "      reason: Again.\n",
        "spec.access: expected each access once",
    ),
]


@pytest.fixture
def cli(world: World, variables: dict[str, str], tmp_path: Path) -> Cli:
    ledger = bind(new_file(tmp_path / "ledger.db"), world.installation)
    return Quick({**variables, "JITVAULT_LEDGER": f"sqlite:///{ledger}"}, tmp_path)


@pytest.fixture
def untouched(world: World, tmp_path: Path) -> Callable[[], None]:
    """Call it to see that since the test began nothing was written: no request, no task, nothing in the ledger."""
    documents = Documents(Vault(Connection(world.address), world.admin_token))
    paths = ("tasks/", *(f"requests/{world.entity_ids[name]}/" for name in ("operator", "research-agent")))
    before = {path: documents.names(path) for path in paths}
    new = content(bind(new_file(tmp_path / "new.db"), world.installation))

    def check() -> None:
        assert {path: documents.names(path) for path in paths} == before
        assert all(content(ledger) == new for ledger in tmp_path.glob("ledger.db"))

    return check


# -- specs -------------------------------------------------------------------------------------------


def test_a_wrong_spec_is_refused_where_it_is_wrong(cli: Cli, tmp_path: Path, untouched: Callable[[], None]) -> None:
    file = tmp_path / "bad.yaml"
    for bad in BAD:
        assert bad.old in GOOD, bad.name
        new = dated(bad.new)
        file.write_text(GOOD.replace(bad.old, new) if bad.old else GOOD + new)
        granted = cli("operator", "grant", file, code=8)
        checked = cli(None, "spec", "check", file, code=8, worker=False)
        assert f"error: {file}:" in granted.stderr and bad.said in granted.stderr, bad.name
        assert "Nothing was written" in granted.stderr and granted.stdout == "", bad.name
        assert (checked.stdout, checked.stderr) == (granted.stdout, granted.stderr), bad.name
    untouched()


NO_SPECS = {
    "empty": (b"", "the document is empty; expected a mapping"),
    "a list": (b"- a\n", "expected a mapping (`name: value`) at the top"),
    "not UTF-8": (b"kind: \xff\n", ":1:7: expected UTF-8 text"),
    "UTF-16": (GOOD.encode("utf-16"), ":1:1: expected UTF-8 text"),
    "64 KiB and 1": (GOOD.encode() + b"#" * (64 * 1024 + 1 - len(GOOD)), "expected at most 65536 bytes, got more"),
    "a duplicate in JSON": (b'{"kind": "Task", "kind": "Task"}', ":1:18: duplicate key 'kind'"),
    "NaN in JSON": (b'{"kind": NaN}', "kind: expected 'Task', got 'NaN'"),
    "a bomb": (b"a: &a [x, x]\nb: &b [*a, *a]\n", ":1:4: expected no anchor (&) or alias (*)"),
}


def test_a_file_that_is_no_spec_is_refused(cli: Cli, tmp_path: Path, untouched: Callable[[], None]) -> None:
    file = tmp_path / "bad.json"
    for name, (data, said) in NO_SPECS.items():
        file.write_bytes(data)
        for command in (["grant"], ["submit"], ["spec", "check"]):
            refused = cli("operator", *command, file, code=8)
            assert f"error: {file}:" in refused.stderr and said in refused.stderr, (name, command)
    untouched()


def test_64_kib_are_read(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    file.write_bytes(GOOD.encode() + b"#" * (64 * 1024 - len(GOOD)))
    cli(None, "spec", "check", file)


def test_what_yaml_1_1_would_guess_at_stays_text(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "plain.yaml"
    for text in ("no", "off", "1:30", "0123", "0x1F", "1_000", "~", "2030-01-01", ".inf", "NULL"):
        file.write_text(GOOD.replace("Count.", text).replace("bad-input}", f"bad-input, labels: {{n: {text}}}}}"))
        read = cli(None, "spec", "check", file, "--json").json["spec"]
        assert (read["spec"]["intent"], read["metadata"]["labels"]) == (text, {"n": text})


def test_a_network_that_is_not_provisioned_is_refused(cli: Cli, tmp_path: Path, untouched: Callable[[], None]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(GOOD + "  network: moon\n")
    refused = cli("operator", "grant", file, code=8)
    assert f"{file}: spec.network: network moon is not provisioned" in refused.stderr
    assert "jitvault init --network" in refused.stderr
    untouched()


def test_a_file_that_cannot_be_read_is_refused_by_its_name(
    cli: Cli, tmp_path: Path, untouched: Callable[[], None]
) -> None:
    for name in ("missing.yaml", "", "no\x1b[31m\nerror: fake.yaml"):
        for command in (["grant"], ["submit"], ["spec", "check"]):
            refused = cli("operator", *command, tmp_path / name, code=8)
            said = "there is no file" if name else "cannot be read"
            assert said in refused.stderr and str(tmp_path) in refused.stderr
            assert len(refused.stderr.splitlines()) == 2 and "\x1b" not in refused.stderr
    untouched()


def test_problems_of_one_file_are_told_together(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        GOOD.replace("criticality: low", "criticality: no").replace("agent: research-agent\n", "agent: 5\n")
    )
    told = cli(None, "spec", "check", file, "--json", code=8).error["message"]
    assert "spec.agent: " in told and "spec.criticality: " in told
    # each of them stands below the first, and the hint further left
    first, *others, hint = cli(None, "spec", "check", file, code=8).stderr.splitlines()
    assert first.startswith(f"error: {file}:") and all(line.startswith(f"       {file}:") for line in others) and others
    assert hint.startswith("  Correct the file")


# -- names -------------------------------------------------------------------------------------------

HOSTILE = {
    "traversal": "../../sys/seal",
    "path": "a/b",
    "glob": "*",
    "plus": "+",
    "empty": "",
    "long": "x" * 5000,
    "escape": "a\x1b]0;owned\x07",
    "newline": "a\nerror: all is well",
    "c1": "a\x9b31m",
    "bidi": "a\u202eb",
    "encoded": "a%2f..%2fb",
    "upper": "READ-ORDERS",
}


COMMANDS = ["status", "complete", "revoke", "cancel", "approve --yes", "deny --yes", "grant", "report", "unwrap"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_no_task_can_have_never_reaches_vault(quick: Cli, world: World, command: str) -> None:
    before = world.audit_file.stat().st_size
    who = "approver-1" if command.endswith("--yes") else "operator"
    for kind, name in HOSTILE.items():
        if (command, kind) == ("unwrap", "upper"):
            # it may be a wrapping token
            continue
        refused = quick(who, *command.split(), "--", name, code=None, alone=True)
        assert refused.code in (2, 8, 9) and refused.stdout == "", kind
        assert all(c.isprintable() for c in refused.stderr.replace("\n", "")), f"{kind}: control characters are escaped"
        assert len(refused.stderr) < 400 and len(refused.stderr.splitlines()) == 2, kind
    with world.audit_file.open() as audit:
        audit.seek(before)
        asked = {json.loads(line)["request"]["path"] for line in audit}
    # whose the ledger is may be asked first
    assert asked <= {"jitvault/data/installation"}


@pytest.mark.parametrize("command", [["templates", "show"], [], ["grant", "some-task", "--out"], ["report", "-o"]])
def test_whatever_a_message_repeats_is_escaped(quick: Cli, tmp_path: Path, command: list[str]) -> None:
    for hostile in ("\x1b]0;owned\x07", "\x9b31m", "\u202e", "\r"):
        refused = quick("operator", *command, f"{tmp_path}/no/such/{hostile}", code=None)
        assert refused.code in (2, 9)
        assert all(c.isprintable() for c in refused.stderr.replace("\n", ""))


# -- Vault -------------------------------------------------------------------------------------------


def answer_with(body: bytes, status: int = 200, kind: str = "text/html") -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


def hang(request: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


GARBAGE = {
    "html": answer_with(b"<html><body>Welcome to the hotel's network</body></html>"),
    "html-404": answer_with(b"<html>404</html>", 404),
    "html-403": answer_with(b"<html>Forbidden by the proxy</html>", 403),
    "bad-gateway": answer_with(b"<html>502</html>", 502),
    "broken-json": answer_with(b'{"data": {"id"', kind="application/json"),
    "another-json": answer_with(b'{"hello": "world"}', kind="application/json"),
    "a-json-list": answer_with(b"[1, 2]", kind="application/json"),
    "null-data": answer_with(b'{"data": null}', kind="application/json"),
    "empty": answer_with(b""),
    "no-content": answer_with(b"", 204),
    "hang-up": hang_up,
    "hang": hang,
}


@pytest.fixture
def something_else() -> Iterator[Serve]:
    """Not a Vault: an HTTP server that answers everything in one way; gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def serve(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if self.raw_requestline and self.parse_request():
                    self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    answer(self)
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Vault's answers are waited for 1 s instead of 10."""
    with mock.patch("jitvault.wiring.Connection", functools.partial(Connection, timeout_s=1)):
        yield


@pytest.fixture(scope="module")
def issued(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Issued:
    """A task that is issued and that no failure below may change."""
    home = tmp_path_factory.mktemp("issued")
    file = home / "issued.yaml"
    file.write_text(GOOD.replace("bad-input", "issued"))
    cli = Quick(variables, home)
    granted = cli("operator", "grant", file, "--json")
    return Issued(file, granted.stdout, cli("operator", "status", "issued", "--json").json)


def is_5_everywhere(quick: Cli, issued: Issued, address: str) -> None:
    """With something else at Vault's address every command fails the same way, and the task stays as it was."""
    for command, worker in (
        (["grant", issued.file], True),
        (["complete", "issued"], False),
    ):
        failed = quick("operator", *command, code=5, worker=worker, extra={"VAULT_ADDR": address})
        assert failed.stderr.startswith("error: ") and failed.stdout == ""
    # what the ledger knows is wanted most when something is wrong
    shown = quick("operator", "status", "issued", code=None, alone=True, extra={"VAULT_ADDR": address})
    assert shown.stdout.startswith("Task issued is issued")
    assert quick("operator", "status", "issued", "--json").json == issued.status


def test_vault_down_is_5_and_the_task_unchanged(quick: Cli, issued: Issued) -> None:
    is_5_everywhere(quick, issued, "http://127.0.0.1:9")


def test_vault_sealed_is_5_and_the_task_unchanged(quick: Cli, issued: Issued, sealed: VaultServer) -> None:
    is_5_everywhere(quick, issued, sealed.address)
    assert "sealed" in quick("operator", "list", code=5, worker=False, extra={"VAULT_ADDR": sealed.address}).stderr


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
def test_something_else_at_vaults_address_is_5_and_the_task_unchanged(
    quick: Cli, issued: Issued, something_else: Serve, impatient: None, answer: Answer
) -> None:
    is_5_everywhere(quick, issued, something_else(answer))


def test_a_task_is_unwrapped_and_completed_after_all_these_failures(quick: Cli, issued: Issued) -> None:
    assert quick("agent", "unwrap", "-", "--json", given=issued.granted).json["token"]
    assert quick("operator", "complete", "issued", "--json").json["confirmed"]


@pytest.mark.parametrize("forward", [False, True], ids=["lost on the way there", "lost on the way back"])
def test_a_grant_whose_create_was_lost_is_5_and_the_next_one_finds_out(
    quick: Cli, spec: Callable[..., Path], world: World, something_else: Serve, forward: bool
) -> None:
    file = spec()
    broken = something_else(passing_on(world.address, breaking="/v1/auth/token/create/", forward=forward))
    lost = quick("operator", "grant", file, "--json", code=5, extra={"VAULT_ADDR": broken})
    assert lost.stdout == "" and "Run the same command again" in lost.error["hint"]
    deadline = time.monotonic() + 20
    while (again := quick("operator", "grant", file, "--json", code=None)).code == 5:
        assert time.monotonic() < deadline, again
        time.sleep(0.3)
    assert again.json["wrapping"][0]["token"]
    assert len(live_tokens(world, file.stem)) == 1, "the lost one is dead"


# -- tokens ------------------------------------------------------------------------------------------


def test_a_token_that_vault_does_not_know_or_no_longer_knows_is_10(
    quick: Cli, spec: Callable[..., Path], world: World
) -> None:
    admin = Vault(Connection(world.address), world.admin_token)
    short = admin.write("auth/token/create", {"ttl": "1s", "policies": ["default"]})["auth"]["client_token"]
    file, deadline = spec(), time.monotonic() + 10
    while is_live(world, short):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for token in ("s.nobodyhasthistoken00000", short):
        refused = quick(None, "grant", file, code=10, extra={"VAULT_TOKEN": token})
        assert "permission denied" in refused.stderr or "invalid token" in refused.stderr
        assert "whether it expired" in refused.stderr and token not in refused.stderr and refused.stdout == ""


def test_a_worker_token_that_vault_does_not_know_is_10_and_said_to_be_the_workers(
    quick: Cli, spec: Callable[..., Path]
) -> None:
    wrong = {"JITVAULT_WORKER_TOKEN": "s.nobodyhasthistoken00000"}
    file = spec()
    quick("operator", "grant", file)
    refused = quick("operator", "complete", file.stem, code=10, extra=wrong)
    assert "JITVAULT_WORKER_TOKEN" in refused.stderr and wrong["JITVAULT_WORKER_TOKEN"] not in refused.stderr
    quick("operator", "complete", file.stem)


def test_a_root_token_is_nobody_and_no_token_is_a_usage_error(quick: Cli, spec: Callable[..., Path]) -> None:
    assert "belongs to no entity" in quick("admin", "grant", spec(), code=2).stderr
    assert "VAULT_TOKEN is not set" in quick(None, "grant", spec(), code=2).stderr


# -- the ledger --------------------------------------------------------------------------------------


def test_a_ledger_that_cannot_be_used_is_11_and_nothing_is_issued(
    quick: Cli, spec: Callable[..., Path], tmp_path: Path, issues_nothing: Callable[[], None]
) -> None:
    (tmp_path / "garbage.db").write_text("this is no database, and longer than a header of one")
    with closing(sqlite3.connect(tmp_path / "old.db")) as old, old:
        old.execute("CREATE TABLE alembic_version (version_num TEXT)")
        old.execute("INSERT INTO alembic_version VALUES ('0000')")
    before = {name: content(tmp_path / name) for name in ("garbage.db", "old.db")}
    wrong = {
        "sqlite:////proc/nowhere/ledger.db": "ledger /proc/nowhere/ledger.db cannot be created",
        f"sqlite:///{tmp_path}": "cannot be used",
        f"sqlite:///{tmp_path / 'garbage.db'}": "file is not a database",
        f"sqlite:///{tmp_path / 'old.db'}": "schema version 0000",
        "sqlite://": "in memory would be lost when the command exits",
        "postgresql://jitvault:hunter2@127.0.0.1:9/ledger": "cannot be used",
        "mysql://jitvault:hunter2@127.0.0.1:9/ledger": "a SQLite file or a PostgreSQL database",
        "banana": "is not a path or a database URL",
    }
    # what is signed needs no ledger, and the worker that would issue it has one that it cannot use
    quick("operator", "submit", spec(), "--wait", "1s", alone=True, code=13)
    for url, said in wrong.items():
        refused = quick("operator", "worker", "--once", code=11, extra={"JITVAULT_LEDGER": url})
        assert said in refused.stderr and refused.stdout == "" and "hunter2" not in refused.stderr, url
    assert {name: content(tmp_path / name) for name in before} == before
    issues_nothing()


def content(path: Path) -> object:
    """All there is in a database, or the bytes of what is none."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return list(database.iterdump())
    except sqlite3.DatabaseError:
        return path.read_bytes()


# -- the audit stream --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audit_file", "said"),
    [
        ("missing.log", "cannot be read: No such file"),
        (".", "there is no audit source"),
        ("other vault", "does not show the request that was just sent to Vault"),
    ],
)
def test_without_a_trusted_audit_stream_nothing_is_issued(
    cli: Cli,
    spec: Callable[..., Path],
    tmp_path: Path,
    sealed: VaultServer,
    issues_nothing: Callable[[], None],
    audit_file: str,
    said: str,
) -> None:
    path = {"other vault": str(sealed.audit_file)}.get(audit_file, str(tmp_path / audit_file))
    refused = cli("operator", "grant", spec(), code=7, extra={"JITVAULT_AUDIT_FILE": path})
    assert said in refused.stderr and "audit" in refused.stderr.lower() and refused.stdout == ""
    issues_nothing()


def test_a_worker_that_knows_no_audit_file_does_not_start(cli: Cli) -> None:
    refused = cli(None, "worker", "--once", code=2, extra={"JITVAULT_AUDIT_FILE": ""})
    assert "JITVAULT_AUDIT_FILE is not set" in refused.stderr


# -- what the tests above stand on -------------------------------------------------------------------


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    """Another OpenBao, which was used and then sealed."""
    with VaultServer(tmp_path_factory.mktemp("sealed")) as server:
        vault = Vault(Connection(server.address), Secret(server.root_token))
        vault.read("auth/token/lookup-self")
        vault.write("sys/seal")
        yield server


@pytest.fixture
def issues_nothing(world: World) -> Callable[[], None]:
    """Call it to see that since the test began no task token was made."""
    before = leases(world)

    def check() -> None:
        assert leases(world) <= before

    return check


def leases(world: World) -> set[str]:
    admin = Vault(Connection(world.address), world.admin_token)
    return set(admin.list("sys/leases/lookup/auth/token/create/jitvault-15m"))


def is_live(world: World, token: str) -> bool:
    try:
        Tokens(Vault(Connection(world.address), Secret(token))).lookup_self()
    except VaultRefused:
        return False
    return True


def live_tokens(world: World, task: str) -> list[str]:
    """The accessors of all tokens in Vault that were made for `task`."""
    admin = Vault(Connection(world.address), world.admin_token)
    tokens = Tokens(admin)
    found = [tokens.lookup_accessor(accessor) for accessor in admin.list("auth/token/accessors")]
    return [facts.accessor for facts in found if facts and facts.meta.get("jitvault_task") == task]


def passing_on(address: str, *, breaking: str, forward: bool) -> Answer:
    """Pass every request on to `address`, but answer those to `breaking` with garbage, done or not."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        broken = request.path.startswith(breaking)
        status, body = 200, b"<html>"
        if forward or not broken:
            headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
            with closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)) as there:
                there.request(request.command, request.path, request.body, headers)  # type: ignore[attr-defined]
                reply = there.getresponse()
                if broken:
                    reply.read()
                else:
                    status, body = reply.status, reply.read()
        answer_with(body, status, "application/json")(request)

    return answer


@pytest.mark.parametrize("prefix", ["s.", "hvs.CAES-_"])
@pytest.mark.parametrize("arguments", [["status"], ["unwrap"], ["list"]])
def test_a_token_in_the_wrong_place_is_not_shown(quick: Cli, prefix: str, arguments: list[str]) -> None:
    """What was typed is quoted where it is wrong; one that looks like a token is not."""
    token = prefix + secrets.token_hex(48)[: 24 if prefix == "s." else 80]
    # no token ends so, and no task is called so
    for said in (quick("operator", *arguments, token + "!", code=None), quick("operator", token, code=2)):
        assert said.code != 0
        assert token[:20] not in said.stdout + said.stderr


@pytest.mark.parametrize("command", ["status", "unwrap"])
def test_a_traceback_shows_no_token_that_was_typed(quick: Cli, command: str) -> None:
    token = "hvs." + secrets.token_hex(40)
    done = run_forked([command, token + "!", "--debug"], quick.environment("operator"), "", 60)
    assert done.returncode != 0 and "Traceback" in done.stderr
    assert token[:20] not in done.stdout + done.stderr
