"""Print what `jitvault verify` checked, and what it did not."""

from __future__ import annotations

import sys

import msgspec
from rich.console import Console

from jitvault.cli.folding import CONTINUED, MARK, for_terminal
from jitvault.cli.views import output
from jitvault.cli.views.proposal_sentence import chosen
from jitvault.cli.views.status import ended_in_full
from jitvault.cli.views.task import end_in_words
from jitvault.documents.receipt import Receipt
from jitvault.formats.plural import counted
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.shorten import one_line
from jitvault.verification.outcome import Basis, Outcome
from jitvault.verification.verify import Verified


def print_verified(found: Verified) -> None:
    """Print the result of a verification."""
    proven = [found.receipt.task] if found.outcome.holds else []
    if output.print_for_scripts(_as_json(found), *proven):
        return
    console = output.console()
    receipt = found.receipt
    ended = f" ({end_in_words(receipt.proof.end_reason, receipt.ended)})" if receipt.proof.end_reason else ""
    _line(console, one_line(f"Receipt of task {receipt.task}{ended}"), first="", rest=CONTINUED, style="bold")
    said = {
        "requester": receipt.requester.name,
        "agent": receipt.agent.name,
        "owner": receipt.owner.name,
        "approved by": _approvers(receipt),
        "intent": receipt.intent,
        **_held(receipt),
    }
    facts = {"digest": found.statement.digest, "sealed": output.readable(receipt.sealed_at)}
    # what was signed may have line ends, which would read as further facts
    least = max(map(len, (*said, *facts)))
    output.print_facts(console, {name: one_line(value) for name, value in said.items()}, least=least, mark=MARK)
    output.print_facts(console, facts, least=least)
    _print_checked(console, found.outcome)
    _print_list(console, "The receipt says", found.outcome.remarks, mark=MARK)
    attested = f"{counted(len(found.outcome.attested), 'value')}, by their places in -o json: the signer's word"
    _print_list(console, "Not checked", [*found.outcome.not_checked, attested])
    if found.outcome.holds:
        console.print(output.coloured("Every check holds. What is not checked is the signer's word.", "green"))


def _approved_by(receipt: Receipt) -> list[dict[str, str | None]]:
    """Return `{entity, name}` of each approver; the name is None where the worker did not know it."""
    names = {one.entity: one.name for one in receipt.approvers}
    return [{"entity": entity, "name": names.get(entity)} for entity in receipt.approved_by]


def _approvers(receipt: Receipt) -> str:
    words = [f"{one['name']} ({one['entity']})" if one["name"] else str(one["entity"]) for one in _approved_by(receipt)]
    return ", ".join(words) or "nobody: policy demanded no approval"


def _held(receipt: Receipt) -> dict[str, str]:
    """Return the access, when its token was issued, and how it ended.

    It ended at a time, by somebody and for a reason.
    """
    facts: dict[str, str] = {}
    if receipt.access:
        facts["access"] = "; ".join(f"{chosen(one)}: {one.path}" for one in receipt.access)
    if issued := _issued_at(receipt):
        facts["issued"] = output.readable(issued)
    if receipt.ended:
        facts["ended"] = ended_in_full(receipt.ended)
    return facts


def _issued_at(receipt: Receipt) -> str | None:
    times = [grant.issued_at for grant in receipt.grants if grant.issued_at]
    return rfc3339(min(times)) if times else None


def _print_checked(console: Console, outcome: Outcome) -> None:
    console.print("Checked", style="bold")
    width = max(len(one.name) for one in outcome.checked)
    for one in outcome.checked:
        if one.holds:
            word = " (attested)" if one.basis is Basis.ATTESTED else ""
            _line(console, f"{one.seen}{word}", first=f"  ✓ {one.name:<{width}}  ")
            continue
        if one.holds is None:
            _line(console, one.why_not_made, first=f"  ? {one.name:<{width}}  ", style="yellow")
            continue
        fails = f"does NOT hold in {one.read}" if one.read else "does NOT hold"
        _line(console, fails, first=f"  ✗ {one.name:<{width}}  ", style="red")
        for problem in one.problems:
            _line(console, str(problem), first=f"      {MARK}", rest=f"      {MARK}")


def _print_list(console: Console, title: str, texts: list[str], *, mark: str = "") -> None:
    if texts:
        console.print(title, style="bold")
    for text in texts:
        _line(console, text, first=f"  - {mark}", rest=f"    {mark}")


def _line(console: Console, text: str, *, first: str, rest: str | None = None, style: str | None = None) -> None:
    """Print one line: folded on a terminal, whole elsewhere.

    It goes on below its own text, where none of our lines begins, or with `rest`. One with a mark is folded whatever is
    in it: an id that a terminal breaks would go on without the mark.
    """
    rest = " " * len(first) if rest is None else rest
    shown = for_terminal(text, sys.stdout, first=first, rest=rest, keep_ids=MARK not in rest)
    console.print(shown, soft_wrap=True, style=style)


def _as_json(found: Verified) -> dict[str, object]:
    receipt = found.receipt
    return {
        "task_id": receipt.task,
        "installation": receipt.installation,
        "digest": found.statement.digest,
        "requester": receipt.requester.name,
        "agent": receipt.agent.name,
        "owner": receipt.owner.name,
        "approved_by": _approved_by(receipt),
        "intent": receipt.intent,
        "access": msgspec.to_builtins(receipt.access),
        "issued_at": _issued_at(receipt),
        "ended": msgspec.to_builtins(receipt.ended),
        "end_reason": receipt.proof.end_reason,
        "sealed_at": rfc3339(receipt.sealed_at),
        "confirmed": receipt.proof.confirmed,
        "key": {"version": found.signed.version, "sha256": found.signed.key.fingerprint},
        "holds": found.outcome.holds,
        "checked": [one.as_json() for one in found.outcome.checked],
        "remarks": found.outcome.remarks,
        "not_checked": found.outcome.not_checked,
        "attested": found.outcome.attested,
    }
