"""Honest receipts of tasks that went another way than most: neither verifier calls them wrong."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
from forger import LINES, Forger, content
from test_forgeries import (
    GONE_LEASE,
    HASH,
    OPENED,
    REVOKED_LEASE,
    WRAPPED,
    after_the_end,
    by_lease,
    evidence,
    expired,
    part,
    revoked_by_token,
)
from test_lines import edited, name_of, of
from vaults_form import VaultsForm

Told = dict[str, Any]
LAST = content()["grants"][-1]["accessor_hmac"].encode()


def not_shown(forger: Forger, data: bytes, lines: list[bytes]) -> list[str]:
    """The checks that could not be made of a receipt of which nothing is wrong, by both."""
    found = forger.verify(data, forger.log(lines)).outcome
    assert found.problems == [] and forger.script(data, forger.log(lines)) == 3
    return [one.name for one in found.not_made]


def test_wrapped_reads_of_what_everybody_may_read_need_no_finding_each(forger: Forger) -> None:
    """Vault gives no lease there, and of a flood of them jitvault stores a part."""
    flood = [
        edited(
            WRAPPED,
            lambda e, n=n: (
                e["request"].update(path="identity/oidc/.well-known/keys", id=f"r-{n}"),
                e["auth"].update(policy_results={"allowed": True}),
            ),
        )
        for n in range(3)
    ]
    assert forger.accepts(forger.receipt(), forger.log([*LINES, *flood]))


def test_the_end_of_a_used_token_by_its_own_lease_is_not_checked_where_the_record_was_rebuilt(forger: Forger) -> None:
    """The accessor was lost with the ledger. Whether the lease is the token's no line shows, so nothing is said."""

    def edit(told: Told) -> None:
        told["recovered"] = [{"at": "2026-11-28T15:00:00Z", "from": {"seq": 3}, "verified_by": []}]
        by_lease(told, REVOKED_LEASE, GONE_LEASE)

    assert not_shown(forger, forger.receipt(edit), [*LINES, REVOKED_LEASE, GONE_LEASE]) == ["lines"]


def test_an_expiry_before_any_look_up_is_not_checked(forger: Forger) -> None:
    """The line of a creation does not say how long the token lives, and the worker died right after it."""

    def edit(told: Told) -> None:
        expired(told, after_the_end(1000))

    def keeps(line: bytes) -> bool:
        return LAST not in line or not any(act in line for act in (b"-accessor", b"renew", b"wrapping/unwrap"))

    later = edited(of("lease", 3), lambda e: e.update(time=after_the_end(1060)))
    assert not_shown(forger, forger.receipt(edit), [*filter(keeps, LINES), later]) == ["lines"]


def owner_of_both(told: Told) -> None:
    """Policy lets the owner approve, who also owns what is above the task."""
    told["policy"]["obligations"]["owner_may_approve"] = ["jitvault-approvers"]
    told["approved_by"][0] = told["owner"]["entity"]
    told["approvers"] = []
    parties = {part: {"entity": f"e-{part}", "name": part} for part in ("requester", "agent")}
    told["delegation"] = [
        {"task": "above", "digest": told["extensions"][0]["digest"], "owner": told["owner"], **parties}
    ]


def test_an_owner_who_asked_for_what_is_handed_on_may_not_have_approved(forger: Forger) -> None:
    def edit(told: Told) -> None:
        owner_of_both(told)
        told["delegation"][0]["requester"] = told["owner"]

    (problem,) = forger.refused(edit, forger.log(), task="fix-orders", fits=True)
    assert problem.endswith("approved the task and is its requester of above")


def owner_of_more_time(told: Told) -> None:
    told["extensions"][0]["approved_by"] = [told["owner"]]


@pytest.mark.parametrize(("edit", "task"), [(owner_of_both, "fix-orders"), (owner_of_more_time, "read-orders")])
def test_an_owner_may_have_approved(forger: Forger, edit: Any, task: str) -> None:
    assert forger.accepts(forger.receipt(edit, task, fits=True), forger.log())


def test_a_token_that_somebody_named_to_revoke_it_is_shown_in_its_stored_form_by_vault(forger: Forger) -> None:
    by_token = revoked_by_token()
    form = VaultsForm()
    pairs = [(line, form(line)) for line in (*LINES, by_token)]

    def edit(told: Told) -> None:
        evidence(told, "token", 2, by_token)
        text = json.dumps(told["proof"])
        for old, new in pairs:
            text = text.replace(name_of(old), name_of(new))
        told["proof"] = json.loads(text)

    assert forger.accepts(forger.receipt(edit), forger.log(new for _, new in pairs))


def of_another_device(line: bytes) -> bytes:
    """The same line by an audit device with another salt."""
    return re.sub(
        rb"hmac-sha256:([0-9a-f]{64})",
        lambda hashed: b"hmac-sha256:" + hashlib.sha256(hashed[1]).hexdigest().encode(),
        line,
    )


def test_what_another_audit_device_shows_is_no_other_token(forger: Forger) -> None:
    """As in a directory with the files of both."""
    second = [of_another_device(line) for line in LINES]
    logs = forger.log(), forger.log(second, "second.log")
    assert forger.accepts(forger.receipt(), *logs)
    assert any(text.startswith("1 token that") for text in forger.verify(forger.receipt(), *logs).outcome.not_checked)
    left_out = edited(OPENED, lambda e: (part(e).update(accessor=HASH), e["request"].update(id="r-8")))
    problems = forger.refused(lambda told: None, forger.log([*LINES, left_out, *second, of_another_device(left_out)]))
    assert len(problems) == 2 and all("that the receipt leaves out" in problem for problem in problems)


def test_a_token_that_another_one_of_the_task_opened_is_not_hidden_by_it(forger: Forger) -> None:
    """`bao unwrap` sends the caller's token in the header, and the wrapping in the body."""
    own = json.loads(of("token", 2))["request"]["data"]["accessor"]

    def opened_by_own(entry: Any) -> None:
        entry["request"]["id"] = "r-9"
        entry["auth"] = {**part(entry), "accessor": own}
        part(entry).update(accessor=HASH)

    problems = forger.refused(lambda told: None, forger.log([*LINES, edited(OPENED, opened_by_own)]))
    assert any("that the receipt leaves out" in problem for problem in problems), problems
