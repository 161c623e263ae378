"""Acts that can make a revocation look done which is not: check 4 of `domain/confirmation.py` asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jitvault.domain.evidence import Point, Trail
from jitvault.domain.observation import Kind, Observation
from jitvault.domain.traces import Credential, is_below, prefix_of

_RESTORES = frozenset({"sys/storage/raft/snapshot", "sys/storage/raft/snapshot-force"})


def restores(lines: Sequence[Observation]) -> Iterator[Observation]:
    """The lines that say that a snapshot of Vault was put back."""
    return (o for o in lines if o.kind is Kind.HAZARD and o.path in _RESTORES and o.closing and not o.failed)


def may_have_been_done(lines: Sequence[Observation]) -> Iterator[Observation]:
    """The lines of such acts, without those of requests that the engine does not know.

    What has no answer may have been done. That there is no such path or operation stands in the answer alone.
    """
    acts = [o for o in lines if o.kind is Kind.HAZARD]
    unsupported = {o.request_id for o in acts if o.closing and "unsupported" in o.detail}
    return (o for o in acts if o.request_id not in unsupported)


def hazards(credential: Credential, trail: Trail, issue: Point, last: Point) -> Iterator[Observation]:
    """The acts from issue to look-up that can have made its revocation look done."""
    for each in may_have_been_done(trail.observations):
        here, token = Point(each.place, each.at), credential.kind == "token"
        between = not here.before(issue) and not last.before(here)
        if between and touches(each.path, credential.mount, credential.lease_path, token=token):
            yield each


def written_to(credential: Credential, trail: Trail, issue: Point, last: Point) -> Observation | None:
    """The first write to the configuration of the credential's own mount."""
    inside = f"{credential.mount}/"
    return next((each for each in hazards(credential, trail, issue, last) if each.path.startswith(inside)), None)


def shown_act(hazard: Observation) -> str:
    return f"{hazard.path} at {hazard.at.isoformat()} (line {hazard.line[:16]})"


def touches(path: str, mount: str, lease_path: str, *, token: bool) -> bool:
    """Whether a hazard at `path` is one for a credential of `mount` whose lease is `lease_path` (or below it)."""
    forced, revoked = prefix_of(path, "revoke-force"), prefix_of(path, "revoke-prefix")
    if lease_path and (prefix := forced or revoked):
        # an ordinary revocation of a token is its end and nothing else; a lease's may not have reached its backend
        if token:
            return not revoked and (is_below(lease_path, prefix) or is_below(prefix, lease_path))
        return is_below(lease_path, prefix)
    if path.startswith("sys/mounts/"):
        return (path.removeprefix("sys/mounts/") + "/").startswith(f"{mount}/")
    if path.startswith(("sys/", "auth/")):
        return True
    return path.startswith(f"{mount}/") and not _is_of_another_role(path, mount, lease_path)


def _is_of_another_role(path: str, mount: str, lease_path: str) -> bool:
    """Whether a write was to a role that a login did not come from: its revocation is its own role's."""
    written, own = (name.removeprefix(f"{mount}/").split("/") for name in (path, lease_path))
    return len(written) == 2 and written[0] == "roles" and own[0] == "creds" and own[1:2] != written[1:]
