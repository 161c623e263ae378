"""One task's audit lines in order.

Several tripwires ask the questions about these lines that are answered here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import owning_token
from jitvault.audit.tripwires.trip import TaskLimits, by_request, done
from jitvault.formats.clocks import MAX_SKEW

_OPENED = frozenset({Kind.UNWRAPPED, Kind.REWRAPPED, Kind.CUBBYHOLE_READ, Kind.LEASE_ISSUED})


def is_refused_lease_act(o: Observation) -> bool:
    """Return whether Vault denied a renewal or a look-up of a lease."""
    of_lease = o.kind is Kind.LEASE_LOOKUP or (o.kind is Kind.RENEWED and o.path.startswith("sys/"))
    return of_lease and "denied" in o.detail


# without slots, so that computed properties are cached
@dataclass(frozen=True)
class TaskLines:
    """One task's lines in order, with what several rules ask about them."""

    bounds: TaskLimits
    lines: Sequence[Observation]
    aliases: Mapping[str, str]

    @cached_property
    def acts(self) -> list[Observation]:
        """The lines of what the task's tokens did themselves."""
        return [o for o in self.lines if o.actor in self.bounds.tokens]

    def owns(self, o: Observation) -> bool:
        return owning_token(o, self.aliases) in self.bounds.tokens

    def names_derived_token(self, o: Observation) -> bool:
        """Return whether the line names a token derived from one of the task's."""
        return self.aliases.get(o.token) in self.bounds.tokens

    def is_own_cubbyhole(self, o: Observation) -> bool:
        """Return whether the task token reads its own cubbyhole.

        There is no wrapping in that.
        """
        return o.kind is Kind.CUBBYHOLE_READ and o.actor in self.bounds.tokens

    @cached_property
    def opened(self) -> dict[str, list[Observation]]:
        """The lines that used up a wrapping, by the HMAC of its token."""
        found: dict[str, list[Observation]] = {}
        for o in self.lines:
            if o.kind in _OPENED and done(o) and not self.is_own_cubbyhole(o):
                found.setdefault(o.token, []).append(o)
        return found

    @cached_property
    def wrapped(self) -> list[Observation]:
        """The first line of each request for a wrapped credential of the task."""
        reads = [o for o in self.acts if o.kind is Kind.USED and o.path in self.bounds.paths]
        return by_request(o for o in reads if "wrapped" in o.detail or o.wrapping)

    @cached_property
    def _request_lines(self) -> dict[str, Observation]:
        return {o.request_id: o for o in reversed(self.lines) if not o.closing and o.request_id}

    def is_about_itself(self, o: Observation) -> bool:
        """Return whether a denied request is about the task's own access.

        It is a renewal or a look-up of the task's token, or of one of its leases.
        """
        if "itself" in o.detail:
            return True
        return is_refused_lease_act(o) and (o.subject in self.bounds.leases or o.subject in self.bounds.hashed_leases)

    def begun(self, o: Observation) -> datetime:
        """Return when the request of a line began.

        That is the time of its request line, or else of the line itself.
        """
        return self._request_lines.get(o.request_id, o).at

    def late(self, o: Observation) -> timedelta:
        """Return how long after the token's end the request began, for certain.

        Vault's clock may have been set in between, and another node has another clock. Within a segment the place
        shows what came first; across two segments only a difference beyond the clocks' tolerance counts.
        """
        begun = self._request_lines.get(o.request_id, o).place
        ended = self.bounds.ended_in
        late = self.begun(o) - (self.bounds.ended_at or self.begun(o))
        if ended is None or (begun.source, begun.epoch) != (ended.source, ended.epoch):
            return late if late > MAX_SKEW else timedelta(0)
        return late if begun.offset > ended.offset else timedelta(0)
