"""The audit files have to have the lines that a receipt names, and nothing that it leaves out."""

from __future__ import annotations

import bz2
import hashlib
import json
import lzma
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from forger import LINES, Forger, content, texts
from vaults_form import VaultsForm

from jitvault.audit.classify import observe
from jitvault.audit.entry import Entry
from jitvault.audit.observation import Place
from jitvault.errors import InvalidInput, UsageError
from jitvault.verification.log_lines import WHOLE_LINE, files_in, lines_of

Line = dict[str, Any]
Told = dict[str, Any]


def name_of(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def shows(line: bytes) -> dict[str, Any]:
    """The evidence that a line is."""
    entry = msgspec.json.decode(line, type=Entry)
    seen = observe(entry, line="", place=Place("files", 0, 0), namespace="")
    return {
        **{"kind": "line", "sha256": name_of(line), "source": "audit.log", "request_id": entry.request.id},
        **{"operation": seen.kind if seen else "", "path": entry.request.path, "at": entry.time.isoformat()},
    }


def named() -> dict[str, bytes]:
    """The lines that the receipt names, by their names."""
    text = json.dumps(content())
    return {name_of(line): line for line in LINES if name_of(line) in text}


def of(lease_or_token: str, n: int, told: Told | None = None) -> bytes:
    """The recorded line of a check: of the `token`, or of the first `lease`."""
    proof = (told or content())["proof"]
    owner = proof["token"] if lease_or_token == "token" else proof["leases"][0]
    evidence = next(check["evidence"] for check in owner["checks"] if check["n"] == n)
    return named()[evidence["sha256"]]


def test_all_lines_are_there_in_whichever_files(forger: Forger, tmp_path: Path) -> None:
    assert len(named()) == 12
    found = forger.verify(forger.receipt(), forger.log()).outcome
    assert found.holds, found.problems
    assert any("12 of 12 that the receipt names" in one.seen for one in found.checked)
    half = len(LINES) // 2
    logs = [forger.log(LINES[half:]), forger.log(LINES[:half], "audit.log.1.gz")]
    assert forger.verify(forger.receipt(), *logs).outcome.holds
    (tmp_path / "audit.log.2.bz2").write_bytes(bz2.compress(b"".join(LINES[:half])))
    (tmp_path / "audit.log.3.xz").write_bytes(lzma.compress(b"".join(LINES[half:])))
    assert forger.verify(forger.receipt(), tmp_path / "audit.log.2.bz2", tmp_path / "audit.log.3.xz").outcome.holds
    packed = tmp_path / "packed"
    packed.mkdir()
    for one in ("audit.log.1.gz", "audit.log.2.bz2", "audit.log.3.xz"):
        # the script reads a directory
        (packed / one).write_bytes((tmp_path / one).read_bytes())
    assert forger.script(forger.receipt(), packed) == 0
    (packed / "audit.log.3.xz").unlink()
    assert forger.script(forger.receipt(), packed) == 1
    with pytest.raises(FileNotFoundError):
        forger.script(forger.receipt(), packed / "misspelt.log")
    (packed / "audit.log.4.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(OSError, match="unzstd"):
        forger.script(forger.receipt(), packed)
    # one line in two files counts once, and a last line may have lost its line feed
    twice = [forger.log(), forger.log(LINES, "copy.log")]
    assert forger.verify(forger.receipt(), *twice).outcome.holds
    last = [line for line in LINES if line != of("lease", 3)] + [of("lease", 3).rstrip(b"\n")]
    assert forger.verify(forger.receipt(), forger.log(last)).outcome.holds


@pytest.mark.parametrize("name", sorted(named()))
def test_each_line_that_is_missing_is_named(forger: Forger, name: str) -> None:
    log = forger.log(line for line in LINES if name_of(line) != name)
    problems = texts(forger.verify(forger.receipt(), log).outcome)
    assert any(f"line {name[:16]} (" in problem and "is in none of the files" in problem for problem in problems)


def test_a_line_that_was_changed_is_missing(forger: Forger) -> None:
    log = forger.log(line.replace(b'"127.0.0.1"', b'"127.0.0.2"') for line in LINES)
    assert len([p for p in texts(forger.verify(forger.receipt(), log).outcome) if "in none of the files" in p]) == 12


def renamed(old: bytes, new: bytes) -> tuple[Callable[[Told], None], list[bytes]]:
    """A forger's receipt that names another line, and the log with both."""

    def edit(told: Told) -> None:
        proof = told["proof"]
        for owner in (proof["token"], *proof["earlier_tokens"], *proof["leases"]):
            for check in owner["checks"]:
                if check["evidence"].get("sha256") == name_of(old):
                    check["evidence"] = shows(new)

    return edit, [*LINES, new]


def edited(line: bytes, edit: Callable[[Line], object]) -> bytes:
    entry = json.loads(line)
    edit(entry)
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def other_accessor(entry: Line) -> None:
    entry["request"]["data"]["accessor"] = "hmac-sha256:" + "0" * 64


def by_somebody(entry: Line) -> None:
    """The policy has the worker's name, as anybody can name one in a namespace of their own."""
    entry["auth"]["entity_id"] = "6e5093c4-ce24-7707-d4e6-eb674d8bbfce"


SUBSTITUTES: dict[str, tuple[bytes, bytes, str]] = {
    "another token's revocation": (of("token", 2), edited(of("token", 2), other_accessor), "about another token"),
    "a revocation with an error": (
        of("token", 2),
        edited(of("token", 2), lambda e: e.update(error="1 error occurred: permission denied")),
        "shows an error, and no revocation",
    ),
    "a request alone": (of("token", 2), edited(of("token", 2), lambda e: e.update(type="request")), "is a request"),
    "another token's look-up": (of("token", 3), edited(of("token", 3), other_accessor), "about another token"),
    "a look-up that found the token": (
        of("token", 3),
        edited(of("token", 3), lambda e: e.pop("error")),
        "found the token alive",
    ),
    "a look-up that failed otherwise": (
        of("token", 3),
        edited(of("token", 3), lambda e: e.update(error="1 error occurred:\n\t* permission denied\n\n")),
        "for another reason",
    ),
    "a look-up by somebody": (of("token", 3), edited(of("token", 3), by_somebody), "none of the worker's"),
    "another lease's issue": (
        of("lease", 1),
        edited(of("lease", 1), lambda e: e["response"]["secret"].update(lease_id="database/creds/app-readonly/other")),
        "does not show the issue of this lease",
    ),
    "another lease's revocation": (
        of("lease", 2),
        edited(of("lease", 2), lambda e: e["request"].update(path="sys/leases/revoke/database/creds/app-readonly/o")),
        "about another lease",
    ),
    "a revocation by somebody": (of("lease", 2), edited(of("lease", 2), by_somebody), "none of the worker's"),
    "a look-up that found the lease": (
        of("lease", 3),
        edited(of("lease", 3), lambda e: (e.pop("error"), e["response"].pop("data"))),
        "found the lease alive",
    ),
    "a token's look-up for a lease": (of("lease", 3), of("token", 3), "no look-up of this lease"),
    "a lease's look-up for a token": (of("token", 2), of("lease", 3), "about another token"),
    "a token of another role": (
        of("token", 1),
        edited(of("token", 1), lambda e: e["request"].update(path="auth/token/create/jitvault-8h")),
        "of another role",
    ),
    "a token that somebody made": (of("token", 1), edited(of("token", 1), by_somebody), "none of the worker's"),
    "a line about nothing": (
        of("token", 2),
        edited(of("token", 2), lambda e: e["request"].update(path="secret/data/x", headers={})),
        "no line of Vault's about tokens",
    ),
    "no audit entry": (of("token", 2), b'{"time":"now"}\n', "in none of the files"),
}


@pytest.mark.parametrize(("old", "new", "says"), SUBSTITUTES.values(), ids=SUBSTITUTES)
def test_a_line_that_shows_something_else_is_not_taken(forger: Forger, old: bytes, new: bytes, says: str) -> None:
    if b'"request"' not in new:
        log = forger.log([new if line == old else line for line in LINES])
        problems = texts(forger.verify(forger.receipt(), log).outcome)
    else:
        edit, lines = renamed(old, new)
        problems = forger.problems(edit, forger.log(lines))
    assert any(says in problem for problem in problems), problems


def test_a_line_of_another_time_or_path_than_the_receipt_says_is_not_taken(forger: Forger) -> None:
    def edit(told: Told) -> None:
        for owner in (told["proof"]["token"], told["proof"]["leases"][0]):
            for check in owner["checks"]:
                if check["evidence"].get("path") == "auth/token/lookup-accessor":
                    check["evidence"]["path"] = "auth/token/lookup"

    assert any("the receipt says otherwise" in problem for problem in forger.problems(edit, forger.log()))


def test_leases_that_the_receipt_leaves_out_are_found(forger: Forger) -> None:
    def edit(told: Told) -> None:
        told["proof"]["leases"].pop()

    assert any("leaves out lease" in problem for problem in forger.problems(edit, forger.log()))


def test_tokens_that_the_receipt_leaves_out_are_found(forger: Forger) -> None:
    def edit(told: Told) -> None:
        told["grants"].pop(0)
        told["proof"]["earlier_tokens"].clear()
        told["proof"]["leases"].pop(0)

    problems = forger.problems(edit, forger.log())
    assert any("a token of this task that the receipt leaves out" in problem for problem in problems), problems


def test_a_receipt_that_takes_another_tasks_lines_is_found_out(forger: Forger) -> None:
    def edit(told: Told) -> None:
        told["task"] = told["proof"]["task_id"] = "innocent"
        told["extensions"] = []

    problems = forger.problems(edit, forger.log())
    assert any("to task 'read-orders'" in problem for problem in problems)
    assert any("gave one of these tokens to this task" in problem for problem in problems)


def use_after_its_end() -> Iterator[bytes]:
    """The agent's read of a lease, dated a day later."""
    for line in LINES:
        entry = json.loads(line)
        if entry["type"] == "request" and entry["request"]["path"] == "database/creds/app-readonly":
            yield edited(line, lambda e: e.update(time="2026-12-02T14:00:00Z"))


def test_a_use_after_the_end_is_found(forger: Forger) -> None:
    problems = texts(forger.verify(forger.receipt(), forger.log([*LINES, *use_after_its_end()])).outcome)
    assert len(problems) == 2 and all("was used after it was seen gone" in problem for problem in problems)


def act_at(path: str, *, check: int = 1) -> bytes:
    """An act of root's between issue and look-up."""
    entry = json.loads(of("lease", check))
    root = {"accessor": "hmac-sha256:" + "1" * 64, "policies": ["root"]}
    request = {"id": "r-1", "operation": "update", "path": path, "namespace": {"id": "root"}}
    # the first token was seen gone at about the same time as its lease
    checks = content()["proof"]["earlier_tokens"][0]["checks"]
    ends = [one["evidence"]["at"] for one in checks if one["n"] == check == 3]
    at = max(datetime.fromisoformat(each) for each in (f"{entry['time'][:26].rstrip('Z')}Z", *ends))
    time = (at + timedelta(microseconds=2)).isoformat()
    return (
        json.dumps({"time": time, "type": "response", "auth": root, "request": request, "response": {}}).encode()
        + b"\n"
    )


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("sys/leases/tidy", True),
        ("sys/remount", True),
        ("database/config/app", True),
        ("database/roles/app-readonly", True),
        ("database/roles/other", False),
        ("secret/data/x", False),
    ],
)
def test_an_act_that_can_fake_an_end_is_found(forger: Forger, path: str, *, found: bool) -> None:
    problems = texts(forger.verify(forger.receipt(), forger.log([*LINES, act_at(path)])).outcome)
    assert any(f"the files show '{path}'" in problem for problem in problems) is found, problems
    after = act_at(path, check=3)
    assert forger.verify(forger.receipt(), forger.log([*LINES, after])).outcome.holds


def test_a_line_of_a_finding_has_to_be_there_as_well(forger: Forger) -> None:
    there = hashlib.sha256(LINES[3]).hexdigest()

    def edit(told: Told) -> None:
        told["findings"] = [{"rule": "denied", "message": "x", "line": line} for line in (there, "0" * 64)]

    problems = forger.problems(edit, forger.log())
    assert problems == ["line 0000000000000000 of finding 2 (denied) is in none of the files"]


def test_a_long_line_is_read_in_bounded_memory_and_counts(forger: Forger) -> None:
    old = of("token", 2)
    long = edited(old, lambda e: e["request"]["data"].update(more="x" * (WHOLE_LINE + 70_000)))
    edit, lines = renamed(old, long)
    assert forger.problems(edit, forger.log(lines)) == []
    read = list(lines_of(forger.log([long, old])))
    assert [one.offset for one in read] == [0, len(long)] and read[0].sha256 == hashlib.sha256(long).hexdigest()


def test_lines_that_are_no_entries_are_counted(forger: Forger) -> None:
    log = forger.log([b"\n", b"hello\n", b"[" * 50_000 + b"\n", *LINES, b'{"time":'])
    found = forger.verify(forger.receipt(), log).outcome
    assert found.holds and "4 lines of the files that are no audit entries" in found.not_checked


def test_files_that_cannot_be_read_are_refused(forger: Forger, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gz"
    cut.write_bytes(forger.log(LINES, "whole.gz").read_bytes()[:-5000])
    with pytest.raises(InvalidInput, match="cannot be decompressed to its end"):
        forger.verify(forger.receipt(), cut)
    packed = tmp_path / "audit.log.zst"
    packed.write_bytes(b"\x28\xb5\x2f\xfd" + b"0" * 100)
    with pytest.raises(InvalidInput, match="compressed by zstd"):
        forger.verify(forger.receipt(), packed)
    with pytest.raises(UsageError, match="there is no such file"):
        files_in([tmp_path / "nosuch.log"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no file in"):
        files_in([tmp_path / "empty"])
    below = tmp_path / "spool" / "vault"
    below.mkdir(parents=True)
    (below / "one.log").write_bytes(b"x\n")
    assert files_in([tmp_path / "spool", below / "one.log"]) == [(below / "one.log").resolve()]


def test_lines_in_vaults_form_show_it_as_well(forger: Forger) -> None:
    """HashiCorp Vault shows a token by other HMACs, and numbers of a request as HMACs."""
    form = VaultsForm()
    pairs = [(line, form(line)) for line in LINES]
    assert all(old != new for old, new in pairs if b'"ttl"' in old or b"sync" in old)

    def edit(told: Told) -> None:
        text = json.dumps(told["proof"])
        for old, new in pairs:
            text = text.replace(name_of(old), name_of(new))
        told["proof"] = json.loads(text)

    found = forger.verify(forger.receipt(edit), forger.log(new for _, new in pairs)).outcome
    assert found.holds, found.problems
    missing = forger.problems(edit, forger.log(new for old, new in pairs if old != of("lease", 2)))
    assert any("is in none of the files" in problem for problem in missing)


def listing(path: str = "sys/leases/lookup/database/creds/app-readonly", operation: str = "list") -> bytes:
    """The worker's listing of leases, or another answer without an error."""

    def edit(entry: Line) -> None:
        entry.pop("error")
        entry["response"].pop("data")
        entry["request"].update(path=path, operation=operation)

    return edited(of("lease", 3), edit)


FOUND = edited(of("token", 3), lambda e: e.pop("error"))
ALIVE: dict[str, tuple[str, bytes, bytes, str]] = {
    "a token by its accessor": ("token", listing(), FOUND, ""),
    "a token by its own lease": ("token", listing(), listing("sys/leases/lookup", "update"), ""),
    "a lease": ("leases", listing(), listing("sys/leases/lookup", "update"), ""),
    "another token": ("token", listing(), edited(FOUND, other_accessor), "about another token"),
    "a look-up that missed it": ("token", listing(), of("token", 3), "is no look-up that found it"),
    "a look-up by somebody": ("token", listing(), edited(FOUND, by_somebody), "none of the worker's"),
    "a token's look-up for a lease": ("leases", listing(), FOUND, "is no look-up that found it"),
    "no listing": ("token", of("lease", 3), FOUND, "no listing of leases"),
    "a listing by somebody": ("token", edited(listing(), by_somebody), FOUND, "none of the worker's"),
}


@pytest.mark.parametrize(("of_what", "listed", "alive", "says"), ALIVE.values(), ids=ALIVE)
def test_over_a_gap_a_listing_and_a_look_up_have_to_be_there(
    forger: Forger, of_what: str, listed: bytes, alive: bytes, says: str
) -> None:
    def edit(told: Told) -> None:
        owner = told["proof"][of_what] if of_what == "token" else told["proof"][of_what][0]
        (trust,) = (check for check in owner["checks"] if check["n"] == 5)
        gap = {"kind": "gap", "closed": "seen_alive", "listing": name_of(listed), "line": name_of(alive)}
        trust["evidence"] = gap

    problems = forger.problems(edit, forger.log([*LINES, listed, alive]))
    assert (len(problems) == 1 and says in problems[0]) if says else problems == []
    assert len(forger.problems(edit, forger.log())) >= 1


@pytest.mark.parametrize("field", ["request_id", "operation"])
def test_a_line_of_another_request_or_act_than_the_receipt_says_is_not_taken(forger: Forger, field: str) -> None:
    def edit(told: Told) -> None:
        check = told["proof"]["leases"][0]["checks"][1]
        check["evidence"][field] = "another"

    (problem,) = forger.problems(edit, forger.log())
    assert problem.endswith("and the receipt says otherwise"), problem
