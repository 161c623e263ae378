"""What an audit line must not say. Each rule is one function; `RULES` and `FLEET_RULES` name them all.

On one task's lines (`of_task`):

- `unwrap_outside_network`: the task's token was unwrapped from outside the task's networks;
- `unwrap_refused`: somebody's unwrap failed because somebody else was first;
- `rewrapped`: a wrapping of the task was moved into another one;
- `wrapping_read`: a wrapping of the task was read by the old way, which takes the secret and shows no lease;
- `denied`: Vault refused the token as many requests as the limit says;
- `outside_template`: the token did something on a path that its templates do not have;
- `before_window`: the token was used before the task's window opened;
- `after_end`: the token was used after its revocation, by somebody who knew or had the time to learn;
- `over_budget`: the token got more leases than its templates allow.

On all lines (`of_fleet`), and each of them freezes everything, since the worker itself cannot be trusted then:

- `unknown_token`: a token was made through our roles without an intent of ours or not by our worker;
- `unwrap_by_worker`: something was unwrapped from the worker's address.

What the lines say is Vault's; the times are its clock's. Shapes: docs/vault-facts.md, "Audit entries".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from jitvault.domain.document import shown
from jitvault.domain.lifecycle import EndReason
from jitvault.domain.linking import owner
from jitvault.domain.observation import Kind, Observation

# What a token may ask about itself, keep for itself and give back, how it opens what it read in a wrapping, and the
# preflight of the KV commands, which says how a path of its own is mounted. None of it is anybody else's.
_HARMLESS = frozenset(
    {
        "auth/token/lookup-self",
        "auth/token/renew-self",
        "auth/token/revoke-self",
        "sys/capabilities-self",
        "sys/internal/ui/resultant-acl",
        "sys/wrapping/lookup",
        "sys/wrapping/unwrap",
    }
)
_HARMLESS_BELOW = ("cubbyhole/", "sys/internal/ui/mounts/")
_GIVING_BACK = "auth/token/revoke-self"

_OPENED = frozenset({Kind.UNWRAPPED, Kind.REWRAPPED, Kind.CUBBYHOLE_READ, Kind.LEASE_ISSUED})
# A standby tries what it then forwards, and fails (docs/vault-facts.md, "Several nodes"). Its clock may be ahead, and
# then this stands after the unwrap that the active node did.
_FORWARDED = ("cannot write to readonly storage", "please forward to the active node")
# old ways of naming a token in the path show it in plain
_A_TOKEN = re.compile(r"(hv[sbr]|\b[sbr])\.[\w.-]{16,}")


class Rule(StrEnum):
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 - not a password
    UNWRAP_BY_WORKER = "unwrap_by_worker"
    UNWRAP_OUTSIDE_NETWORK = "unwrap_outside_network"
    UNWRAP_REFUSED = "unwrap_refused"
    REWRAPPED = "rewrapped"
    WRAPPING_READ = "wrapping_read"
    DENIED = "denied"
    OUTSIDE_TEMPLATE = "outside_template"
    BEFORE_WINDOW = "before_window"
    AFTER_END = "after_end"
    OVER_BUDGET = "over_budget"


FREEZING = frozenset({Rule.UNKNOWN_TOKEN, Rule.UNWRAP_BY_WORKER})
INTERCEPTIONS = frozenset(
    {
        Rule.UNWRAP_BY_WORKER,
        Rule.UNWRAP_OUTSIDE_NETWORK,
        Rule.UNWRAP_REFUSED,
        Rule.REWRAPPED,
        Rule.WRAPPING_READ,
    }
)
"""Rules that say that somebody else may hold what was meant for the agent."""


@dataclass(frozen=True, slots=True)
class Trip:
    """A rule that a line broke. `line` is the SHA-256 of the audit line, `at` Vault's time of it.

    `message` is a sentence for an operator; paths and addresses in it are escaped, and it holds no secret.
    """

    rule: Rule
    at: datetime
    line: str
    request_id: str
    message: str
    reason: EndReason
    freezes: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one task's lines are held against.

    `tokens` are the accessor HMACs of its grants, `networks` the CIDRs that it works from (none: any), `paths` the
    Vault paths that its templates have. `ended_at` is Vault's time of the token's revocation line, None while it
    lives; `told` says that whoever uses the token knew of the end, which was completion; without it, use goes
    unremarked for `grace`.
    """

    tokens: frozenset[str]
    networks: tuple[str, ...]
    paths: frozenset[str]
    opens_at: datetime | None
    ended_at: datetime | None
    told: bool
    grace: timedelta
    lease_budget: int
    denied_limit: int


def of_task(bounds: Bounds, lines: Sequence[Observation], aliases: Mapping[str, str]) -> list[Trip]:
    """Every trip in `lines`, by time; at most one of a rule for a request. Lines of other tasks change nothing.

    `denied` and `over_budget` trip once, at the request that reaches the limit.
    """
    case = _Case(bounds, _in_order(lines), aliases)
    return _trips((rule, hit) for rule, judge in RULES for hit in judge(case))


def of_fleet(
    lines: Sequence[Observation],
    *,
    sessions: frozenset[str],
    intents: frozenset[str],
    worker_addresses: frozenset[str],
    shared: Sequence[str],
) -> list[Trip]:
    """Every trip that freezes everything, by time; at most one of a rule for a request.

    `sessions` are the accessor HMACs of the worker's own tokens, `intents` the operation ids under which it meant to
    create tokens, `shared` the CIDRs that the worker's hosts share with agents.
    """
    fleet = _Fleet(_in_order(lines), sessions, intents, worker_addresses, tuple(shared))
    return _trips((rule, hit) for rule, judge in FLEET_RULES for hit in judge(fleet))


Hit = tuple[Observation, str]
"""A line that breaks a rule, and what to tell about it."""


# not slots: what is worked out once is kept
@dataclass(frozen=True)
class _Case:
    """One task's lines in order, and the questions that several rules ask of them."""

    bounds: Bounds
    lines: Sequence[Observation]
    aliases: Mapping[str, str]

    @cached_property
    def acts(self) -> list[Observation]:
        """The lines of what the task's tokens did themselves."""
        return [o for o in self.lines if o.actor in self.bounds.tokens]

    def owns(self, o: Observation) -> bool:
        return owner(o, self.aliases) in self.bounds.tokens

    def stands_for_ours(self, o: Observation) -> bool:
        """Whether the line names a token that stands for one of the task's."""
        return self.aliases.get(o.token) in self.bounds.tokens

    def is_own_cubbyhole(self, o: Observation) -> bool:
        """Whether the task token reads its own cubbyhole, where no wrapping is."""
        return o.kind is Kind.CUBBYHOLE_READ and o.actor in self.bounds.tokens

    @cached_property
    def opened(self) -> dict[str, list[Observation]]:
        """The lines that used a wrapping up, by the HMAC of its token."""
        found: dict[str, list[Observation]] = {}
        for o in self.lines:
            if o.kind in _OPENED and _done(o) and not self.is_own_cubbyhole(o):
                found.setdefault(o.token, []).append(o)
        return found

    @cached_property
    def _request_lines(self) -> dict[str, datetime]:
        return {o.request_id: o.at for o in reversed(self.lines) if not o.closing and o.request_id}

    def begun(self, o: Observation) -> datetime:
        """When the request of a line began: by its request line, else by the line itself."""
        return self._request_lines.get(o.request_id, o.at)


@dataclass(frozen=True, slots=True)
class _Fleet:
    lines: Sequence[Observation]
    sessions: frozenset[str]
    intents: frozenset[str]
    worker_addresses: frozenset[str]
    shared: tuple[str, ...]


# -- one task ---------------------------------------------------------------------------------------------


def _unwrap_outside_network(case: _Case) -> Iterator[Hit]:
    networks = case.bounds.networks
    for o in case.lines:
        outside = networks and not _is_within(o.remote, networks)
        if o.kind is Kind.UNWRAPPED and _done(o) and case.owns(o) and outside:
            yield o, f"The task's token was unwrapped from {_from(o)}, outside its network {', '.join(networks)}."


def _unwrap_refused(case: _Case) -> Iterator[Hit]:
    bounds = case.bounds
    for o in case.lines:
        if o.kind is not Kind.UNWRAP_REFUSED or not case.stands_for_ours(o):
            continue
        if any(words in o.error for words in _FORWARDED):
            continue
        if bounds.told and bounds.ended_at is not None and o.at > bounds.ended_at:
            continue
        first = next((other for other in case.opened.get(o.token, ()) if _precedes(other, o)), None)
        if first is not None:
            yield (
                o,
                f"An unwrap from {_from(o)} was refused, because the wrapping had been used from {_from(first)} "
                f"at {_clock(first.at)}.",
            )


def _rewrapped(case: _Case) -> Iterator[Hit]:
    for o in case.lines:
        if o.kind is Kind.REWRAPPED and _done(o) and (case.owns(o) or case.stands_for_ours(o)):
            yield o, f"A wrapping of the task was moved into a new one from {_from(o)}: only that one opens it now."


def _wrapping_read(case: _Case) -> Iterator[Hit]:
    for o in case.lines:
        ours = o.kind is Kind.CUBBYHOLE_READ and case.stands_for_ours(o) and not case.is_own_cubbyhole(o)
        if ours and _done(o):
            yield o, f"A wrapping of the task was read through cubbyhole/response from {_from(o)} instead of unwrapped."


def _denied(case: _Case) -> Iterator[Hit]:
    """Once for the task. What Vault refuses after the end is `after_end`'s."""
    ended_at = case.bounds.ended_at
    refused = [o for o in case.acts if o.kind is Kind.DENIED or "denied" in o.detail]
    counted = [o for o in _by_request(refused) if ended_at is None or case.begun(o) <= ended_at]
    limit = max(case.bounds.denied_limit, 1)
    if len(counted) >= limit:
        last = counted[-1]
        yield (
            counted[limit - 1],
            f"Vault denied {_count(len(counted), 'request')} of the task's token, the last for {_path(last)} "
            f"from {_from(last)}.",
        )


def _outside_template(case: _Case) -> Iterator[Hit]:
    """Whatever kind of act it was: that the token can make tokens or change a mount is worse than a read."""
    for o in case.acts:
        allowed = o.path in case.bounds.paths or o.path in _HARMLESS or o.path.startswith(_HARMLESS_BELOW)
        if _done(o) and not allowed:
            yield o, f"The task's token was used for {_path(o)} from {_from(o)}, which its templates do not have."


def _before_window(case: _Case) -> Iterator[Hit]:
    opens_at = case.bounds.opens_at
    for o in case.acts:
        if opens_at is not None and o.at < opens_at:
            early = _ago(opens_at - o.at)
            yield (
                o,
                f"The task's token was used for {_path(o)} from {_from(o)} {early} before the task's window opened.",
            )


def _after_end(case: _Case) -> Iterator[Hit]:
    """What began before the end was in flight and is no trip; nor is giving back a token that is gone."""
    bounds = case.bounds
    if bounds.ended_at is None:
        return
    for o in case.lines:
        used = o.actor in bounds.tokens or (o.kind is Kind.REFUSED and case.stands_for_ours(o))
        late = case.begun(o) - bounds.ended_at
        if used and o.path != _GIVING_BACK and late > (timedelta(0) if bounds.told else bounds.grace):
            yield (
                o,
                f"The task's token was used for {_path(o)} from {_from(o)} {_ago(late)} after it was revoked"
                f"{'' if bounds.told else ', and the agent had the time to learn of that'}.",
            )


def _over_budget(case: _Case) -> Iterator[Hit]:
    """Once for the task."""
    issued = [o for o in case.lines if o.kind is Kind.LEASE_ISSUED and _done(o) and case.owns(o)]
    first_lines = {o.subject: o for o in reversed(issued)}
    leases = sorted(first_lines.values(), key=_order)
    budget = max(case.bounds.lease_budget, 0)
    if len(leases) > budget:
        yield (
            leases[budget],
            f"The task's token got {_count(len(leases), 'lease')}, the last from {_from(leases[-1])}; its templates "
            f"allow {budget}.",
        )


RULES: tuple[tuple[Rule, Callable[[_Case], Iterator[Hit]]], ...] = (
    (Rule.UNWRAP_OUTSIDE_NETWORK, _unwrap_outside_network),
    (Rule.UNWRAP_REFUSED, _unwrap_refused),
    (Rule.REWRAPPED, _rewrapped),
    (Rule.WRAPPING_READ, _wrapping_read),
    (Rule.DENIED, _denied),
    (Rule.OUTSIDE_TEMPLATE, _outside_template),
    (Rule.BEFORE_WINDOW, _before_window),
    (Rule.AFTER_END, _after_end),
    (Rule.OVER_BUDGET, _over_budget),
)


# -- all of them ------------------------------------------------------------------------------------------


def _unknown_token(fleet: _Fleet) -> Iterator[Hit]:
    for o in fleet.lines:
        if o.kind is not Kind.TOKEN_CREATED or not _done(o):
            continue
        if o.actor not in fleet.sessions:
            yield o, f"A token was created at {_path(o)} from {_from(o)}, and not by a session of the worker."
        elif o.op not in fleet.intents:
            yield o, f"A token was created at {_path(o)} from {_from(o)} without an intent in the ledger."


def _unwrap_by_worker(fleet: _Fleet) -> Iterator[Hit]:
    for o in fleet.lines:
        # a lease shows a wrapping only where it was unwrapped
        unwrap = o.kind in (Kind.UNWRAPPED, Kind.CUBBYHOLE_READ) or (o.kind is Kind.LEASE_ISSUED and o.token)
        own = _is_one_of(o.remote, fleet.worker_addresses) and not _is_within(o.remote, fleet.shared)
        if unwrap and own and _done(o):
            yield o, f"Something was unwrapped at {_path(o)} from {_from(o)}, an address of the worker."


FLEET_RULES: tuple[tuple[Rule, Callable[[_Fleet], Iterator[Hit]]], ...] = (
    (Rule.UNKNOWN_TOKEN, _unknown_token),
    (Rule.UNWRAP_BY_WORKER, _unwrap_by_worker),
)


# -- lines ------------------------------------------------------------------------------------------------


def _trips(hits: Iterable[tuple[Rule, Hit]]) -> list[Trip]:
    """The first hit of each rule for each request, by time."""
    found: dict[tuple[Rule, str], tuple[Observation, Trip]] = {}
    for rule, (o, message) in hits:
        reason = EndReason.INTERCEPTED if rule in INTERCEPTIONS else EndReason.TRIPWIRE
        trip = Trip(rule, o.at, o.line, o.request_id, message, reason, rule in FREEZING)
        found.setdefault((rule, _request(o)), (o, trip))
    return [trip for _, trip in sorted(found.values(), key=lambda pair: (_order(pair[0]), pair[1].rule))]


def _in_order(lines: Iterable[Observation]) -> list[Observation]:
    """Each line once, by Vault's time, so that the order in which they were read changes nothing."""
    return sorted({o.line: o for o in lines}.values(), key=_order)


def _order(o: Observation) -> tuple[datetime, str, int, int, str]:
    return o.at, o.place.source, o.place.epoch, o.place.offset, o.line


def _precedes(one: Observation, other: Observation) -> bool:
    if (one.place.source, one.place.epoch) == (other.place.source, other.place.epoch):
        return one.place.offset < other.place.offset
    return one.at < other.at


def _request(o: Observation) -> str:
    """What the two entries of one request have in common."""
    return o.request_id or o.line


def _by_request(lines: Iterable[Observation]) -> list[Observation]:
    """The first line of each request."""
    found: dict[str, Observation] = {}
    for o in lines:
        found.setdefault(_request(o), o)
    return list(found.values())


def _done(o: Observation) -> bool:
    return o.closing and not o.failed


# -- addresses --------------------------------------------------------------------------------------------


def _is_within(remote: str, networks: Iterable[str]) -> bool:
    """Whether an address is in one of the networks. What is no address is in none; what is no network holds none."""
    found = _addresses(remote)
    for network in networks:
        try:
            holds = ip_network(network, strict=False)
        except ValueError:
            continue
        if any(address in holds for address in found):
            return True
    return False


def _is_one_of(remote: str, addresses: frozenset[str]) -> bool:
    """Whether an address is one of these, however it is spelled."""
    if not remote:
        return False
    known = {address for text in addresses for address in _addresses(text)}
    return remote in addresses or any(address in known for address in _addresses(remote))


def _addresses(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """The address that a text spells, and the IPv4 address in it where it maps one; none if it is no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return ()
    if isinstance(address, IPv4Address):
        return (address,)
    # a zone names an interface of the server, not whose address it is
    plain, mapped = IPv6Address(int(address)), address.ipv4_mapped
    return (plain, mapped) if mapped else (plain,)


# -- words ------------------------------------------------------------------------------------------------


def _path(o: Observation) -> str:
    return shown(_A_TOKEN.sub("(a token)", o.path), 120)


def _from(o: Observation) -> str:
    found = _addresses(o.remote)
    return str(found[-1]) if found else f"an unknown address ({shown(o.remote, 64)})"


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC"


def _ago(length: timedelta) -> str:
    return f"{length.total_seconds():.1f} s"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
