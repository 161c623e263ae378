"""Checks of what decides about a grant.

These are the policy set, templates with their checks, and the probes' logins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jitvault.doctor.check import Ability, About, Check, Known, Unknown
from jitvault.errors import InvalidInput, NotConfirmed
from jitvault.formats.plural import counted, listed
from jitvault.model.ledger_facts import LastDecision

_GRANT = frozenset({Ability.GRANT})
OLD_CHECK = timedelta(days=90)
OLD_CREDENTIAL = timedelta(days=90)

POLICIES = About("policies", "set", InvalidInput, _GRANT)
RUNNING = About("policies", "in use", InvalidInput)
TEMPLATES = About("templates", "granted", InvalidInput, _GRANT)
TEMPLATE = About("templates", "", InvalidInput)
PUBLISHED = About("templates", "published", InvalidInput)
PROBE = About("probes", "", NotConfirmed, frozenset({Ability.PROVE}))

_ASK_AS_WORKER = "Run the command where the worker's identity is set, or set JITVAULT_ADMIN_TOKEN."


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policy set on this disk: its digest, and unreachable rules.

    `why` says why the set does not validate, and is empty where it does.
    """

    digest: str = ""
    rules: int = 0
    idle: Sequence[str] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class TemplateState:
    """Whether tasks are granted by a template.

    `why_not` says why none is, and is None where they are. `checked_at` is the oldest result of its paths. An `exempt`
    template has no check. `seen` says that the engine's role and the probe were compared with the record as well.
    `mend` is what has to be done before a check where a check would fail for the same reason. `remarks` are those of
    a passed check.
    """

    name: str
    why_not: str | None
    failed: bool
    exempt: bool
    checked_at: datetime | None
    seen: bool
    mend: str = ""
    remarks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ProbeLogin:
    """A probe's own login at its target.

    `rights` are what it may do, `excess` are rights that no probe needs, and `lacking` those that it needs.
    """

    name: str
    mounts: Sequence[str]
    role: str
    rights: Sequence[str]
    excess: Sequence[str]
    lacking: Sequence[str]
    written_at: datetime


def judge_policies(found: PolicySet, last: Known[LastDecision | None]) -> Iterator[Check]:
    if found.why:
        yield POLICIES.fail(
            found.why, "Correct it (`jitvault policy check`), then send SIGHUP to the worker, which reads it again."
        )
    elif found.idle:
        yield POLICIES.warn(f"{found.digest}: {listed(found.idle)} decide nothing", "`jitvault policy check` says why.")
    else:
        yield POLICIES.ok(f"{found.digest}, {counted(found.rules, 'rule')}")
    if isinstance(last, Unknown):
        yield RUNNING.skipped(last)
    elif last is None:
        yield RUNNING.skipped(
            Unknown("no task was decided about yet", "Submit a task, or run `jitvault policy explain SPEC`.")
        )
    elif last.digest == found.digest:
        yield RUNNING.ok(f"the newest decision ({last.task_id}) was made by this set")
    else:
        yield RUNNING.warn(
            f"the newest decision ({last.task_id}, {_when(last.at)}) was made by another set, {last.digest}",
            "A running worker keeps the last valid set. Send SIGHUP to it once the set on disk is the one to use.",
        )


def judge_templates(found: Known[Sequence[TemplateState]], now: datetime) -> Iterator[Check]:
    """Yield whether any template can be granted, and a check for each."""
    if isinstance(found, Unknown):
        yield TEMPLATES.skipped(found)
        return
    granted = [template for template in found if template.why_not is None]
    if any(template.seen for template in granted):
        yield TEMPLATES.ok(f"{len(granted)} of {len(found)} are granted")
    elif granted:
        yield TEMPLATES.skipped(Unknown("their checks were not compared with the engines", _ASK_AS_WORKER))
    else:
        yield TEMPLATES.fail("nothing is granted by any template", "Run `jitvault templates check NAME`.")
    for template in found:
        yield _template(template, now)


def judge_published(is_own: Known[bool]) -> Iterator[Check]:
    """Yield a warning where agents see other templates than those here."""
    if is_own is False:
        yield PUBLISHED.warn(
            "agents are offered other templates than those here, which another worker published",
            "Give all workers the same files, then send each SIGHUP.",
        )


def _template(template: TemplateState, now: datetime) -> Check:
    about = TEMPLATE.named(template.name)
    if template.failed:
        mend = template.mend or f"`jitvault templates check {template.name}` says what to repair."
        return about.fail(f"not granted: {template.why_not}", mend)
    if template.why_not:
        mend = template.mend or f"An administrator runs `jitvault templates check {template.name}`."
        return about.warn(f"not granted: {template.why_not}", mend)
    if template.exempt:
        return about.ok("granted; an end is revoked at Vault, and the target is not asked: the template says why")
    passed = "; ".join((f"its check passed {_ago(now, template.checked_at)}", *template.remarks))
    if not template.seen:
        why = f"by its record {passed}; whether the engine's role has changed since was not checked"
        return about.skipped(Unknown(why, _ASK_AS_WORKER))
    if template.checked_at and now - template.checked_at > OLD_CHECK:
        return about.warn(passed, f"The target may have changed since: run `jitvault templates check {template.name}`.")
    return about.ok(passed)


def judge_probes(found: Known[Sequence[tuple[str, Known[ProbeLogin]]]], now: datetime) -> Iterator[Check]:
    """Yield a check for each probe's login.

    These are the only standing credentials that jitvault has.
    """
    if isinstance(found, Unknown):
        yield PROBE.named("all").skipped(found)
        return
    for name, standing in found:
        about = PROBE.named(name)
        # the reason is one of jitvault's own texts, and never contains the probe's document
        yield about.fail(standing.why, standing.mend) if isinstance(standing, Unknown) else _probe(about, standing, now)
    if not found:
        yield PROBE.named("all").ok("no template has one")


def _probe(about: About, login: ProbeLogin, now: datetime) -> Check:
    rights = listed(login.rights, 6) or "nothing but to log in"
    seen = f"for {listed(login.mounts)}: {login.role}, may {rights}; written {_ago(now, login.written_at)}"
    if login.lacking:
        return about.fail(
            f"{seen}; it lacks {listed(login.lacking)}", "Grant it: without it nothing is proven by the target."
        )
    if login.excess:
        return about.warn(f"{seen}; no probe needs {listed(login.excess, 6)}", "Revoke these rights at the target.")
    if now - login.written_at > OLD_CREDENTIAL:
        return about.warn(seen, f"Rotate the login, and write the new one to jitvault/probes/{login.name}.")
    return about.ok(seen)


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _ago(now: datetime, at: datetime | None) -> str:
    if at is None:
        return "at an unknown time"
    days = (now - at) // timedelta(days=1)
    return f"{days} days ago" if days > 1 else _when(at)
