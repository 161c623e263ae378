"""Trails to judge: what happened to one lease or token, line by line, and what others can leave between."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import AuditTrail, Canary
from jitvault.engines.interface import ProbeResult
from jitvault.lifecycle.confirmation.timeline import Credential
from jitvault.lifecycle.confirmation.wrapped_reads import target_check
from jitvault.model.proof_check import Check
from jitvault.model.states import Verdict

START = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
WORKER, OLD_WORKER, TOKEN, STRANGER = "hmac-worker", "hmac-worker-before", "hmac-token", "hmac-stranger"
LEASE = "database/creds/app-ro/afiJklUfE3Mdm2cqvTtmwdss"
LEASE_HMAC, ALIAS, ALIAS_HMAC = "hmac-lease", "auth/token/create/jitvault-15m/h123", "hmac-alias"
INVALID, INVALID_HMAC = "invalid lease", "hmac-invalid-lease"
NOT_FOUND_HMAC = "hmac-lease-not-found"
LOOKUP_OP, LIVE_OP, LIST_OP = "op-lookup", "op-live", "op-list"


def probed(*, refused: bool = True, open_sessions: int | None = 0) -> Check:
    """Check 6 by what a target says of the lease's login."""
    answer = ProbeResult(refused=refused, open_sessions=open_sessions, evidence="so it says")
    return target_check("postgresql", "v-token-x", answer)


DEAD_TARGET = probed()


@dataclass
class Story:
    """A trail under construction: each line stands 100 bytes and 10 ms after the one before it."""

    epoch: int = 1
    source: str = "audit"
    lines: list[Observation] = field(default_factory=list)
    canaries: list[Canary] = field(default_factory=list)
    workers: frozenset[str] = frozenset({WORKER, OLD_WORKER})
    _tick: int = 0
    _skipped: int = 0

    def _next(self) -> tuple[Place, datetime]:
        self._tick += 1
        place = Place(self.source, self.epoch, 100 * (self._tick - self._skipped))
        return place, START + timedelta(milliseconds=10 * self._tick)

    def wait(self, seconds: float) -> Story:
        self._tick += int(seconds * 100)
        return self

    def gap(self) -> Story:
        self.epoch += 1
        return self

    def restart(self) -> Story:
        """A gap after which the file begins anew: time goes on, offsets do not."""
        self._skipped = self._tick
        return self.gap()

    def elsewhere(self, source: str) -> Story:
        """What follows stands in another source."""
        self.source = source
        return self

    def canary(self) -> Story:
        place, at = self._next()
        self.canaries.append(Canary(place, at))
        return self

    def add(self, kind: Kind, subject: str = "", **how: Any) -> Story:
        place, at = self._next()
        line = Observation(
            # told apart by their first 16 characters, which is what evidence names
            line=f"{len(self.lines) + 1:016x}" + "0" * 48,
            place=place,
            at=at,
            closing=how.pop("closing", True),
            kind=kind,
            request_id=how.pop("request_id", f"r-{self._tick}"),
            path=how.pop("path", kind.value),
            subject=subject,
            actor=how.pop("actor", WORKER),
            op=how.pop("op", ""),
            remote="127.0.0.1",
            failed=how.pop("failed", False),
            error=how.pop("error", ""),
            token=how.pop("token", ""),
            alias=how.pop("alias", ""),
            detail=how.pop("detail", {}),
        )
        assert not how
        self.lines.append(line)
        return self

    # what happens to a lease
    def issued(self, **how: Any) -> Story:
        return self.add(Kind.LEASE_ISSUED, LEASE, **{"actor": TOKEN, **how})

    def revoked(self, **how: Any) -> Story:
        return self.add(Kind.LEASE_REVOKED, how.pop("subject", LEASE), **how)

    def looked_up(self, **how: Any) -> Story:
        gone = {"op": LOOKUP_OP, "failed": True, "error": INVALID_HMAC, **how}
        return self.add(Kind.LEASE_LOOKUP, gone.pop("subject", LEASE_HMAC), **gone)

    def not_in_storage(self, **how: Any) -> Story:
        """A look-up that found the lease in Vault's memory, and not in its storage."""
        refused = {"op": LOOKUP_OP, "failed": True, "error": NOT_FOUND_HMAC, **how}
        return self.alive(op=LOOKUP_OP).add(Kind.RENEWED, refused.pop("subject", LEASE), **refused)

    def alive(self, **how: Any) -> Story:
        """A look-up that found the lease."""
        return self.add(Kind.LEASE_LOOKUP, how.pop("subject", LEASE_HMAC), **{"op": LIVE_OP, **how})

    def listed(self, **how: Any) -> Story:
        """A listing of the task's prefixes that left nothing unaccounted for."""
        return self.add(Kind.OWN, **{"op": LIST_OP, "path": "sys/leases/lookup/database/creds/app-ro", **how})

    def hazard(self, path: str, **how: Any) -> Story:
        return self.add(Kind.HAZARD, path=path, **{"actor": STRANGER, **how})

    # what happens to a token
    def created(self, **how: Any) -> Story:
        return self.add(Kind.TOKEN_CREATED, how.pop("subject", TOKEN), **how)

    def token_revoked(self, **how: Any) -> Story:
        return self.add(Kind.TOKEN_REVOKED, how.pop("subject", TOKEN), **how)

    def token_looked_up(self, **how: Any) -> Story:
        gone = {"op": LOOKUP_OP, "failed": True, "error": "1 error occurred: * invalid accessor", **how}
        return self.add(Kind.TOKEN_LOOKUP, gone.pop("subject", TOKEN), **gone)

    def token_alive(self, **how: Any) -> Story:
        return self.add(Kind.TOKEN_LOOKUP, how.pop("subject", TOKEN), **{"op": LIVE_OP, **how})

    def used(self, **how: Any) -> Story:
        return self.add(Kind.USED, TOKEN, **{"actor": TOKEN, **how})

    def trail(self) -> AuditTrail:
        return AuditTrail(tuple(self.lines), tuple(self.canaries), self.workers)


def lease(**changes: Any) -> Credential:
    made = Credential(
        kind="lease",
        subject=LEASE,
        lookup_subject=LEASE_HMAC,
        mount="database",
        reported=Verdict.GONE,
        lookup_ops=frozenset({LOOKUP_OP}),
        gone_errors=frozenset({INVALID, INVALID_HMAC, NOT_FOUND_HMAC}),
    )
    return replace(made, **changes)


def token(**changes: Any) -> Credential:
    made = Credential(
        kind="token",
        subject=TOKEN,
        lookup_subject=TOKEN,
        mount="auth/token",
        reported=Verdict.GONE,
        lookup_ops=frozenset({LOOKUP_OP}),
        gone_errors=frozenset({"invalid accessor", INVALID, INVALID_HMAC, NOT_FOUND_HMAC}),
        expires_at=START + timedelta(hours=1),
    )
    return replace(made, **changes)


def good() -> Story:
    """A lease's whole life with everything that proves its end."""
    return Story().canary().issued().revoked().looked_up().canary()


def good_token() -> Story:
    return Story().canary().created().token_revoked().token_looked_up().canary()


def others(at: tuple[int, int]) -> st.SearchStrategy[Observation]:
    """Any line that somebody who is not the worker can leave behind, anywhere in the stream."""
    return st.builds(
        Observation,
        line=st.text("0123456789abcdef", min_size=64, max_size=64),
        place=st.builds(Place, st.sampled_from(["audit", "node-2"]), st.integers(1, 2), st.integers(*at)),
        at=st.integers(-1000, 10_000).map(lambda ms: START + timedelta(milliseconds=ms)),
        closing=st.booleans(),
        kind=st.sampled_from([k for k in Kind if k is not Kind.TOKEN_REVOKED]),
        request_id=st.sampled_from(["r-1", "r-2", "x"]),
        path=st.sampled_from(["sys/leases/tidy", "database/config/app", "kv/data/x", "sys/leases/revoke/" + LEASE]),
        subject=st.sampled_from([LEASE, LEASE_HMAC, TOKEN, ALIAS, ALIAS_HMAC, ""]),
        actor=st.sampled_from([TOKEN, STRANGER, ""]),
        op=st.sampled_from([LOOKUP_OP, LIVE_OP, LIST_OP, "", "op-x"]),
        remote=st.just("127.0.0.1"),
        failed=st.booleans(),
        error=st.sampled_from(["", INVALID, INVALID_HMAC, "invalid accessor", "permission denied"]),
        token=st.sampled_from(["", "hmac-wrapping"]),
        alias=st.sampled_from(["", "hmac-wrapping"]),
        detail=st.sampled_from([{}, {"denied": True}, {"warnings": ["x"]}]),
    )
