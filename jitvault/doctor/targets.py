"""Checks of what lets a credential escape revocation.

It can do so at templates' targets, and by agents' own tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jitvault.doctor.check import Ability, About, Check, Known, Unknown
from jitvault.engines.interface import Finding
from jitvault.errors import NotConfirmed, VaultRefused
from jitvault.formats.plural import listed

TARGET = About("targets", "", NotConfirmed, frozenset({Ability.PROVE}))
WARNED = About("targets", "", NotConfirmed)
AGENTS = About("identity", "agents' tokens", VaultRefused)
LOGINS = About("targets", "logins by certificate", VaultRefused)
_CA_ALONE = (
    "A token of such a login outlives the certificate and its task. Issue agents' certificates from a CA that nothing "
    "else trusts, or remove the entry. `jitvault templates check` shows whether it accepts them by their names."
)
_DEFAULT = (
    "Log agents in without Vault's `default` policy (token_no_default_policy=true): it lets its holder look up every "
    "lease and, but for what jitvault-agent denies, renew it."
)


@dataclass(frozen=True, slots=True)
class Target:
    """What was found at one target: templates that share connection and probe."""

    templates: Sequence[str]
    findings: Known[Sequence[Finding]]


@dataclass(frozen=True, slots=True)
class AgentLogins:
    """The logins of agents.

    `given` are those that give the `default` policy, `seen` is how many were read. `unread` are auth methods that only
    their own administrator can read, or of a kind that jitvault does not know.
    """

    given: Sequence[str]
    seen: int
    unread: Sequence[str]


def judge_targets(found: Known[Sequence[Target]]) -> Iterator[Check]:
    """Yield a check for each finding, and one for each target without any."""
    if isinstance(found, Unknown):
        yield TARGET.named("all").skipped(found)
        return
    for target in found:
        yield from _target(target)
    if not found:
        yield TARGET.named("all").ok("no template has a target where an agent could resist revocation")


def _target(target: Target) -> Iterator[Check]:
    name = listed(target.templates)
    if isinstance(target.findings, Unknown):
        # that a probe cannot ask its target is reported by the check of the probes
        yield TARGET.named(name).skipped(target.findings)
        return
    for finding in target.findings:
        title = f"{name}: {finding.about}"
        if finding.certain:
            yield TARGET.named(title).fail(finding.seen, finding.mend)
        else:
            yield WARNED.named(title).warn(finding.seen, finding.mend)
    if not target.findings:
        yield TARGET.named(name).ok(
            "every standby is named, waits are bounded, and no stronger login runs what a task's could write"
        )


def judge_agents(found: Known[AgentLogins]) -> Check:
    """Judge whether agents' own tokens get Vault's `default` policy.

    Only the auth methods are looked at.
    """
    if isinstance(found, Unknown):
        return AGENTS.skipped(found)
    if found.given:
        return AGENTS.warn(f"logins that give `default`: {listed(found.given)}", _DEFAULT)
    if found.unread:
        return AGENTS.warn(
            f"whether tokens from {listed(found.unread)} have `default` could not be read",
            f"Check these auth methods yourself. {_DEFAULT}",
        )
    return AGENTS.ok(f"none of {found.seen} logins gives `default`")


def judge_logins(found: Known[Mapping[str, Sequence[str]]]) -> Check:
    """Judge whether Vault may accept certificates as a login.

    `found` has templates by the entry that trusts them.
    """
    if isinstance(found, Unknown):
        return LOGINS.skipped(found)
    if found:
        entries = (f"{entry} trusts the CA of {listed(templates)}" for entry, templates in sorted(found.items()))
        return LOGINS.warn("; ".join(entries), _CA_ALONE)
    return LOGINS.ok("no cert auth method of this namespace trusts the CA of a template")
