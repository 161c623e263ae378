"""What an approver decides about, as names and values.

Everything is taken from the bytes whose digest is signed, and from what a worker published beside them. No value is
laid out here: `jitvault.cli.views.proposal` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jitvault.cli.views.output import pairs
from jitvault.cli.views.policy import obligation_facts
from jitvault.cli.views.proposal_sentence import chosen, quoted, utc, word
from jitvault.cli.views.task import missing_approvals
from jitvault.formats.time_window import format_duration
from jitvault.lifecycle.decision.pending_approvals import ApprovalSubject
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access
from jitvault.model.revision_text import describe_unasked, is_asked
from jitvault.model.scope import Scope
from jitvault.model.states import State
from jitvault.model.ttl import DEFAULT_TTLS, least
from jitvault.model.verifiers import describe_acceptance, unproven_sessions
from jitvault.policy.decision import Level, Obligations

RISK_STYLES = {"low": "green", "medium": "yellow", "high": "red", "critical": "bold red"}


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and its value; `style` is one of Rich's."""

    name: str
    value: str
    style: str = ""


def asked(revision: Revision) -> list[Fact]:
    """Return what is asked for and by whom, in the order of the table."""
    content = revision.content
    body = revision.spec.spec
    tiers = ", ".join(sorted({entry.tier for entry in revision.access}))
    risk = content.risk
    facts = [Fact(part, word(getattr(content, part).name)) for part in ("requester", "agent", "owner")]
    if revision.delegation:
        facts.append(Fact("delegation", _delegation(revision)))
    facts += [
        Fact("access", "; ".join(chosen(entry) for entry in revision.access)),
        Fact("risk", f"{risk} (criticality {body.criticality}, template {tiers})", RISK_STYLES.get(risk, "")),
        Fact("window", _window(revision)),
        Fact("network", f"{body.network} ({', '.join(content.cidrs)})" if body.network else "any"),
    ]
    return facts


def more_time(subject: ApprovalSubject) -> list[Fact]:
    """Return by how much the deadline is to move, and who asks for it.

    Nothing is returned for a task's revision.
    """
    extension = subject.extension
    if extension is None:
        return []
    whole = format_duration(timedelta(seconds=extension.window_s))
    until = f"until {utc(extension.until)} instead of {utc(extension.since)}, {whole} in all"
    return [Fact("more time", until), Fact("asked by", word(extension.by.name))]


def open_questions(subject: ApprovalSubject) -> list[Fact]:
    """Return who else has to approve, and until when the request stands."""
    return [Fact("approvals", _approvals(subject)), Fact("stands", _stands(subject))]


def freeze(frozen: Mapping[str, Any] | None) -> list[Fact]:
    """Return that the task is frozen, since when and why.

    An approval counts under a freeze as well, and nothing is granted by it until the freeze is lifted.
    """
    if frozen is None:
        return []
    by = {"operator": "by an operator", "tripwire": "by a tripwire"}.get(frozen["kind"], "")
    what = " ".join(filter(None, (str(Scope(**frozen["scope"])), by)))
    since = utc(datetime.fromisoformat(frozen["at"]))
    why = f"{quoted(frozen['reason'])}, {what} since {since}; granted only when that is lifted"
    return [Fact("FROZEN", why, "red")]


def terms(revision: Revision, obligations: Obligations) -> list[Fact]:
    """Return on which terms the access is held, by the spec and its templates."""
    body = revision.spec.spec
    facts = [fact for entry in revision.access for fact in _access(entry, is_only=len(revision.access) == 1)]
    facts.append(Fact("life", _life(revision)))
    if body.window.heartbeat is not None:
        silent = format_duration(body.window.heartbeat)
        facts.append(Fact("heartbeat", f"it ends when its token does nothing for {silent}"))
    facts.append(Fact("delivery", f"to the {body.deliver}, in a wrapping that works once"))
    if any(is_asked(entry, obligations) for entry in revision.access):
        facts.append(Fact("proof", "of its end by the target"))
    facts += [Fact("end", reason) for reason in describe_unasked(revision.access, obligations)]
    return [*facts, *(Fact("not proven", f"for {limit}") for limit in unproven_sessions(revision.access))]


def policy(subject: ApprovalSubject) -> list[Fact]:
    """Return what policy decided, by which rules, and what it limits.

    The approvals that it needs are among the open questions.
    """
    decision = subject.decision
    limits = obligation_facts(decision.obligations)
    limits.pop("needs", None)
    facts = [
        Fact("policy", "; ".join(decision.reasons)),
        Fact("rules", ", ".join(decision.rules) or "none permits it"),
        Fact("limits", "; ".join(f"{name} {limit}" for name, limit in limits.items())),
    ]
    return [fact for fact in facts if fact.value]


def own_words(revision: Revision) -> list[Fact]:
    """Return what the requester wrote, which nobody has checked."""
    spec = revision.spec
    facts = [Fact("intent", spec.spec.intent)]
    is_only = len(spec.spec.access) == 1
    for entry in spec.spec.access:
        if entry.reason:
            facts.append(Fact("reason", entry.reason if is_only else f"for {entry.template}: {entry.reason}"))
    if spec.spec.tools:
        facts.append(Fact("tools", ", ".join(spec.spec.tools)))
    if spec.metadata.labels:
        facts.append(Fact("labels", pairs(spec.metadata.labels)))
    return facts


def _delegation(revision: Revision) -> str:
    above = (f"{word(link.task)} of {word(link.agent.name)}" for link in revision.delegation)
    return f"{' → '.join(above)} → this task, which ends with each of them"


def _access(entry: Access, *, is_only: bool) -> list[Fact]:
    """Return the terms of one access.

    The description of the only one is in the sentence above.
    """
    facts = [] if is_only else [Fact("access", chosen(entry)), Fact("allows", quoted(entry.description))]
    leases = entry.lease_budget
    budget = "one lease" if leases == 1 else f"{leases} leases"
    facts.append(Fact("credential", f"from {entry.path}, {budget} at most"))
    if entry.connection is not None:
        facts.append(Fact("used at", entry.connection.in_words()))
    if entry.capability == "update":
        facts.append(Fact("sends", f"exactly {pairs(entry.data) or 'nothing'}"))
    if (after_s := entry.accepted_after_end_s) is not None:
        facts.append(Fact("after it", describe_acceptance(after_s, entry.ttl_s)))
    return facts


def _window(revision: Revision) -> str:
    """Return the window with the longest one that the templates allow."""
    window = revision.window
    if window.for_ is not None:
        length = f"{format_duration(window.for_)} from the moment it is granted"
    else:
        length = f"until {utc(window.until)}" if window.until else ""
    if window.not_before is not None:
        length += f", not before {utc(window.not_before)}"
    longest = min((entry.max_window_s for entry in revision.access), default=None)
    if longest is not None:
        length += f" (template: at most {format_duration(timedelta(seconds=longest))})"
    return length


def _life(revision: Revision) -> str:
    """Return how long a credential lives without a renewal.

    It says where that is not what the template or the criticality gives by default.
    """
    body = revision.spec.spec
    by_template = min((entry.ttl_s for entry in revision.access), default=None)
    life = least(revision.requested_ttl_s, by_template)
    length = body.window.for_
    if length is not None and length <= timedelta(seconds=life):
        # nothing outlives its window, and nothing is renewed in it
        return f"{format_duration(length)} at most, as long as its window"
    found = f"{format_duration(timedelta(seconds=life))} at most without a renewal"
    default = DEFAULT_TTLS[Level(body.criticality)]
    if body.window.ttl is not None and body.window.ttl != default:
        found += f"; the requester chose it, criticality {body.criticality} gives {format_duration(default)}"
    if by_template is not None and by_template != life:
        found += f" (template: {format_duration(timedelta(seconds=by_template))})"
    return found


def _approvals(subject: ApprovalSubject) -> str:
    needed = sum(each.count for each in subject.obligations.approvals)
    if not subject.decision.permitted:
        return "policy denies it, whoever approves"
    if not needed:
        return "none needed"
    missing = sum(each.count for each in subject.missing)
    given = f"{max(0, needed - missing)} of {needed} given"
    return f"{given}; missing: {missing_approvals(subject.missing)}" if subject.missing else given


def _stands(subject: ApprovalSubject) -> str:
    """Return until when the request can be decided about."""
    if subject.extension is not None:
        return f"until {utc(subject.extension.since)}, when the task ends without it"
    has_end, until = subject.revision.window.until is not None, subject.document.stands_until
    if subject.document.state == State.LAPSED:
        return f"no longer: {'its window is over' if has_end else 'it was not granted in time'}"
    if until is None:
        return "until it is decided or cancelled"
    return f"until {utc(until)}, when {'its window is over' if has_end else 'it lapses'}"
