"""The tripwires on one task: what its audit lines must not show.

Each rule is one function; `RULES` names them all:

- `unwrap_outside_network`: the task's token was unwrapped from outside the task's networks;
- `unwrap_refused`: an unwrap failed because the wrapping had been used before, or although its time was not over, or a
  wrapping was used up by a request that it is not for;
- `rewrapped`: a wrapping of the task was moved into another one;
- `wrapping_read`: a wrapping of the task was read by the old way, which takes the secret and shows no lease;
- `denied`: Vault refused as many requests of the token as the limit says, without the first denied renewals and
  look-ups of the task's own token and leases;
- `outside_template`: the token did something on a path that its templates do not have;
- `before_window`: the token was used before the task's window opened;
- `after_end`: the token was used after its revocation, by an agent that knew of it or had the time to learn of it;
- `over_budget`: the token got more leases than its templates allow;
- `wrapped_lease`: the token had a credential wrapped, so that no line shows which one it got;
- `renewed_by_others`: the token or a lease was renewed, and not by the worker, which checks everything before.

The lines are Vault's, and the times are by Vault's clock. Shapes: docs/vault-facts.md, "Audit entries".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import owning_token
from jitvault.audit.tripwires.task_lines import TaskLines
from jitvault.audit.tripwires.trip import (
    Hit,
    Rule,
    TaskLimits,
    TripwireHit,
    ago,
    by_request,
    clock,
    counted,
    done,
    in_order,
    order,
    origin,
    path_of,
    precedes,
    request,
    trips,
)
from jitvault.formats.clocks import TOLERANCE
from jitvault.formats.networks import is_within

# What a token may ask about itself, keep for itself and give back, how it opens a wrapped read, and the preflight of
# the KV commands, which shows how a path is mounted. None of these concern another token.
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
_REVOKE_SELF = "auth/token/revoke-self"
MOST_ABOUT_ITSELF = 50
"""How many denied renewals and look-ups of its own token and leases a task may make.

A client that renews by itself gives up after a few tries for each credential. The ledger stores 100 lines of such a
kind, so it sees more than these.
"""

# A standby tries a request before it forwards it, and fails (docs/vault-facts.md, "Several nodes"). The standby's clock
# may be ahead, and then its line is dated after the unwrap that the active node did.
_NOT_VALID = "wrapping token is not valid or does not exist"
_FORWARDED = ("cannot write to readonly storage", "please forward to the active node")


def of_task(bounds: TaskLimits, lines: Sequence[Observation], aliases: Mapping[str, str]) -> list[TripwireHit]:
    """Return every hit of a rule in a task's lines, by time.

    There is at most one hit of a rule for a request. Lines of other tasks change nothing. `denied` is hit once, and
    `over_budget` once for each token, at the request that reaches the limit.
    """
    case = TaskLines(bounds, in_order(lines), aliases)
    return trips((rule, hit) for rule, judge in RULES for hit in judge(case))


def _unwrap_outside_network(case: TaskLines) -> Iterator[Hit]:
    networks = case.bounds.networks
    for o in case.lines:
        outside = networks and not is_within(o.remote, networks)
        if o.kind is Kind.UNWRAPPED and done(o) and case.owns(o) and outside:
            yield o, f"The task's token was unwrapped from {origin(o)}, outside its network {', '.join(networks)}."


def _unwrap_refused(case: TaskLines) -> Iterator[Hit]:
    bounds = case.bounds
    for o in case.lines:
        if o.kind is not Kind.UNWRAP_REFUSED or not case.names_derived_token(o):
            continue
        if any(words in o.error for words in _FORWARDED):
            continue
        if bounds.agent_knew and bounds.ended_at is not None and o.at > bounds.ended_at:
            continue
        if "spent" in o.detail:
            yield (
                o,
                f"A request for {path_of(o)} from {origin(o)} had the task's wrapping token as its token, and was "
                "refused: that used the wrapping up, and nobody can open it.",
            )
            continue
        first = next((other for other in _openings(case, o) if precedes(other, o)), None)
        if first is not None:
            yield (
                o,
                f"An unwrap from {origin(o)} was refused, because the wrapping had been used from {origin(first)} "
                f"at {clock(first.at)}.",
            )
        elif _NOT_VALID in o.error and _should_open(case, o):
            yield (
                o,
                f"An unwrap from {origin(o)} was refused before the wrapping's time was over. Somebody used it up or "
                "revoked it, by a spelling of its token that no line links to the task.",
            )


def _openings(case: TaskLines, refused: Observation) -> Iterator[Observation]:
    """Yield the lines that used up the wrapping of a refused unwrap.

    HashiCorp Vault takes a token in several spellings, and a line shows the HMAC of the spelling that was sent. An
    unwrap by another spelling is known by the token that its answer shows.
    """
    yield from case.opened.get(refused.token, ())
    accessor = case.aliases.get(refused.token)
    for o in case.lines:
        if o.kind is Kind.UNWRAPPED and done(o) and o.subject == accessor and o.token not in case.aliases:
            yield o


def _should_open(case: TaskLines, refused: Observation) -> bool:
    """Return whether a refused unwrap should have worked.

    Its wrapping had time left, and nothing known had ended it. The time is known of the wrapping that the token was
    created in. The revocation of the token ends its wrapping too.
    """
    accessor = case.aliases.get(refused.token)
    if any("spent" in o.detail and o.token == refused.token for o in case.lines):
        # that request is a hit already
        return False
    if refused.token in case.opened or any(
        o.kind is Kind.TOKEN_REVOKED and o.subject == accessor and precedes(o, refused) for o in case.lines
    ):
        return False
    made = [o for o in case.lines if o.kind is Kind.TOKEN_CREATED and done(o) and o.alias == refused.token]
    return any(
        refused.at < o.at + timedelta(seconds=o.detail["asked"]["wrap_ttl_s"]) - TOLERANCE
        for o in made
        if o.detail.get("asked", {}).get("wrap_ttl_s")
    )


def _rewrapped(case: TaskLines) -> Iterator[Hit]:
    for o in case.lines:
        if o.kind is Kind.REWRAPPED and done(o) and (case.owns(o) or case.names_derived_token(o)):
            yield o, f"A wrapping of the task was moved into a new one from {origin(o)}: only that one opens it now."


def _wrapping_read(case: TaskLines) -> Iterator[Hit]:
    for o in case.lines:
        ours = o.kind is Kind.CUBBYHOLE_READ and case.names_derived_token(o) and not case.is_own_cubbyhole(o)
        if ours and done(o):
            yield (
                o,
                f"A wrapping of the task was read through the cubbyhole from {origin(o)} instead of unwrapped.",
            )


def _denied(case: TaskLines) -> Iterator[Hit]:
    """Hit once for a task. A refusal after the end belongs to `after_end`.

    Ordinary clients renew and look up their own token and leases without being asked to. The first of these requests do
    not count; a flood of them does.
    """
    ended_at = case.bounds.ended_at
    refused = by_request(o for o in case.acts if o.kind is Kind.DENIED or "denied" in o.detail)
    about_itself = [o for o in refused if case.is_about_itself(o)]
    excused = {request(o) for o in about_itself[:MOST_ABOUT_ITSELF]}
    counted_ones = (o for o in refused if request(o) not in excused)
    those = [o for o in counted_ones if ended_at is None or case.begun(o) <= ended_at]
    limit = max(case.bounds.denied_limit, 1)
    if len(those) >= limit:
        last = those[-1]
        yield (
            those[limit - 1],
            f"Vault denied {counted(len(those), 'request')} of the task's token, the last for {path_of(last)} "
            f"from {origin(last)}.",
        )


def _outside_template(case: TaskLines) -> Iterator[Hit]:
    """Hit for any kind of act on another path.

    A token that can create tokens or change a mount is worse than one that can read.
    """
    for o in case.acts:
        allowed = o.path in case.bounds.paths or o.path in _HARMLESS or o.path.startswith(_HARMLESS_BELOW)
        if done(o) and not allowed:
            yield o, f"The task's token was used for {path_of(o)} from {origin(o)}, which its templates do not have."


def _before_window(case: TaskLines) -> Iterator[Hit]:
    opens_at = case.bounds.opens_at
    for o in case.acts:
        if opens_at is not None and o.at < opens_at:
            early = ago(opens_at - o.at)
            yield (
                o,
                f"The task's token was used for {path_of(o)} from {origin(o)} {early} before the task's window opened.",
            )


def _after_end(case: TaskLines) -> Iterator[Hit]:
    """Hit for a use that began after the end.

    A use that began before was in flight. Giving back a token that is gone is no hit either.
    """
    bounds = case.bounds
    for o in case.lines:
        used = o.actor in bounds.tokens or (o.kind is Kind.REFUSED and case.names_derived_token(o))
        late = case.late(o)
        if used and o.path != _REVOKE_SELF and late > (timedelta(0) if bounds.agent_knew else bounds.grace):
            yield (
                o,
                f"The task's token was used for {path_of(o)} from {origin(o)} {ago(late)} after it was revoked"
                f"{'' if bounds.agent_knew else ', and the agent had time to learn of that'}.",
            )


def _over_budget(case: TaskLines) -> Iterator[Hit]:
    """Hit once for each token of the task.

    One token is dead before another one takes its place. A wrapped read counts when it is requested; the lease that
    shows when the wrapping is opened is not another one.
    """
    wrappings = {o.wrapping for o in case.acts if o.wrapping and o.path in case.bounds.paths}
    issued = [o for o in case.lines if o.kind is Kind.LEASE_ISSUED and done(o) and case.owns(o)]
    budget = max(case.bounds.lease_budget, 0)
    for token in sorted(case.bounds.tokens):
        shown = (o for o in reversed(issued) if owning_token(o, case.aliases) == token and o.token not in wrappings)
        first_lines = {o.subject: o for o in shown}
        leases = sorted([*first_lines.values(), *(o for o in case.wrapped if o.actor == token)], key=order)
        if len(leases) <= budget:
            continue
        yield (
            leases[budget],
            f"The task's token got {counted(len(leases), 'lease')}, the last from {origin(leases[-1])}; its templates "
            f"allow {budget}.",
        )


def _wrapped_lease(case: TaskLines) -> Iterator[Hit]:
    for o in case.wrapped:
        yield (
            o,
            f"The task's token had what it read from {path_of(o)} wrapped, from {origin(o)}: no line shows which "
            "credential that is, so its end may stay unproven. Agents read task credentials without -wrap-ttl.",
        )


def _renewed_by_others(case: TaskLines) -> Iterator[Hit]:
    """Hit for a renewal by any other token.

    Acts of the token itself belong to another rule, and it cannot renew itself.
    """
    ours = case.bounds.workers | case.bounds.tokens
    for o in case.lines:
        if o.kind is not Kind.RENEWED or not done(o) or o.actor in ours:
            continue
        is_lease = o.subject in case.bounds.leases
        if is_lease or case.owns(o):
            what = "A lease of the task" if is_lease else "The task's token"
            yield o, f"{what} was renewed at {path_of(o)} from {origin(o)}, and not by the worker."


RULES: tuple[tuple[Rule, Callable[[TaskLines], Iterator[Hit]]], ...] = (
    (Rule.UNWRAP_OUTSIDE_NETWORK, _unwrap_outside_network),
    (Rule.UNWRAP_REFUSED, _unwrap_refused),
    (Rule.REWRAPPED, _rewrapped),
    (Rule.WRAPPING_READ, _wrapping_read),
    (Rule.DENIED, _denied),
    (Rule.OUTSIDE_TEMPLATE, _outside_template),
    (Rule.BEFORE_WINDOW, _before_window),
    (Rule.AFTER_END, _after_end),
    (Rule.OVER_BUDGET, _over_budget),
    (Rule.WRAPPED_LEASE, _wrapped_lease),
    (Rule.RENEWED_BY_OTHERS, _renewed_by_others),
)
