"""`jitvault status`: everything that is known of one task.

It comes from the ledger, or from what a worker published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

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
    not_proven,
    print_decision,
    print_proof,
    uncounted,
)
from jitvault.cli.views.task_list import who_lifts
from jitvault.documents.published_task import PublishedTask
from jitvault.model.revision import names_in
from jitvault.model.revision_text import describe_unasked
from jitvault.model.states import DEAD, DELIVERED_STATES, EndReason, Verdict
from jitvault.model.token_limits import reads_left_in_words
from jitvault.model.verifiers import unproven

_MOST_USES = 12
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


def print_status(shown: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a task as the ledger has it.

    `shown` is what `status_of` gives, with `missing` and `end_requested`.
    """
    if output.print_for_scripts(shown, shown["state"], as_json=as_json):
        return

    console = output.console()
    content = shown["revision"]["content"]
    reason = heading_end(shown["end_reason"], shown["ended"])
    console.print(f"Task {shown['task_id']} is", output.coloured(shown["state"]), *reason)
    facts: dict[str, str] = {
        "requester": content["requester"]["name"],
        "agent": content["agent"]["name"],
        "owner": content["owner"]["name"],
        "intent": content["spec"]["spec"]["intent"],
        **_access(content),
        **_family(shown),
        "risk": content["risk"],
        "revision": str(shown["revision"]["number"]),
        "digest": shown["digest"],
        "policy": decision_line(shown["decision"]),
        "decisions": _decisions(shown) or ("none yet" if shown["missing"] else "none needed or made"),
        **_waits_for(shown),
        **_freeze(shown),
        **_refused_grant(shown),
    }
    facts |= _unasked(content["access"], shown["decision"], shown["proof"])
    if shown["proof"] is None and shown["state"] not in NEVER_HELD:
        open_points = unproven(content["access"])
        if open_points:
            facts["not proven"] = "; ".join(open_points)
    if shown["grant"]:
        grant = shown["grant"]
        facts["token"] = f"{grant['verdict']}, {_expires(grant['verdict'])} {output.readable(grant['expires_at'])}"
        ttl, requested, step = (in_words(grant[key]) for key in ("ttl_s", "requested_ttl_s", "step_s"))
        facts["ttl"] = f"{ttl} of {requested} {_origin_of_ttl(content['spec']['spec'])}, {step} at a time"
        facts |= _window_cut(content["spec"]["spec"]["window"], shown["decision"])
        if shown["state"] in DELIVERED_STATES:
            facts["reads"] = reads_left_in_words(**shown["reads"])
        facts |= _unwrap_until(shown)
        facts["deadline"] = output.readable(shown["ends_at"])
        facts |= extension.facts(shown)
    facts |= _end_facts(shown)
    if shown["state"] == "ending" and shown["due_at"]:
        facts["tried again"] = f"from {output.readable(shown['due_at'])} on, and by each command on the task"
    output.print_facts(console, facts)
    _print_end_requests(console, shown["end_requested"])
    if shown["frozen"]:
        console.print(f"  FROZEN     {shown['frozen']['why']}", style="red")
    for message, origin in _grouped_findings(shown["findings"]):
        _print_finding(console, message)
        console.print(f"             {origin}", style="red", soft_wrap=True)
    _print_uses(console, shown["uses"])
    if shown["proof"]:
        print_proof(console, shown["proof"], shown["proof"]["not_proven"])
    happened = timeline.rows(shown["timeline"], _names(shown), requester=content["requester"]["name"])
    print_listing(console, [Column("when (UTC)"), Column("what happened")], happened)


def _origin_of_ttl(spec: Mapping[str, Any]) -> str:
    """Return whose TTL a task has: the spec's, or its criticality's."""
    return "asked for" if "ttl" in spec["window"] else f"by default (criticality {spec['criticality']})"


def _window_cut(window: Mapping[str, str], decision: Mapping[str, Any]) -> dict[str, str]:
    cut = window_cut(window, decision)
    return {"window": cut} if cut else {}


def _access(content: Mapping[str, Any]) -> dict[str, str]:
    """Return what the task has access to, by its revision's content."""
    return {"access": "; ".join(map(chosen, content["access"]))}


def _unasked(
    access: Sequence[Mapping[str, Any]], decision: Mapping[str, Any], proof: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return for which templates the end will rest on Vault's word, and why.

    A proof says itself what no target was asked about.
    """
    reasons = describe_unasked(access, decision) if proof is None else ()
    return {"end": "; ".join(reasons)} if reasons else {}


def _expires(verdict: str) -> str:
    """Return how the time of a token's expiry is announced.

    A token that is dead does not expire any more.
    """
    if verdict == Verdict.EXPIRED:
        return "expired"
    return "would have expired" if verdict in DEAD else "expires"


def _waits_for(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return whose approval is missing, and the command that gives it."""
    missing = shown["missing"]
    if not missing:
        return {}
    return {"waiting": f"for {missing_approvals(missing)}", "ask": ask_approvers(shown["task_id"], missing)}


def _unwrap_until(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return until when the token of an issued task has to be unwrapped."""
    until = shown["unwrap_until"]
    return {"unwrap": f"until {output.readable(until)}, or the task ends"} if until else {}


def _freeze(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return who can lift the operator's freeze that covers the task."""
    freeze = shown["freeze"]
    return {"frozen": who_lifts(freeze["scope"])} if freeze is not None else {}


def _refused_grant(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return the last refusal of a task that could be granted otherwise.

    The refusal of an earlier revision says nothing about the present one.
    """
    refusal = shown["refused_grant"]
    if refusal is None or shown["state"] not in ("pending_approval", "approved"):
        return {}
    revision = shown["revision"]
    number = revision["number"] if isinstance(revision, Mapping) else revision
    if refusal.get("revision", number) != number:
        return {}
    return {"grant refused": f"{output.readable(refusal['at'])}: {refusal['error']['message']}"}


def _decisions(shown: Mapping[str, Any]) -> str:
    """Return the decisions that count, and why others do not."""
    refused = shown["refused"]
    # RFC 3339 times of one clock: an older one sorts first
    decisions = sorted(shown["decisions"], key=lambda d: str(d.get("counted_at") or ""))
    counted = [f"{d['name']}: {d['decision']}{_counted_at(d)}" for d in decisions]
    return "; ".join([", ".join(counted), *uncounted(refused)] if counted else uncounted(refused))


def _counted_at(decision: Mapping[str, Any]) -> str:
    """Return when a worker counted a decision, where that is known."""
    at = decision.get("counted_at")
    return f" ({output.readable(at)})" if at else ""


def _names(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of entities with a part in the task, by id."""
    decided = [*shown["decisions"], *shown["refused"]]
    return {**names_in(shown["revision"]["content"]), **{one["entity"]: one["name"] for one in decided}}


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


def _end_facts(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return who ended the task and who closed it without proof.

    It says when and why, as far as that has happened.
    """
    facts: dict[str, str] = {}
    ended = shown["ended"]
    forced = (shown["proof"] or {}).get("forced")
    if ended:
        facts["ended"] = ended_at(ended["at"], ended["name"], ended["reason"], ended["note"])
    if forced:
        facts["forced"] = f"by {forced['name']}: {forced['reason']}"
    return facts


def ended_at(at: str, name: str | None, reason: str, note: str) -> str:
    """Return when a task ended, by whom and why."""
    author = f" by {name}" if name else ""
    words = next((words for known, words in _ENDED.items() if known == reason), "")
    # the note of a freeze is why somebody froze, which is no reason of this task
    why = note if reason != EndReason.FROZEN else ": ".join(filter(None, (words, note)))
    return ": ".join(filter(None, (f"{output.readable(at)}{author}", why or words)))


def _family(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return the task's ancestors and children, where it has any."""
    facts: dict[str, str] = {}
    if shown["delegation"]:
        facts["delegated by"] = " → ".join(shown["delegation"])
    if shown["children"]:
        facts["delegated to"] = ", ".join(shown["children"])
    return facts


def _print_end_requests(console: Console, requests: Sequence[Mapping[str, Any]]) -> None:
    """Print who requested the end, while no worker has acted on that."""
    for request in requests:
        why = f": {request['note']}" if request["note"] else ""
        line = f"  end requested by {request['by']} at {output.readable(request['at'])}, waits for a worker{why}"
        console.print(line, style="yellow", soft_wrap=True)


def _print_finding(console: Console, message: str) -> None:
    line = output.indented(message, console.width, first="  FINDING    ", rest=" " * 13)
    console.print(line, style="red", soft_wrap=True)


def _print_uses(console: Console, uses: Sequence[Mapping[str, Any]]) -> None:
    """Print what the task's tokens did, by the audit stream."""
    for use in uses[:_MOST_USES]:
        act = use["act"].replace("_", " ")
        times = "" if use["count"] == 1 else f" {use['count']} times"
        line = f"  {act:<15}{use['path']}{times} from {', '.join(use['addresses'])}"
        console.print(line, soft_wrap=True)
    if len(uses) > _MOST_USES:
        console.print(f"  … and {len(uses) - _MOST_USES} more; --json has all")


def print_published(document: PublishedTask, shown: Mapping[str, Any], now: datetime, *, as_json: bool) -> None:
    """Print a task as a worker published it, where there is no ledger.

    `shown` is the document as JSON data, with its source and with who requested its end. What is not known from that
    is printed as well.
    """
    if output.print_for_scripts(shown, document.state.value, as_json=as_json):
        return
    held_up = {"held up": document.error.message} if document.error else {}
    unproven = not_proven(document)
    open_points = {"not proven": "; ".join(unproven)} if unproven and document.proof is None else {}
    reads: dict[str, str] = {}
    if document.reads is not None and document.state in DELIVERED_STATES:
        reads["reads"] = reads_left_in_words(**document.reads)
    window = document.full_revision.spec.spec.window.canonical()
    access, held = document.full_revision.access, document.state not in NEVER_HELD
    unasked = _unasked(access, document.decision, document.proof) if held else {}
    facts = {
        **_access(document.full_revision.content),
        **unasked,
        **reads,
        **(_window_cut(window, document.decision) if document.grant_id else {}),
        **_unwrap_until(shown),
        **extension.facts(shown),
        **_freeze(shown),
        **_refused_grant(shown),
        **_end_facts(shown),
        **held_up,
        **open_points,
        **fallback.facts(document, shown["published"], now),
    }
    # one table: its names are as wide in both halves
    least = max(len("missing"), *map(len, facts))
    print_decision(document, as_json=False, is_status=True, least=least)
    console = output.console()
    output.print_facts(console, facts, least=least)
    _print_end_requests(console, shown["end_requested"])
    for message in dict.fromkeys(document.findings):
        _print_finding(console, message)
    if document.proof is not None:
        print_proof(console, document.proof, unproven)
