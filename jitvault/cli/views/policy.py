"""Policy decisions in words, for `policy explain`, approvers and `status`."""

from __future__ import annotations

from datetime import timedelta

from jitvault.formats.plural import counted
from jitvault.formats.time_window import format_duration
from jitvault.model.spec import WindowFields
from jitvault.policy.decision import Decision, Obligations, ProofLevel


def obligation_facts(obligations: Obligations) -> dict[str, str]:
    """Return the obligations of a decision as facts to print.

    Empty where there are none.
    """
    needed = [f"{counted(each.count, 'approval')} by {each.group}" for each in obligations.approvals]
    facts = {"needs": " and ".join(needed)}
    for name, seconds in (("token", obligations.max_ttl_s), ("window", obligations.max_window_s)):
        if seconds is not None:
            facts[name] = f"{format_duration(timedelta(seconds=seconds))} at most"
    if obligations.confirm is ProofLevel.TARGET:
        facts["proof"] = "by the target"
    facts["notified"] = ", ".join(obligations.notify)
    return {name: value for name, value in facts.items() if value}


def window_cut(window: WindowFields, obligations: Obligations) -> str:
    """Return how policy cut the window that a spec asked for.

    `window` is the spec's. Empty where nothing was cut, or the spec names the end and not the length.
    """
    most_s = obligations.max_window_s
    if most_s is None or window.for_ is None:
        return ""
    most = timedelta(seconds=most_s)
    return f"{format_duration(most)} of {format_duration(window.for_)} asked for (policy)" if window.for_ > most else ""


def decision_line(decision: Decision) -> str:
    """Return a decision in one line.

    The line has its rules, their reasons and their obligations.
    """
    parts = ["; ".join(decision.reasons)]
    parts += [f"{name} {what}" for name, what in obligation_facts(decision.obligations).items()]
    explanation = "; ".join(part for part in parts if part)
    rules = ", ".join(decision.rules) or "no rule permits it"
    return f"{rules}: {explanation}" if explanation else rules
