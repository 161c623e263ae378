"""Hazardous acts: they can make a revocation look done that is not.

Check 4 of `checks.py` is about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import AuditTrail, Point, segment
from jitvault.lifecycle.confirmation.timeline import Credential, is_below, prefix_of
from jitvault.model.evidence import Lack, Missing


def hazardous_acts(lines: Sequence[Observation]) -> Iterator[Observation]:
    """Yield the lines of hazardous acts, without those that did nothing.

    That an engine does not know a path or operation is in its answer alone, so a request without an answer may have
    been done.
    """
    acts = [o for o in lines if o.kind is Kind.HAZARD]
    unsupported = {o.request_id for o in acts if o.closing and "unsupported" in o.detail}
    harmless = unsupported | _enabled_other_device(acts)
    return (o for o in acts if o.request_id not in harmless)


def _enabled_other_device(acts: Sequence[Observation]) -> set[str]:
    """Return the requests that enabled another device than the stream's.

    The devices are audit devices. Both lines of such a request are in one segment of one source, so the device that
    wrote them was there before and after. A device that is re-created has only the answer in its own file, and one that
    is disabled only the request.
    """
    enabling = [o for o in acts if o.detail.get("enables")]
    begun = {(o.request_id, segment(o.place)) for o in enabling if not o.closing and o.request_id}
    return {o.request_id for o in enabling if o.closing and (o.request_id, segment(o.place)) in begun}


def hazards(credential: Credential, trail: AuditTrail, issue: Point, last: Point) -> Iterator[Observation]:
    """Yield the acts from issue to look-up that may have faked the revocation."""
    is_token = credential.kind == "token"
    for act in hazardous_acts(trail.observations):
        here = Point(act.place, act.at)
        between = not here.before(issue) and not last.before(here)
        if between and touches(act.path, credential.mount, credential.lease_path, token=is_token):
            yield act


def first_write_to_mount(credential: Credential, trail: AuditTrail, issue: Point, last: Point) -> Observation | None:
    """Return the first write to the configuration or roles of the mount."""
    inside = f"{credential.mount}/"
    return next((act for act in hazards(credential, trail, issue, last) if act.path.startswith(inside)), None)


def in_the_way(act: Observation, *, for_good: bool = False) -> Missing:
    """Return the evidence that an act keeps a check from holding."""
    return Missing(lack=Lack.HAZARD, about=act.path, at=act.at, line=act.line, for_good=for_good)


def touches(path: str, mount: str, lease_path: str, *, token: bool) -> bool:
    """Return whether an act at `path` is a hazard to a credential.

    The credential is one of `mount` whose lease is `lease_path` or below it.
    """
    forced = prefix_of(path, "revoke-force")
    revoked = prefix_of(path, "revoke-prefix")
    prefix = forced or revoked
    if lease_path and prefix:
        # an ordinary revocation simply ends a token; that of a lease may not have reached its backend
        if token:
            return not revoked and (is_below(lease_path, prefix) or is_below(prefix, lease_path))
        return is_below(lease_path, prefix)
    if path.startswith("sys/mounts/"):
        return (path.removeprefix("sys/mounts/") + "/").startswith(f"{mount}/")
    if path.startswith(("sys/", "auth/")):
        return True
    return path.startswith(f"{mount}/") and not _is_of_another_role(path, mount, lease_path)


def _is_of_another_role(path: str, mount: str, lease_path: str) -> bool:
    """Return whether a write was to a role that the credential is not from.

    A credential is revoked by the statements of its own role.
    """
    written, own = (name.removeprefix(f"{mount}/").split("/") for name in (path, lease_path))
    return len(written) == 2 and written[0] == "roles" and own[0] == "creds" and own[1:2] != written[1:]
