"""Acts that can make a revocation look done which is not: check 4 of `checks.py` asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import AuditTrail, Point, segment
from jitvault.lifecycle.confirmation.timeline import Credential, is_below, prefix_of


def may_have_been_done(lines: Sequence[Observation]) -> Iterator[Observation]:
    """The lines of such acts, without those of requests that did nothing to a revocation.

    That the engine knows no such path or operation stands in the answer alone: what has none may have been done.
    """
    acts = [o for o in lines if o.kind is Kind.HAZARD]
    harmless = {o.request_id for o in acts if o.closing and "unsupported" in o.detail} | _enabled_beside(acts)
    return (o for o in acts if o.request_id not in harmless)


def _enabled_beside(acts: Sequence[Observation]) -> set[str]:
    """The requests that enabled another audit device while this stream went on.

    Their two lines stand in one stretch of one source, so the device that wrote them was there before and afterwards.
    Of a device that is made anew only the answer is in its own file, and of one that is disabled only the request.
    """
    enabling = [o for o in acts if o.detail.get("enables")]
    begun = {(o.request_id, segment(o.place)) for o in enabling if not o.closing and o.request_id}
    return {o.request_id for o in enabling if o.closing and (o.request_id, segment(o.place)) in begun}


def hazards(credential: Credential, trail: AuditTrail, issue: Point, last: Point) -> Iterator[Observation]:
    """The acts from issue to look-up that can have made its revocation look done."""
    for each in may_have_been_done(trail.observations):
        here, token = Point(each.place, each.at), credential.kind == "token"
        between = not here.before(issue) and not last.before(here)
        if between and touches(each.path, credential.mount, credential.lease_path, token=token):
            yield each


def written_to(credential: Credential, trail: AuditTrail, issue: Point, last: Point) -> Observation | None:
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
