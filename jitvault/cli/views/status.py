"""`jitvault status`: everything that is known of one task.

It comes from the ledger, or from what a worker published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from msgspec import structs
from rich.console import Console

from jitvault.cli.views import extension, output, timeline
from jitvault.cli.views import published as fallback
from jitvault.cli.views.listing import Column, print_listing
from jitvault.cli.views.policy import decision_line, window_cut
from jitvault.cli.views.proposal_sentence import chosen
from jitvault.cli.views.task import (
    NEVER_HELD,
    ask_approvers,
    heading_end,
    in_words,
    missing_approvals,
    next_step,
    print_proof,
    uncounted,
)
from jitvault.documents.proof import Proof
from jitvault.documents.published_parts import Ended
from jitvault.documents.published_task import PublishedTask
from jitvault.lifecycle.decision.unread import UnreadDocument
from jitvault.model.revision import Revision
from jitvault.model.revision_content import RevisionContent
from jitvault.model.revision_text import describe_unasked
from jitvault.model.scope import Scope
from jitvault.model.spec import TaskBody
from jitvault.model.states import DEAD, DELIVERED_STATES, LIVE_STATES, EndReason, State, Verdict
from jitvault.model.token_limits import reads_left_in_words
from jitvault.model.verifiers import unproven

_MOST_USES = 12
_SIGNED = {
    "submit": "requested",
    "grant": "its grant requested",
    "extend": "more time requested",
    "end": "end requested",
    "approve": "approved",
    "deny": "denied",
    "withdraw": "approval withdrawn",
}
# why a task ended, where no person and no note says it
_ENDED = {
    EndReason.COMPLETED: "completed",
    EndReason.OPERATOR: "revoked, no reason given",
    EndReason.DEADLINE: "its window was over",
    EndReason.EXPIRED: "nobody renewed its token in time",
    EndReason.UNCLAIMED: "nobody unwrapped its token in time",
    EndReason.HEARTBEAT: "its token did nothing for too long",
    EndReason.POLICY: "policy no longer permits it",
    EndReason.DRIFT: "it is no longer what was approved",
    EndReason.INTERCEPTED: "somebody else may have its secret",
    EndReason.TRIPWIRE: "a tripwire",
    EndReason.FROZEN: "frozen",
    EndReason.PARENT: "a task above it ended",
    EndReason.ISSUE_FAILED: "its token could not be issued",
}


def print_status(revision: Revision, shown: Mapping[str, Any], now: datetime) -> None:
    """Print a task as the ledger has it.

    `shown` is what `status_of` gives, with `missing`, `freeze` and `unread`.
    """
    if not output.print_for_scripts(shown, shown["state"]):
        findings = list(_grouped_findings(shown["findings"]))
        more: dict[str, Any] = {"findings": findings, "because": None, "next": None, "held_up": None, "source": {}}
        _print(revision, {**shown, **more}, now)


def print_published(document: PublishedTask, shown: Mapping[str, Any], now: datetime) -> None:
    """Print a task as a worker published it, where there is no ledger.

    `shown` is the document as JSON data, with its source, what no worker has read, and the freeze that covers it. What
    is not known from that is printed as well.
    """
    if not output.print_for_scripts(shown, document.state.value):
        _print(document.full_revision, _published(document, shown, now), now)


def _published(document: PublishedTask, shown: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return a published task in the form in which a ledger's is printed.

    None is what is not published: who decided by name, the newest token, and what happened.
    """
    found = {
        **structs.asdict(document),
        "children": (),
        "decisions": None,
        "grant": None,
        "due_at": None,
        "uses": (),
        "timeline": None,
        "findings": [(message, "") for message in dict.fromkeys(document.findings)],
        "frozen": None,
        "freeze": shown["freeze"],
        "unread": shown["unread"],
        "because": document.why_denied,
        "next": next_step(document),
        "held_up": document.error.message if document.error else None,
        "source": fallback.facts(document, shown["published"], now),
    }
    if _ends(shown) or fallback.is_past(document.unwrap_until, now):
        found["next"] = None
    return found


def _print(revision: Revision, shown: Mapping[str, Any], now: datetime) -> None:
    console = output.console()
    content = revision.content
    reason = heading_end(shown["end_reason"], shown["ended"])
    if _ends(shown):
        reason.append("(its end is requested, and no worker has acted since)")
    console.print(f"Task {shown['task_id']} is", output.coloured(shown["state"]), *reason)
    output.print_facts(console, _facts(revision, shown, now))
    _print_unread(console, shown["unread"])
    if shown["frozen"]:
        console.print(f"  FROZEN     {shown['frozen']['why']}", style="red")
    for message, origin in shown["findings"]:
        line = output.indented(message, console.width, first="  FINDING    ", rest=" " * 13)
        console.print(line, style="red", soft_wrap=True)
        if origin:
            line = output.indented(origin, console.width, first=" " * 13, rest=" " * 13)
            console.print(line, style="red", soft_wrap=True)
    _print_uses(console, shown["uses"])
    if shown["proof"]:
        print_proof(console, shown["proof"])
    if shown["timeline"] is not None:
        happened = timeline.rows(shown["timeline"], _names(content, shown), requester=content.requester.name)
        print_listing(console, [Column("when (UTC)"), Column("what happened")], happened)


def _ends(shown: Mapping[str, Any]) -> bool:
    """Return whether the end of the task is signed, and no worker has read that."""
    return any(one.kind == "end" for one in shown["unread"])


def _facts(revision: Revision, shown: Mapping[str, Any], now: datetime) -> dict[str, str | None]:
    """Return what is known of a task, by the name of the line."""
    content = revision.content
    return {
        "requester": content.requester.name,
        "agent": content.agent.name,
        "owner": content.owner.name,
        "intent": revision.spec.spec.intent,
        "access": "; ".join(map(chosen, content.access)),
        "delegated by": " → ".join(shown["delegation"]),
        "delegated to": ", ".join(shown["children"]),
        "risk": content.risk,
        "revision": str(content.revision),
        "digest": revision.digest,
        "policy": decision_line(shown["decision"]),
        **_decisions(shown),
        **_waits_for(shown),
        **_freeze(shown),
        **_refused_grant(content, shown),
        **_open_points(content, shown),
        **_token(revision.spec.spec, shown, now),
        **extension.facts(shown),
        "ended": ended_in_full(shown["ended"]),
        "forced": _forced(shown["proof"]),
        "because": shown["because"],
        "next": shown["next"],
        "held up": shown["held_up"],
        **shown["source"],
    }


def _open_points(content: RevisionContent, shown: Mapping[str, Any]) -> dict[str, str]:
    """Return what no check will look at, and for which templates the end will rest on Vault's word.

    A proof says both itself.
    """
    if shown["proof"] is not None or shown["state"] in NEVER_HELD:
        return {}
    unasked = describe_unasked(content.access, shown["decision"].obligations)
    return {"end": "; ".join(unasked), "not proven": "; ".join(unproven(content.access))}


def _token(spec: TaskBody, shown: Mapping[str, Any], now: datetime) -> dict[str, str]:
    """Return what is known of the newest token of a task that has one."""
    facts: dict[str, str] = {}
    if grant := shown["grant"]:
        is_held = shown["state"] in LIVE_STATES
        facts |= _expiry(grant, now, is_held=is_held)
        ttl, requested, step = (in_words(grant[key]) for key in ("ttl_s", "requested_ttl_s", "step_s"))
        facts["ttl"] = f"{ttl} of {requested} {_origin_of_ttl(spec)}, {step} at a time"
        facts["deadline"] = fallback.until(shown["ends_at"], now) if is_held else output.readable(shown["ends_at"])
    if shown["reads"] is not None and (cut := window_cut(spec.window, shown["decision"].obligations)):
        facts["window"] = cut
    if shown["reads"] is not None and shown["state"] in DELIVERED_STATES:
        facts["reads"] = reads_left_in_words(shown["reads"].done, shown["reads"].allowed)
    if until := shown["unwrap_until"]:
        facts["unwrap"] = f"until {fallback.until(until, now, ', or the task ends')}"
    if shown["state"] == State.ENDING and shown["due_at"]:
        facts["tried again"] = f"from {output.readable(shown['due_at'])} on, and by each command on the task"
    return facts


def _origin_of_ttl(spec: TaskBody) -> str:
    """Return whose TTL a task has: the spec's, or its criticality's."""
    return f"by default (criticality {spec.criticality})" if spec.window.ttl is None else "asked for"


def _expiry(grant: Mapping[str, Any], now: datetime, *, is_held: bool) -> dict[str, str]:
    """Return when a token expires if nobody renews it, and the bound that is committed ahead.

    A token that is dead does not expire any more, and one of a task that is not held is not renewed.
    """
    verdict, latest = grant["verdict"], output.readable(grant["expires_at"])
    if verdict in DEAD:
        over = "expired by" if verdict == Verdict.EXPIRED else f"{verdict}, would have expired by"
        return {"token": f"{over} {latest}"}
    unrenewed = grant["expires_unrenewed_at"]
    if unrenewed == grant["expires_at"]:
        return {"token": f"{verdict}, expires by {latest}"}
    unless = " unless a worker renews it" if is_held else ""
    facts = {"token": f"{verdict}, expires by {output.readable(unrenewed)}{unless}"}
    if fallback.is_past(unrenewed, now):
        facts["token"] = f"{verdict} at the last look, expired by {output.readable(unrenewed)}: nobody renewed it"
    if grant["renewed_at"]:
        facts["renewed"] = f"last {output.readable(grant['renewed_at'])}"
    how = "until then renewals may let it live" if is_held else "that it expired by itself is proven after that"
    facts["bound"] = f"{latest}, committed ahead: {how}"
    return facts


def _waits_for(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return whose approval is missing, and the command that gives it."""
    missing = shown["missing"]
    if not missing:
        return {}
    return {"waiting": f"for {missing_approvals(missing)}", "ask": ask_approvers(shown["task_id"], missing)}


def _freeze(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return that a freeze covers the task, and how an operator lifts it."""
    freeze = shown["freeze"]
    if freeze is None:
        return {}
    return {
        "frozen": "by an operator",
        "unfreeze": f"jitvault unfreeze {Scope(**freeze['scope']).options} --reason WHY",
    }


def _refused_grant(content: RevisionContent, shown: Mapping[str, Any]) -> dict[str, str]:
    """Return the last refusal of a task that could be granted otherwise.

    The refusal of an earlier revision says nothing about the present one.
    """
    refusal = shown["refused_grant"]
    if refusal is None or shown["state"] not in ("pending_approval", "approved"):
        return {}
    if refusal.revision != content.revision:
        return {}
    return {"grant refused": f"{output.readable(refusal.at)}: {refusal.error.message}"}


def _decisions(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return the decisions that count, and why others do not."""
    refused = uncounted(shown["refused"])
    if shown["decisions"] is None:
        return {"refused": "; ".join(refused)}
    # RFC 3339 times of one clock: an older one sorts first
    decisions = sorted(shown["decisions"], key=lambda d: str(d.get("counted_at") or ""))
    counted = ", ".join(f"{d['name']}: {d['decision']}{_counted_at(d)}" for d in decisions)
    nobody = "none yet" if shown["missing"] else "none needed or made"
    return {"decisions": "; ".join(filter(None, [counted, *refused])) or nobody}


def _counted_at(decision: Mapping[str, Any]) -> str:
    """Return when a worker counted a decision, where that is known."""
    at = decision.get("counted_at")
    return f" ({output.readable(at)})" if at else ""


def _names(content: RevisionContent, shown: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of entities with a part in the task, by id."""
    counted = {one["entity"]: one["name"] for one in shown["decisions"]}
    refused = {one.entity: one.name for one in shown["refused"]}
    return {**content.names, **counted, **refused}


def _grouped_findings(findings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield each message once, with the first finding that has it.

    The finding's rule and audit line are shown. `--json` shows all findings.
    """
    alike = itemgetter("rule", "message")
    for (rule, message), same in groupby(sorted(findings, key=alike), key=alike):
        first, *more = same
        line = f", line {first['line'][:16]}, request {first['request_id']}" if first["line"] else ""
        alike_too = f", and {len(more)} more like it" if more else ""
        yield message, f"{rule}{line}{alike_too}{_closed((first, *more))}"


def _closed(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return who closed the findings last, if nobody left one open."""
    closings = [each["closed"] for each in findings]
    if not all(closings):
        return ""
    last = max(closings, key=itemgetter("at"))
    return f"; closed {output.readable(last['at'])} by {last['by'] or 'somebody'}: {last['why']}"


def _forced(proof: Proof | None) -> str:
    """Return who closed the task without proof and why, empty if nobody did."""
    return f"by {proof.forced.name}: {proof.forced.reason}" if proof and proof.forced else ""


def ended_in_full(ended: Ended | None) -> str:
    """Return when a task ended, by whom and why, empty before its end."""
    if ended is None:
        return ""
    author = f" by {ended.name}" if ended.name else ""
    words = next((words for known, words in _ENDED.items() if known == ended.reason), "")
    # the note of a freeze is why somebody froze, which is no reason of this task
    why = ended.note if ended.reason != EndReason.FROZEN else ": ".join(filter(None, (words, ended.note)))
    return ": ".join(filter(None, (f"{output.readable(ended.at)}{author}", why or words)))


def _print_unread(console: Console, unread: Sequence[UnreadDocument]) -> None:
    """Print what people signed and no worker has read."""
    for one in unread:
        signed = f"{_SIGNED[one.kind]} by {one.by} at {output.readable(one.at)}, waits for a worker"
        line = ": ".join(filter(None, (signed, one.note)))
        console.print(output.indented(line, console.width), style="yellow", soft_wrap=True)


def _print_uses(console: Console, uses: Sequence[Mapping[str, Any]]) -> None:
    """Print what the task's tokens did, by the audit stream."""
    for use in uses[:_MOST_USES]:
        act = use["act"].replace("_", " ")
        times = "" if use["count"] == 1 else f" {use['count']} times"
        line = f"  {act:<15}{use['path']}{times} from {', '.join(use['addresses'])}"
        console.print(line, soft_wrap=True)
    if len(uses) > _MOST_USES:
        console.print(f"  … and {len(uses) - _MOST_USES} more; --json has all")
