"""Checks of the person's and the worker's identity.

The worker's token has to have its one policy and no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from jitvault.doctor.check import EVERYTHING, Ability, About, Check, Known, Unknown
from jitvault.errors import VaultRefused
from jitvault.formats.plural import listed
from jitvault.formats.time_window import format_duration
from jitvault.model.vault_access import OPERATOR_POLICY, WORKER_POLICY, WORKER_RIGHTS_MEND

SOON = timedelta(hours=1)

PERSON = About("identity", "person", VaultRefused)
SIGNING_KEY = About("identity", "person's signing key", VaultRefused, frozenset({Ability.GRANT}))
PEOPLE = About("identity", "people", VaultRefused)
TOKEN = About("identity", "worker token", VaultRefused, EVERYTHING)
POLICIES = About("identity", "worker policies", VaultRefused, EVERYTHING)
ENTITY = About("identity", "worker entity", VaultRefused)
RIGHTS = About("identity", "worker rights", VaultRefused, EVERYTHING)

NO_WORKER = Unknown(
    "the worker's identity is not here",
    "Run the command where the worker runs, or set JITVAULT_WORKER_TOKEN or JITVAULT_WORKER_LOGIN.",
)


LOG_IN = "Log in as the worker again: its token has expired, was revoked, or its entity is disabled."


@dataclass(frozen=True, slots=True)
class Refused:
    """Vault no longer knows the token, or refuses it."""

    why: str


@dataclass(frozen=True, slots=True)
class Holder:
    """What Vault says of a token.

    `ttl` is None for a token that does not expire, `enabled` (of its entity) None where that could not be read.
    """

    name: str
    entity_id: str
    policies: frozenset[str]
    ttl: timedelta | None
    renewable: bool
    enabled: bool | None
    entity_name: str = ""


def judge_person(person: Known[Holder | Refused]) -> Check:
    if isinstance(person, Unknown):
        return PERSON.skipped(person)
    if isinstance(person, Refused):
        return PERSON.fail(person.why, "Log in again: `bao login`.")
    if not person.entity_id:
        return PERSON.warn(
            f"{person.name} belongs to no entity: it can read, but sign nothing", "`bao login -method=…`"
        )
    return PERSON.ok(f"{person.name}, {_remaining(person)}")


def judge_signing_key(person: Known[Holder | Refused], has_key: Known[bool]) -> Iterator[Check]:
    """Say that an operator cannot sign what they ask for.

    Nothing where nobody could look, or they are none.
    """
    if not isinstance(person, Holder) or OPERATOR_POLICY not in person.policies or isinstance(has_key, Unknown):
        return
    if has_key:
        yield SIGNING_KEY.ok("there is one")
    else:
        yield SIGNING_KEY.fail(
            f"{person.name} is an operator and has no key to sign with, so none of their requests is granted",
            "An administrator runs `jitvault init` again: it creates a key for each member of the groups.",
        )


def judge_people(person_key: str) -> Check:
    """Return how people are told apart.

    Nothing in Vault shows that two entities are one person.
    """
    if person_key:
        return PEOPLE.ok(f"identified by their entities' metadata {person_key}")
    return PEOPLE.warn(
        "identified by entity alone: a person with two entities can approve their own request",
        "Name the person of each entity in its metadata, and the key in JITVAULT_PERSON_KEY (docs/approvals.md).",
    )


def judge_worker(worker: Known[Holder | Refused], login: str | None = None) -> Iterator[Check]:
    """Judge the worker's identity.

    `login` is the method by which it logs in, None for a token that was given to it.
    """
    if isinstance(worker, Unknown):
        yield from (about.skipped(worker) for about in (TOKEN, POLICIES, ENTITY))
        return
    if isinstance(worker, Refused):
        yield TOKEN.fail(worker.why, LOG_IN)
        refused = Unknown("Vault refuses the worker's token", "Repair `worker token` first.")
        yield from (about.skipped(refused) for about in (POLICIES, ENTITY))
        return
    yield _token(worker, login)
    yield _policies(worker.policies)
    yield _entity(worker)


def judge_rights(lacking: Known[Sequence[str]]) -> Check:
    """Judge what the worker's token may do at each path of its policy.

    `lacking` are the rights that it does not have.
    """
    if isinstance(lacking, Unknown):
        return RIGHTS.skipped(lacking)
    if lacking:
        return RIGHTS.fail(f"its token lacks {listed(lacking, 4)}", WORKER_RIGHTS_MEND)
    return RIGHTS.ok("its token may do all that the policy is for")


def _token(worker: Holder, login: str | None) -> Check:
    if login is not None:
        lives = f"; its token lives {format_duration(worker.ttl)}" if worker.ttl is not None else ""
        return TOKEN.ok(f"it logs in by {login}, and again by itself{lives}")
    if worker.ttl is not None and worker.ttl < SOON:
        return TOKEN.warn(_remaining(worker), "Renew it (`bao token renew`), or log in as the worker again.")
    return TOKEN.ok(_remaining(worker))


def _policies(found: frozenset[str]) -> Check:
    more = sorted(found - {WORKER_POLICY})
    if WORKER_POLICY not in found:
        return POLICIES.fail(
            f"it has {listed(sorted(found)) or 'none'}, and not {WORKER_POLICY}",
            f"Give the worker's login the policy {WORKER_POLICY} and no other, and log in again.",
        )
    if more:
        return POLICIES.fail(
            f"it has more than {WORKER_POLICY}: {listed(more)}",
            f"A stolen worker may use all of them. Give its login {WORKER_POLICY} alone, without the default policy.",
        )
    return POLICIES.ok(f"{WORKER_POLICY} and nothing more")


def _entity(worker: Holder) -> Check:
    if not worker.entity_id:
        return ENTITY.warn(
            "its token belongs to no entity", "Let it log in by an auth method, so that its entity can be disabled."
        )
    if worker.enabled is None:
        return ENTITY.skipped(Unknown("its entity could not be read", "`jitvault init` gives the worker its policy."))
    if not worker.enabled:
        return ENTITY.fail(
            "its entity is disabled", "Find out why it was disabled, and read docs/operations/break-glass.md."
        )
    return ENTITY.ok(f"{worker.entity_name or worker.name}, enabled")


def _remaining(holder: Holder) -> str:
    if holder.ttl is None:
        return "a token that does not expire"
    renewed = "can be renewed" if holder.renewable else "cannot be renewed"
    return f"{format_duration(holder.ttl)} left, {renewed}"
