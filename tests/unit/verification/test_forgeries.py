"""What a thief of the worker's token has signed, with lines of Vault's that seem to fit.

The thief causes any line that the worker can cause, chooses which lines the receipt names, and may have an accomplice:
the administrator of another namespace. A stranger's lines, on the other hand, make no honest receipt wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from forger import LINES, Edit, Forger, content, texts
from test_lines import by_somebody, edited, name_of, of, shows

Line = dict[str, Any]
Told = dict[str, Any]
ROLE = "auth/token/create/jitvault-1h/"
NEVER_WAS = f"{ROLE}h{'0' * 64}"
HASH = "hmac-sha256:" + "7" * 64
UNREAD = [line for line in LINES if b'"path":"database/creds/' not in line]
"""The lines without the agent's reads: as of a token that reads something which has no lease."""
USED = [line for line in LINES if b"wrapping/unwrap" not in line]
UNOPENED = [line for line in UNREAD if b'"jitvault_task":"read-orders"' not in line]


def evidence(told: Told, of_what: str, n: int, line: bytes) -> None:
    """Let a check rest on a line; where it is nothing that jitvault has a name for, under the name that fits."""
    proof = told["proof"]
    owner = proof["token"] if of_what == "token" else proof["leases"][0]
    (check,) = (one for one in owner["checks"] if one["n"] == n)
    shown = shows(line)
    check["evidence"] = {**shown, "operation": shown["operation"] or check["evidence"]["operation"]}
    for other in owner["checks"]:
        if other["n"] == 4 and n == 3:
            other["evidence"]["end"] = check["evidence"]["at"]


def without_leases(told: Told) -> None:
    told["proof"] |= {"leases": [], "earlier_tokens": [], "target_asked": None}
    told["extensions"] = []
    told["grants"] = told["grants"][-1:]


def of_one_token(lines: list[bytes]) -> list[bytes]:
    """The lines without those of the first of the task's two tokens."""
    first = content()["grants"][0]["accessor_hmac"].encode()
    return [line for line in lines if first not in line]


def test_a_token_with_an_accessor_was_issued(forger: Forger) -> None:
    """No check of a token that was never issued asks for a line."""

    def edit(told: Told) -> None:
        without_leases(told)
        told["grants"][0]["verdict"] = told["proof"]["token"]["verdict"] = "never_issued"
        told["proof"]["token"]["checks"] = [one for one in told["proof"]["token"]["checks"] if one["n"] == 7]

    problems = forger.refused(edit, forger.log(of_one_token(UNREAD)))
    assert problems == [
        "the task's token is called never issued, and its grant has an accessor, which Vault gives a token"
    ]


def never_issued(told: Told) -> None:
    told.update(grants=[], extensions=[], approved_by=[])
    told["proof"] |= {"leases": [], "earlier_tokens": [], "target_asked": None}
    quiet = {"n": 7, "ok": True, "evidence": {"kind": "no_token"}}
    told["proof"]["token"] = {"verdict": "never_issued", "checks": [quiet]}


def test_tokens_that_the_receipt_does_not_claim_are_counted(forger: Forger) -> None:
    """No creation names its task, and nothing else shows a token that is still in its wrapping."""

    found = forger.verify(forger.receipt(never_issued), forger.log(UNOPENED)).outcome
    assert found.problems == []
    # two of this task, and one of another task that was granted meanwhile
    assert any(text.startswith("3 tokens that the worker's roles gave") for text in found.not_checked)
    honest = forger.verify(forger.receipt(), forger.log()).outcome
    assert any(text.startswith("1 token that the worker's roles gave") for text in honest.not_checked)


def by_lease(told: Told, revoked: bytes, gone: bytes) -> None:
    evidence(told, "token", 2, revoked)
    evidence(told, "token", 3, gone)


def as_time_of(line: bytes, entry: Line) -> object:
    return entry.update(time=json.loads(line)["time"])


REVOKED_LEASE = edited(
    of("lease", 2),
    lambda e: (e["request"].update(path=f"sys/leases/revoke/{NEVER_WAS}"), as_time_of(of("token", 2), e)),
)
GONE_LEASE = edited(
    of("lease", 3), lambda e: (e["request"]["data"].update(lease_id=HASH), as_time_of(of("token", 3), e))
)


def as_read_in_cubbyhole(entry: Line) -> object:
    """The creation of a token, as the read of its wrapping in the cubbyhole of the wrapping token."""
    wrapping = entry["response"]["wrap_info"]
    entry["auth"] = {"accessor": wrapping["accessor"], "client_token": wrapping["token"], "token_type": "service"}
    entry["request"].update(id="0", operation="read", path="cubbyhole/response", data=None)
    return entry.update(response={"data": {"response": HASH}})


READ_IN_CUBBYHOLE = [*UNOPENED, edited(of("token", 1), as_read_in_cubbyhole)]


@pytest.mark.parametrize(
    ("lines", "refused"),
    [(UNOPENED, False), (UNREAD, True), (READ_IN_CUBBYHOLE, True), (USED, True)],
    ids=["in its wrapping", "opened", "opened by hand", "used"],
)
def test_the_end_of_any_lease_of_its_role_is_not_that_of_a_token_which_was_used(
    forger: Forger, lines: list[bytes], *, refused: bool
) -> None:
    """The revocation of a lease that never was is a 204, and its look-up a 400."""

    def edit(told: Told) -> None:
        if lines is not USED:
            without_leases(told)
        by_lease(told, REVOKED_LEASE, GONE_LEASE)

    log = lines if lines is USED else of_one_token(lines)
    files = forger.log([*log, REVOKED_LEASE, GONE_LEASE])
    assert forger.script(forger.receipt(edit), files) == int(refused)
    problems = forger.problems(edit, files)
    assert [one.partition(") ")[2][:33] for one in problems] == ["is about a lease of the role, and"] * (2 * refused)


def renewed(entry: Line) -> object:
    """A look-up that found a token, as its renewal in the end."""
    entry["request"].update(path="auth/token/renew-accessor", id="0")
    return entry.update(time="2999-01-01T00:00:00Z", response={"auth": {"token_ttl": 900}})


def found(entry: Line) -> object:
    return (entry["request"].update(id="0"), entry.update(time="2999-01-01T00:00:00Z"))


@pytest.mark.parametrize("change", [found, renewed])
def test_a_token_in_its_wrapping_that_lives_on_is_not_gone(forger: Forger, change: Callable[[Line], object]) -> None:
    """Any lease of its role is to show its end, and Vault itself says afterwards that it lives."""

    def edit(told: Told) -> None:
        without_leases(told)
        by_lease(told, REVOKED_LEASE, GONE_LEASE)

    last = content()["grants"][-1]["accessor_hmac"].encode()
    looked_up = next(
        line
        for line in LINES
        if last in line and b'"type":"response"' in line and b"lookup-accessor" in line and b'"error":"' not in line
    )
    files = forger.log([*of_one_token(UNOPENED), REVOKED_LEASE, GONE_LEASE, edited(looked_up, change)])
    (problem,) = forger.refused(edit, files)
    assert "lived after it was seen gone: auth/token/" in problem


SENT_IN_BODY = edited(
    of("lease", 2), lambda e: e["request"].update(path="sys/leases/revoke", data={"lease_id": HASH, "sync": True})
)
NOT_A_TOKENS = edited(
    of("lease", 2),
    lambda e: (e["request"].update(path=f"sys/leases/revoke/{ROLE}other"), as_time_of(of("token", 2), e)),
)


def refused(entry: Line) -> object:
    return entry.update(response={"data": {"error": HASH}}, error="1 error occurred:\n\t* permission denied\n\n")


def not_understood(entry: Line) -> object:
    """As Vault answers a parameter of a wrong type, whatever exists."""
    entry.pop("error")
    return entry.update(response={"data": {"error": HASH}})


LEASE = content()["proof"]["leases"][0]["lease_id"]


NUMBER_IN_BODY = edited(of("lease", 2), lambda e: e["request"]["data"].update(lease_id=5))
OTHER_RENEWAL, NUMBER_RENEWAL = (
    edited(of("lease", 3), lambda e, other=other: e["request"].update(path=f"sys/leases/renew/{LEASE}", data=other))
    for other in ({"lease_id": HASH}, {"lease_id": 5})
)
REFUSED_RENEWAL, WRONG_RENEWAL = (
    edited(of("lease", 3), lambda e, how=how: (how(e), e["request"].update(path=f"sys/leases/renew/{LEASE}", data={})))
    for how in (refused, not_understood)
)
HELP = edited(
    of("lease", 2), lambda e: (e["request"].update(operation="help"), e.update(response={"data": {"help": HASH}}))
)
IN_A_WRAPPING = edited(of("lease", 2), lambda e: e["response"].update(wrap_info={"ttl": 60, "token": HASH}))
WRONG_PREFIX = edited(
    of("token", 2),
    lambda e: e.update(
        request={**e["request"], "path": f"sys/leases/revoke-prefix/{ROLE[:-1]}", "data": {"sync": HASH}},
        response={"data": {"error": HASH}},
    ),
)
OTHER_PREFIX = edited(
    of("token", 2),
    lambda e: e["request"].update(path="sys/leases/revoke-prefix/auth/token/create/another", data={"sync": HASH}),
)
CLAIMS: dict[str, tuple[str, int, bytes, str]] = {
    "a lease that is named by its HMAC": ("lease", 2, SENT_IN_BODY, "is about another lease"),
    "a lease that is a number in the body": ("lease", 2, NUMBER_IN_BODY, "is about another lease"),
    "a renewal with another lease in its body": ("lease", 3, OTHER_RENEWAL, "is no look-up of this lease"),
    "a renewal with a number in its body": ("lease", 3, NUMBER_RENEWAL, "is no look-up of this lease"),
    "a look-up that Vault refused": ("lease", 3, edited(of("lease", 3), refused), "failed for another reason"),
    "a revocation whose answer is in a wrapping": ("lease", 2, IN_A_WRAPPING, "has its answer in a wrapping"),
    "a prefix that Vault did not understand": ("token", 2, WRONG_PREFIX, "shows an error, and no revocation"),
    "a prefix of another role": ("token", 2, OTHER_PREFIX, "does not cover this token"),
    "a look-up by somebody else": ("lease", 3, edited(of("lease", 3), by_somebody), "none of the worker's"),
    "an explanation of the path": ("lease", 2, HELP, "is no line of Vault's about tokens or leases"),
    "a renewal that Vault did not understand": ("lease", 3, WRONG_RENEWAL, "failed for another reason"),
    "a look-up that Vault did not understand": (
        "token",
        3,
        edited(of("token", 3), not_understood),
        "failed for another reason",
    ),
    "a renewal that Vault refused": ("lease", 3, REFUSED_RENEWAL, "failed for another reason"),
    "the lease of something else below the role": ("token", 2, NOT_A_TOKENS, "is about another token"),
}


@pytest.mark.parametrize(("of_what", "n", "line", "says"), CLAIMS.values(), ids=CLAIMS)
def test_what_vault_did_not_do_is_no_evidence(forger: Forger, of_what: str, n: int, line: bytes, says: str) -> None:
    problems = forger.refused(lambda told: evidence(told, of_what, n, line), forger.log([*LINES, line]))
    assert len(problems) == 1 and says in problems[0], problems


def test_two_leases_have_two_look_ups(forger: Forger) -> None:
    """A lease that never was can be looked up twice."""
    leases = [json.loads(of("lease", 3)), content()["proof"]["leases"][1]]
    second = next(line for line in LINES if name_of(line) == leases[1]["checks"][2]["evidence"]["sha256"])
    same = edited(second, lambda e: e["request"].update(data=leases[0]["request"]["data"]))

    def edit(told: Told) -> None:
        check = told["proof"]["leases"][1]["checks"][2]
        check["evidence"]["sha256"] = name_of(same)

    problems = forger.refused(edit, forger.log([*LINES, same]))
    assert len(problems) == 1 and "looks up the same lease for lease " in problems[0], problems


def elsewhere(entry: Line) -> None:
    """By the administrator of another namespace, who has named a policy as the worker's is."""
    entry["request"]["namespace"] = {"id": "Yeykqt", "path": "team1/"}
    entry["auth"]["entity_id"] = "bfbeecf0-dc1c-3772-7bc0-583b83141c36.Yeykqt"


@pytest.mark.parametrize(("of_what", "n"), [("token", 2), ("token", 3), ("lease", 2), ("lease", 3)])
def test_an_end_in_another_namespace_is_none(forger: Forger, of_what: str, n: int) -> None:
    line = edited(of(of_what, n), elsewhere)
    problems = forger.refused(lambda told: evidence(told, of_what, n, line), forger.log([*LINES, line]))
    assert any("is of namespace 'Yeykqt', and jitvault's is 'root'" in problem for problem in problems), problems
    assert "the lines are of 2 namespaces: 'Yeykqt', 'root'" in problems


def test_a_receipt_that_is_of_another_namespace_as_a_whole_is_found_out(forger: Forger) -> None:
    lines = {line: edited(line, elsewhere) for line in LINES}

    def edit(told: Told) -> None:
        text = json.dumps(told["proof"])
        for old, new in lines.items():
            text = text.replace(name_of(old), name_of(new))
        told["proof"] = json.loads(text)

    problems = forger.refused(edit, forger.log(lines.values()))
    assert sum("is of namespace 'Yeykqt'" in problem for problem in problems) == 12
    assert sum("which is none of the worker's" in problem for problem in problems) == 8


def test_a_lease_that_somebody_else_revoked_before_the_worker_is_not_proven(forger: Forger) -> None:
    """Whether the target was reached then is not known, and the worker's own revocation found nothing to do."""
    earlier = edited(
        of("lease", 2),
        lambda e: (
            e.update(time=json.loads(of("lease", 1))["time"][:-4] + "999Z"),
            e["auth"].update(entity_id="6e5093c4-ce24-7707-d4e6-eb674d8bbfce"),
        ),
    )
    problems = texts(forger.verify(forger.receipt(), forger.log([*LINES, earlier])).outcome)
    assert len(problems) == 1 and "was revoked before by entity '6e5093c4" in problems[0], problems
    denied = edited(earlier, refused)
    assert forger.verify(forger.receipt(), forger.log([*LINES, denied])).outcome.holds


WRAPPED = edited(
    next(line for line in LINES if b'"type":"response"' in line and b'"path":"database/creds/app-readonly","' in line),
    lambda e: (
        e["request"].update(wrap_ttl=600, id="r-7"),
        e["response"].pop("secret"),
        e["response"].pop("data"),
        e["response"].update(wrap_info={"ttl": 600, "token": HASH, "accessor": HASH}),
        e["auth"].update(accessor=content()["grants"][-1]["accessor_hmac"]),
        as_time_of(of("lease", 1), e),
    ),
)


def test_a_read_in_a_wrapping_needs_its_finding(forger: Forger) -> None:
    """No line shows what it gave, and the agent may open it later."""
    log = forger.log([*LINES, WRAPPED])
    problems = texts(forger.verify(forger.receipt(), log).outcome)
    assert len(problems) == 1 and "in a wrapping, and no finding of the receipt says so" in problems[0], problems

    def with_finding(rule: str) -> Edit:
        line = hashlib.sha256(WRAPPED).hexdigest()
        return lambda told: told.update(findings=[{"rule": rule, "message": "x", "line": line}])

    assert forger.accepts(forger.receipt(with_finding("wrapped_lease")), log)
    assert forger.refused(with_finding("denied"), log) == problems


def part(entry: Line) -> Line:
    found: Line = entry["response"]["auth"]
    return found


OPENED = next(line for line in LINES if b"wrapping/unwrap" in line)
STRANGERS: dict[str, Callable[[Line], object]] = {
    "who may create tokens": lambda e: part(e).update(policies=["default"]),
    "of another namespace": lambda e: e["request"].update(namespace={"id": "Yeykqt", "path": "team1/"}),
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_metadata_that_a_stranger_gave_a_token_make_no_receipt_wrong(
    forger: Forger, stranger: Callable[[Line], object]
) -> None:
    """Metadata count only beside a policy of jitvault's in its namespace: then the token is one of its roles."""
    own = edited(OPENED, lambda e: (part(e).update(accessor=HASH), e["request"].update(id="r-8")))
    assert forger.accepts(forger.receipt(), forger.log([*LINES, edited(own, stranger)]))
    problems = forger.refused(lambda told: None, forger.log([*LINES, own]))
    assert any("a token of this task that the receipt leaves out" in problem for problem in problems)


def after_the_end(seconds: float) -> str:
    """A time after the newest token was seen gone, in Vault's form."""
    gone = json.loads(of("token", 3))["time"]
    return (datetime.fromisoformat(f"{gone[:19]}Z") + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def expired(told: Told, at: str) -> None:
    """Let the newest token be over at a time, with no line that shows its end."""
    told["grants"][-1]["verdict"] = told["proof"]["token"]["verdict"] = "expired"
    for check in told["proof"]["token"]["checks"]:
        if check["n"] in (2, 3):
            check["evidence"] = {"kind": "expiry", "at": at}
        elif check["n"] == 4:
            check["evidence"]["end"] = at


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        # the token was given two minutes at its creation, seconds before
        (1, "it could live until"),
        (3600, "the files end before"),
    ],
)
def test_a_live_token_did_not_expire_by_word(forger: Forger, seconds: int, says: str) -> None:
    def edit(told: Told) -> None:
        expired(told, after_the_end(seconds))

    ends = (of("token", 2), of("token", 3))
    log = forger.log(line for line in LINES if line not in ends)
    problems = forger.refused(edit, log)
    assert len(problems) == 1 and says in problems[0], problems
    later = edited(of("lease", 3), lambda e: e.update(time=after_the_end(5400)))
    assert bool(forger.problems(edit, forger.log([*LINES, later]))) is (says == "it could live until")


RENEWED = edited(
    next(line for line in LINES if b"renew-accessor" in line and b'"type":"response"' in line),
    lambda e: (
        e["request"].update(data={"accessor": content()["grants"][-1]["accessor_hmac"], "increment": HASH}),
        e.update(response={"wrap_info": {"ttl": 60, "token": HASH}}),
    ),
)


def test_a_renewal_whose_answer_is_in_a_wrapping_may_have_given_all_that_the_role_allows(forger: Forger) -> None:
    """The line does not say how long, and on HashiCorp Vault it does not show what was asked for either."""

    def edit(told: Told) -> None:
        expired(told, after_the_end(1000))

    later = edited(of("lease", 3), lambda e: e.update(time=after_the_end(1060)))
    log = [line for line in LINES if line not in (of("token", 2), of("token", 3))]
    assert forger.accepts(forger.receipt(edit), forger.log([*log, later]))
    problems = forger.refused(edit, forger.log([*log, RENEWED, later]))
    assert len(problems) == 1 and "it could live until" in problems[0], problems


def test_what_the_target_alone_is_said_to_have_proven_is_not_checked(forger: Forger) -> None:
    """Whoever has the worker's token has Vault forget a lease, and signs that the target refuses it."""

    def edit(told: Told) -> None:
        told["proof"]["forced"] = {"by": "e-1", "name": "ines", "reason": "no answer"}
        for check in told["proof"]["leases"][0]["checks"]:
            check["ok"] = check["n"] not in (2, 4)

    receipt = forger.receipt(edit, fits=True)
    found = forger.verify(receipt, forger.log()).outcome
    assert found.problems == [] and found.holds is None
    assert [one.name for one in found.not_made] == ["closed"]
    assert forger.script(receipt, forger.log()) == 3


def revoked_by_token() -> bytes:
    """The line of the token's revocation, as if it was named itself and not by its accessor."""
    opened = [json.loads(line) for line in LINES if b"wrapping/unwrap" in line and b"read-orders" in line]
    named = {"token": opened[-1]["response"]["auth"]["client_token"]}
    return edited(of("token", 2), lambda e: e["request"].update(path="auth/token/revoke", data=named))


def test_whoever_has_the_token_itself_may_have_revoked_it(forger: Forger) -> None:
    """The line names the token by its HMAC, which the unwrap's line has beside its accessor."""
    by_token = edited(revoked_by_token(), lambda e: e["auth"].update(entity_id="", policies=["root"]))
    log = forger.log([*LINES, by_token])
    assert forger.accepts(forger.receipt(lambda told: evidence(told, "token", 2, by_token)), log)
    other = edited(by_token, lambda e: e["request"].update(data={"token": HASH}))
    problems = forger.refused(lambda told: evidence(told, "token", 2, other), forger.log([*LINES, other]))
    assert len(problems) == 1 and "is about another token" in problems[0]


@pytest.mark.parametrize(("task", "in_line"), [("é", "é"), ("a<b", "a\\u003cb")])
def test_a_task_is_found_in_whatever_form_vault_writes_its_id(forger: Forger, task: str, in_line: str) -> None:
    lines = [line.replace(b'":"read-orders"', f'":"{in_line}"'.encode()) for line in UNREAD]

    def edit(told: Told) -> None:
        never_issued(told)
        told["task"] = told["proof"]["task_id"] = task

    problems = forger.refused(edit, forger.log(lines), fits=True)
    # no honest task has such an id, so its documents are refused as well
    assert len([one for one in problems if "a token of this task that the receipt leaves out" in one]) == 2


def test_nothing_that_a_receipt_says_begins_a_line_of_the_scripts(forger: Forger) -> None:
    words = "x\n\x1b[2Jsignature: valid"

    def edit(told: Told) -> None:
        told["task"] = told["proof"]["task_id"] = words
        told["proof"] |= {"not_proven": [words]}
        told["proof"]["leases"][0]["lease_id"] = words

    said = forger.said(forger.receipt(edit), forger.log())
    assert "\x1b" not in said
    assert [line for line in said.splitlines() if line.startswith("signature: valid")] == said.splitlines()[-1:]
