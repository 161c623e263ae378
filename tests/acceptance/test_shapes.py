"""The shapes of what commands print: exactly the documented keys and types, results alone on stdout."""

from __future__ import annotations

import csv
import io
import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import SPEC, Cli, Quick, Result
from ledgers import bind, new_file

from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault
from jitvault.vault.documents import Documents

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HEX_32 = re.compile(r"[0-9a-f]{32}")
ENTITY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
TOKEN = re.compile(r"(hv)?s\.[\w-]{20,}")
LEASE = re.compile(r"database/creds/app-readonly/\w{20,}")
NOTHING = type(None)

MISSING = [{"group": str, "count": int}]
DECIDED = {"task_id": str, "state": str, "digest": DIGEST, "missing": MISSING, "next": str}
COUNTED = {
    **{"task_id": str, "decision": str, "digest": DIGEST, "expires_at": TIME},
    **{"state": str, "missing": MISSING},
}
CONNECTION = {"host": str, "port": int, "tls": str, "database": str}
WRAPPING = {"token": TOKEN, "ttl": int, "creation_path": str, "template": str, "reads": [str], "sends": {}}
TTL = {"requested_ttl_s": int, "ttl_s": int, "step_s": int}
GRANTED = {
    **{"task_id": str, "grant_id": HEX_32, "state": str, "digest": DIGEST, "expires_at": TIME, "ends_at": TIME},
    "ttl": TTL,
    **{"target_asked": bool, "wrapping": [WRAPPING]},
}
EXTENDED = {
    **{"task_id": str, "grant_id": HEX_32, "state": str, "ends_at": TIME, "replaces": bool, "missing": MISSING},
    "extension": {
        **{"id": re.compile("[0-9a-f]{12}"), "state": str, "digest": DIGEST},
        **{"by": {"entity": ENTITY, "name": str}, "reason": str},
        **{"since": TIME, "seconds": int, "until": TIME, "window_s": int},
    },
    "made_at": NOTHING,
    "wrapping": [WRAPPING],
}
CHECKS = [{"n": int, "ok": bool, "evidence": dict}]
ENDED = {
    **{"task_id": str, "state": str, "end_reason": str, "confirmed": bool, "forced": NOTHING},
    **{"reopened": int, "unproven_because": NOTHING, "open_besides": NOTHING, "not_proven": [str]},
    **{"dead_ms": int, "confirmed_ms": int},
    "target_asked": (bool, NOTHING),
    "leases": [{"lease_id": LEASE, "template": str, "verdict": str, "error": NOTHING, "checks": CHECKS}],
    "token": {"verdict": str, "checks": CHECKS},
    "earlier_tokens": [{"verdict": str, "checks": CHECKS}],
}
SUMMARY = {
    **{"task_id": str, "state": str, "end_reason": (str, NOTHING), "digest": DIGEST},
    **{"requester": ENTITY, "agent": ENTITY, "parent": NOTHING, "created_at": TIME},
    **{"due_at": (str, NOTHING), "ends_at": (str, NOTHING)},
}
LISTED = {
    **SUMMARY,
    **{"requester_name": str, "agent_name": str, "owner": ENTITY, "owner_name": str},
    **{"risk": str, "templates": [str], "missing": MISSING, "findings": int},
    **{"deliver": str, "target_asked": bool, "more_time": NOTHING, "frozen": NOTHING},
}
STATUS = {
    **SUMMARY,
    **{"delegation": [str], "children": [str]},
    "revision": {"number": int, "digest": DIGEST, "content": dict},
    "decision": dict,
    "decisions": [
        {"entity": ENTITY, "name": str, "decision": str, "digest": DIGEST, "reason": str, "counted_at": TIME}
    ],
    "refused": [{"entity": ENTITY, "name": str, "why": str, "withdrawn": bool}],
    "missing": MISSING,
    "ended": {"by": ENTITY, "name": str, "at": TIME, "reason": str, "note": str},
    "refused_grant": NOTHING,
    "grant": {
        **{"grant_id": HEX_32, "attempt": int, "role": str, **TTL, "wrap_ttl_s": int},
        **{"issued_at": TIME, "expires_at": TIME, "verdict": str},
        **{"expires_unrenewed_at": (str, NOTHING), "renewed_at": (str, NOTHING)},
    },
    "reads": {"done": int, "allowed": int},
    "leases": [
        {
            **{"lease_id": LEASE, "template": str, "issued_at": TIME, "dead_at": TIME},
            **{"verdict": str, "checks": CHECKS},
        }
    ],
    "extension": {
        **{"state": str, "request": HEX_32, "digest": DIGEST, "content": dict, "replaces": bool, "decision": dict},
        **{"approved_by": [dict], "missing": MISSING, "open_to": [str], "refused": [dict], "error": NOTHING},
    },
    "extensions": [dict],
    "proof": ENDED,
    "uses": [{"act": str, "path": str, "count": int, "addresses": [str], "last_at": TIME}],
    "unwrap_until": NOTHING,
    "frozen": NOTHING,
    "freeze": NOTHING,
    "published": NOTHING,
    "findings": [{"rule": str, "message": str, "at": TIME, "line": str, "request_id": str}],
    "unread": [{"kind": str, "by": str, "at": TIME, "reason": (str, NOTHING), "note": str}],
    "timeline": [{"seq": int, "at": TIME, "event": str, "body": dict}],
}
ROW = {
    **{"task_id": str, "revision": int, "digest": DIGEST, "state": str, "end_reason": str},
    **{"requester": str, "agent": str, "owner": str, "parent": NOTHING, "delegation": [str]},
    **{"approved_by": [str], "withdrawn_by": [str], "ended_by": str, "end_note": NOTHING},
    **{"forced_by": NOTHING, "forced_reason": NOTHING, "template": str, "path": str},
    **{"lease_id": LEASE, "issued_at": TIME, "dead_at": TIME, "requested_ttl_s": int, "ttl_s": int},
    **{"ends_at": TIME, "extended_s": int},
    **{"verdict": str, "target_asked": bool, "checks": [{"n": int, "ok": bool}]},
    **{"token_verdict": str, "findings": [str], "not_proven": [str]},
    **{"intent": str, "requested_at": TIME, "over_at": TIME},
    **{"denied_by": NOTHING, "denied_reason": NOTHING, "extension_approved_by": [str]},
    **{"approved_at": [TIME]},
}
TEMPLATE = {"apiVersion": str, "kind": str, "metadata": dict, "spec": dict}
STEPS = [{"n": int, "name": str, "ok": bool, "evidence": str, "mend": str, "remark": bool}]
CHECKED = {
    **{"template": str, "passed": bool},
    "paths": [
        {"path": str, "with": dict, "passed": bool, "ms": int, "steps": STEPS, "left_behind": [str], "clear": [str]},
    ],
}

CHECK_UP = {
    **{"at": TIME, "vault": str, "can": {"grant": bool, "revoke": bool, "prove": bool}},
    "counts": {"ok": int, "warn": int, "fail": int, "skipped": int},
    "checks": [{"area": str, "name": str, "status": str, "seen": str, "mend": str, "needed_to": [str]}],
}


def check(value: Any, shape: Any, at: str = "$") -> None:
    """Fail unless `value` has exactly the keys and types of `shape`; a pattern asks for matching text."""
    match shape:
        case dict():
            assert isinstance(value, dict) and sorted(value) == sorted(shape), f"{at}: {value!r:.300}"
            for key, inner in shape.items():
                check(value[key], inner, f"{at}.{key}")
        case [inner]:
            assert isinstance(value, list), f"{at}: {value!r:.300}"
            for n, item in enumerate(value):
                check(item, inner, f"{at}[{n}]")
        case re.Pattern():
            assert isinstance(value, str) and shape.fullmatch(value), f"{at}: {value!r:.300}"
        case _:
            kinds = shape if isinstance(shape, tuple) else (shape,)
            assert type(value) in kinds, f"{at}: {value!r:.300}"


@dataclass
class Story:
    """What the commands of one medium-risk task printed, by name; `human` is the same without --json at 80 columns."""

    cli: Cli
    task: str
    out: Path
    json: dict[str, Result] = field(default_factory=dict)
    human: dict[str, Result] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(world: World, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    home = tmp_path_factory.mktemp("shapes")
    # as long as an id may be, so that tables have to cope with it
    task = "a-long-name-".ljust(63, "x")
    own = {**variables, "JITVAULT_LEDGER": f"sqlite:///{bind(new_file(home / 'ledger.db'), world.installation)}"}
    it, process = Story(Quick(own, home), task, home / "wrapped.json"), Cli(own, home)

    def run(name: str, who: str | None, *args: str | Path, code: int = 0, **more: Any) -> None:
        # a process of its own where what is printed matters most
        cli = process if name in ("approve", "grant", "unwrap --read", "complete") else it.cli
        it.json[name] = cli(who, *args, "--json", code=code, **more)

    def show(name: str, who: str | None, *args: str | Path) -> None:
        it.human[name] = process(who, *args, extra={"COLUMNS": "80"})

    def file(name: str, criticality: str) -> Path:
        path = home / f"{name}.yaml"
        given = {"id": name, "intent": "Count.", "template": "postgres-readonly", "window": "15m", "more": ""}
        path.write_text(SPEC.format(criticality=criticality, **given))
        return path

    spec, second = file(task, "medium"), file("shapes-2", "low")
    run("spec check", None, "spec", "check", spec)
    run("submit", "operator", "submit", spec)
    run("approve", "approver-1", "approve", task, "--yes", "--reason", "It is Monday.")
    run("grant", "operator", "grant", task)
    run("grant again", "operator", "grant", task)
    run("published", "agent", "status", task, worker=False)
    run("unwrap --read", "agent", "unwrap", "-", "--read", given=it.json["grant"].stdout)
    run("extend", "operator", "extend", task, "--for", "15m", "--reason", "It is slow.", code=4)
    run("complete", "operator", "complete", task)
    show("complete", "operator", "complete", task)
    run("status", "auditor", "status", task)
    show("status", "auditor", "status", task)
    run("report", "auditor", "report", task)
    run("grant --out", "operator", "grant", second, "--out", it.out)
    run("unwrap", "agent", "unwrap", it.out)
    run("revoke", "operator", "revoke", "shapes-2", "--reason", "Enough.")
    run("submit high", "operator", "submit", file("shapes-3", "high"))
    run("deny", "approver-2", "deny", "shapes-3", "--yes")
    run("submit low", "operator", "submit", file("shapes-5", "low"))
    run("cancel", "operator", "cancel", "shapes-5")
    run("list", "auditor", "list")
    show("list", "auditor", "list")
    run("published list", "auditor", "list", worker=False)
    run("templates list", None, "templates", "list")
    run("templates show", None, "templates", "show", "postgres-readonly")
    run("templates list by operator", "operator", "templates", "list")
    show("templates list", "operator", "templates", "list")
    run("templates show by operator", "operator", "templates", "show", "postgres-readonly")
    run("templates check", "admin", "templates", "check", "postgres-readonly")
    show("templates check", "admin", "templates", "check", "postgres-readonly")
    run("init --plan", "admin", "init", "--plan")
    run("doctor", "operator", "doctor")
    show("doctor", "operator", "doctor")
    show("grant", "operator", "grant", file("shapes-4", "low"))
    yield it


@pytest.mark.parametrize(
    ("command", "shape"),
    [
        ("submit", DECIDED),
        ("cancel", DECIDED),
        ("approve", COUNTED),
        ("deny", COUNTED),
        ("grant", GRANTED),
        ("grant again", {**GRANTED, "wrapping": [dict]}),
        ("grant --out", {**GRANTED, "wrapping": [{k: v for k, v in WRAPPING.items() if k != "token"}]}),
        (
            "unwrap",
            {
                **{"task_id": str, "token": TOKEN, "expires_at": TIME, "ends_at": TIME, "reads": [str], "sends": {}},
                "uses": [{"template": str, "with": {"database": str}, "path": str, "connection": CONNECTION}],
                "limits": {"reads": int, "denied": int},
                "heartbeat_s": NOTHING,
            },
        ),
        ("extend", EXTENDED),
        ("complete", ENDED),
        ("revoke", ENDED),
        ("status", STATUS),
        ("list", {"tasks": [LISTED], "published": bool}),
        ("report", {"leases": [ROW]}),
        ("templates list", {"templates": [{**TEMPLATE, "check": NOTHING}]}),
        ("templates list by operator", {"templates": [{**TEMPLATE, "check": str}]}),
        ("templates show", {"template": TEMPLATE, "paths": [str], "check": NOTHING, "remarks": [str]}),
        ("templates show by operator", {"template": TEMPLATE, "paths": [str], "check": str, "remarks": [str]}),
        ("templates check", CHECKED),
        ("doctor", CHECK_UP),
        ("spec check", {"ok": bool, "spec": TEMPLATE, "reads": [str], "sends": {}}),
    ],
)
def test_the_json_of_a_command_has_its_documented_shape(story: Story, command: str, shape: Any) -> None:
    check(story.json[command].json, shape)


def test_a_template_shows_its_check_to_whoever_may_see_it(story: Story) -> None:
    assert {one["check"] for one in story.json["templates list by operator"].json["templates"]} == {"passed"}
    assert story.json["templates show by operator"].json["check"] == "passed"
    # the width of 80 columns is a terminal's: `test_other_lists_have_one_line_a_row_in_a_pipe` has both
    assert len(story.human["templates list"].stdout.splitlines()) == 4
    shown = story.human["templates check"].stdout.splitlines()
    assert re.fullmatch(r"database/creds/app-readonly passed in \d+ ms", shown[0])
    assert shown[1:] == ["  " + " ".join(f"{n}✓" for n in range(1, 21))]


def test_a_check_up_says_the_same_to_people_and_fits_80_columns(story: Story) -> None:
    lines = story.human["doctor"].stdout.splitlines()
    assert {"vault", "identity", "provisioned", "ledger", "audit", "probes", "tasks"} <= set(lines)
    assert lines[-1] == "Can it grant: yes, revoke: yes, prove: yes"
    # an id is never folded, and a digest is longer than that
    assert [line for line in lines if len(line) > 80 and "sha256:" not in line and "/" not in line] == []


def test_unwrap_read_gives_each_secret_with_its_lease(story: Story) -> None:
    use = {"template": str, "with": {"database": str}, "path": str, "connection": CONNECTION}
    secret = {**use, "lease_id": LEASE, "expires_at": TIME, "fields": {"username": str, "password": str}}
    shape = {"task_id": str, "expires_at": TIME, "ends_at": TIME, "heartbeat_s": NOTHING, "secrets": [secret]}
    check(story.json["unwrap --read"].json, shape)
    assert len(story.json["unwrap --read"].json["secrets"]) == 1


def test_init_plan_lists_steps_and_what_is_missing_and_changes_nothing(story: Story) -> None:
    plan = story.json["init --plan"].json
    by = {"name": str, "entity": NOTHING, "entity_id": NOTHING, "policies": [str], "source": str}
    check(plan, {"applied": bool, "by": by, "steps": [dict], "missing": [str], "in_use": [str]})
    check(plan["steps"], [{"action": str, "kind": str, "name": str, "detail": [str]}])
    assert plan["applied"] is False and {step["action"] for step in plan["steps"]} == {"keep"}


def test_the_lists_in_these_shapes_are_not_empty(story: Story) -> None:
    """Else the shape of what is in them was not looked at."""
    said = {name: result.json for name, result in story.json.items()}
    assert said["submit"]["missing"] == [{"group": "jitvault-approvers", "count": 1}]
    assert said["grant"]["wrapping"] and said["complete"]["leases"] and said["complete"]["token"]["checks"]
    assert re.search(r"decisions +approver-1: approve \(20", story.human["status"].stdout)
    assert said["status"]["decisions"] and said["status"]["leases"] and len(said["status"]["timeline"]) > 5
    assert said["templates check"]["paths"] and said["templates check"]["paths"][0]["steps"]
    assert said["list"]["tasks"] and said["report"]["leases"] and said["templates list"]["templates"]


def test_whoever_has_no_ledger_sees_what_the_worker_published(story: Story) -> None:
    published = {
        **{"task_id": str, "state": str, "end_reason": NOTHING, "revision": int, "digest": DIGEST},
        **{
            "requester": ENTITY,
            "agent": ENTITY,
            "parent": NOTHING,
            "delegation": [str],
            "missing": MISSING,
            "why_denied": NOTHING,
            "refused_grant": NOTHING,
        },
        **{"refused": [dict], "decisions": [{"entity": ENTITY, "decision": str, "digest": DIGEST}]},
        **{"grant_id": HEX_32, "expires_at": TIME, "ends_at": TIME, "ttl": TTL, "proof": NOTHING, "findings": [str]},
        "unwrap_until": TIME,
        "freeze": NOTHING,
        "unread": [dict],
        "published": {
            **{"at": TIME, "age_s": int, "vouched_by": str, "vouched": str, "problem": NOTHING, "unknown": [str]},
        },
    }
    found = story.json["published"].json
    check({key: found[key] for key in published}, published)
    rows = [row for row in story.json["published list"].json["tasks"] if row["task_id"] == story.task]
    listed = {**LISTED, "published_at": TIME, "age_s": int}
    check(rows, [{k: v for k, v in listed.items() if k not in ("created_at", "due_at")}])
    assert len(rows) == 1


def test_report_has_one_row_a_lease_and_one_for_a_task_that_read_nothing(story: Story) -> None:
    rows = story.cli("auditor", "report").json["leases"]
    assert [row["lease_id"] is not None for row in rows if row["task_id"] == story.task] == [True]
    assert [row["lease_id"] for row in rows if row["task_id"] == "shapes-2"] == [None]


def test_report_csv_has_the_same_rows_under_the_same_names(story: Story) -> None:
    (row,) = csv.DictReader(io.StringIO(story.cli("auditor", "report", story.task, "-o", "csv").stdout))
    (same,) = story.json["report"].json["leases"]
    assert list(row) == list(same) == list(ROW)
    assert row["approved_by"] == "approver-1" and row["checks"] == "1+ 2+ 3+ 4+ 5+ 6+"
    for name in ("task_id", "digest", "lease_id", "verdict", "issued_at"):
        assert row[name] == same[name]


def test_results_are_on_stdout_and_everything_else_on_stderr(story: Story) -> None:
    for name, result in story.json.items():
        json.loads(result.stdout)  # nothing but the result
        if name not in ("approve", "deny", "grant again", "grant --out", "extend"):
            assert result.stderr == "", name
    assert "Digest: sha256:" in story.json["approve"].stderr
    assert "The wrapping token was printed before" in story.json["grant again"].stderr


def test_the_wrapping_token_is_printed_once_and_only_by_grant(story: Story) -> None:
    token = story.json["grant"].json["wrapping"][0]["token"]
    assert story.json["grant"].stdout.count(token) == 1
    assert story.json["grant again"].json["wrapping"] == []
    others = [result for name, result in story.json.items() if name != "grant"] + list(story.human.values())
    assert len(others) > 15
    assert not any(token in result.stdout + result.stderr for result in others)


def test_out_writes_the_token_to_a_0600_file_and_stdout_has_none(story: Story) -> None:
    written = json.loads(story.out.read_text())
    check(written, GRANTED)
    assert stat.S_IMODE(story.out.stat().st_mode) == 0o600
    token = written["wrapping"][0]["token"]
    assert token not in story.json["grant --out"].stdout + story.json["grant --out"].stderr
    assert story.json["unwrap"].json["task_id"] == "shapes-2", "the file is what unwrap takes"


def test_out_never_writes_over_a_file_and_then_nothing_is_issued(story: Story) -> None:
    spec = story.out.with_name("shapes-4.yaml")
    before = story.out.read_text()
    refused = story.cli("operator", "grant", spec, "--out", story.out, code=2)
    assert str(story.out) in refused.stderr
    assert story.out.read_text() == before


def test_human_output_at_80_columns_cuts_no_id(story: Story) -> None:
    """An id that is shortened cannot be copied; one that is too long for its column goes on in the next line."""
    ended = story.json["complete"].json
    lease = ended["leases"][0]["lease_id"]
    for name in ("status", "complete", "list"):
        shown = story.human[name].stdout
        assert "…" not in shown and "..." not in shown, name
        assert story.task in _unfolded(shown), name
    for name in ("status", "complete"):
        assert lease in _unfolded(story.human[name].stdout), name
    (digest,) = re.findall(r"^ +(sha256:\S+)$", story.human["status"].stdout, re.MULTILINE)
    assert digest == story.json["grant"].json["digest"]
    # of what is written into a line, nothing is left to a terminal to break
    events = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:")
    said = story.human["status"].stdout.splitlines()
    facts = [line for line in said if not events.match(line) and not line.startswith("Task ")]
    assert max(map(len, facts)) <= 80, "an event and a sentence have one line in a pipe"
    granted = story.human["grant"].stdout
    assert re.search(r"^  token    (hv)?s\.[\w-]{20,}$", granted, re.MULTILINE), "to be copied"
    assert "           jitvault unwrap -\n" in granted


def _unfolded(shown: str) -> str:
    """The words of each column of a table, and all text, joined as a reader joins folded lines."""
    lines = shown.splitlines()
    joined = ""
    for line in lines:
        joined += line[: min((m.start() for m in re.finditer(r"\s{2,}", line.strip())), default=80)].strip()
    return joined + re.sub(r"\s", "", shown)


def test_piped_output_has_no_escape_codes(story: Story) -> None:
    for said in (story.json, story.human):
        for name, result in said.items():
            assert "\x1b" not in result.stdout + result.stderr, name


def test_documents_in_vault_keep_their_paths_and_keys(story: Story, world: World) -> None:
    """An older worker, a restored ledger and `bao kv get` find them by these."""
    stored = yaml.safe_load((Path(__file__).parent.parent / "data" / "stored-words.yaml").read_text())
    documents = Documents(Vault(Connection(world.address), world.admin_token))
    found = _paths_below(documents, "")
    by_the_story = set(stored["vault paths"]) - {
        "inbox/ENTITY/NAME",
        "decisions/ENTITY/NAME/extend/NAME",
        "decisions/ENTITY/NAME/withdraw",
        "freezes/ENTITY/NAME",
    }
    # other tests leave documents in this Vault, too
    assert by_the_story <= {_general(path) for path in found} <= set(stored["vault paths"])
    published = documents.get(f"tasks/{story.task}")
    assert published is not None and sorted(published) == stored["published task"]
    signed = [path for path in found if path.endswith(f"/{story.task}/submit")]
    assert [sorted(documents.get(path) or {}) for path in signed] == [stored["signed document"]]


def _paths_below(documents: Documents, folder: str) -> list[str]:
    """Return the paths of all documents in `folder` and its folders."""
    found = []
    for name in documents.names(folder):
        found += _paths_below(documents, folder + name) if name.endswith("/") else [folder + name]
    return found


def _general(path: str) -> str:
    """Return the path with its entity and its name replaced by words."""
    folder, *rest = path.split("/")
    rest = ["ENTITY" if ENTITY.fullmatch(part) else part for part in rest]
    known = {"submit", "grant", "end", "extend", "withdraw"}
    return "/".join([folder, *("ENTITY" if part == "ENTITY" else part if part in known else "NAME" for part in rest)])
