"""What the audit files show about a task and its receipt does not say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from jitvault.audit.observation import Kind, Observation, issued
from jitvault.audit.trail import derived_tokens, done, owning_token
from jitvault.audit.tripwires.trip import Rule
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.shorten import one_line
from jitvault.lifecycle.confirmation.hazards import hazardous_acts, touches
from jitvault.lifecycle.confirmation.wrapped_reads import is_wrapped
from jitvault.verification.audit_scan import Scan, SeenLine, home_of
from jitvault.verification.evidence import lines_in, stated, time_of
from jitvault.verification.receipt import Credential, Receipt, credentials

_USES = frozenset({Kind.USED, Kind.LEASE_ISSUED, Kind.RENEWED})
_SHOW_LIFE = frozenset({Kind.TOKEN_LOOKUP, Kind.RENEWED})
_CREDENTIAL_PATHS = ("/creds/", "/issue/")
# a token's requests about itself make no lease, even when they are wrapped
_LEASELESS = ("auth/token/", "sys/", "cubbyhole/")
_ABOUT_WRAPPED = frozenset({Rule.WRAPPED_LEASE, Rule.OUTSIDE_TEMPLATE})


def left_out_problems(receipt: Receipt, found: Scan, home: str) -> Iterator[str]:
    """Yield what the receipt leaves out.

    These are leases, tokens and uses, and acts that can have faked an end. `home` is the id of jitvault's namespace,
    empty where the auditor did not give it.
    """
    lines = found.observations
    yield from _other_tasks(receipt, found, home_of(receipt, found, home))
    yield from _unknown_leases(receipt, lines)
    yield from _wrapped_reads(receipt, lines)
    for credential in credentials(receipt):
        yield from _used_later(credential, lines)
        yield from _hazards(credential, found)


def unclaimed_tokens(receipt: Receipt, found: Scan, home: str) -> int:
    """Return how many tokens of the task's time the receipt does not claim.

    They are of the worker's roles. The line of a creation names no task. The task's time is from its first request, or
    the beginning of the files, to its seal and to the last line that published something of it.
    """
    here = home_of(receipt, found, home)
    begun = found.begun or found.first
    ended = max(found.ended or receipt.sealed_at, receipt.sealed_at)
    others = (made for request, made in found.created.items() if request not in found.claimed)
    made = (at for at, namespace in others if namespace == here or not here)
    return sum(1 for at in made if begun is not None and begun <= at <= ended)


def _other_tasks(receipt: Receipt, found: Scan, home: str) -> Iterator[str]:
    """Yield lines that pair our token with another task, or the reverse."""
    own = {grant.accessor_hmac for grant in receipt.grants if grant.accessor_hmac}
    ours = {one.place for one in found.tasks if one.accessor in own}
    # what another audit device shows of a token of ours is no other token
    there = [one for one in found.tasks if one.accessor in own or one.place not in ours]
    named = sorted({(one.accessor, one.task) for one in there if one.namespace_id == home or not home})
    for accessor, task in named:
        if accessor in own and task != receipt.task:
            yield f"Vault gave the token {accessor[:28]} to task {one_line(task)!r:.80}"
        elif accessor not in own:
            # a task's id is never used again
            yield f"Vault shows a token of this task that the receipt leaves out: {accessor[:28]}"
    if receipt.proof.leases and not any(accessor in own and task == receipt.task for accessor, task in named):
        yield "no line of the files shows that Vault gave one of these tokens to this task"


def _wrapped_reads(receipt: Receipt, lines: list[Observation]) -> Iterator[str]:
    """Yield each wrapped read that no finding of the receipt names.

    No line shows what such a read gave before somebody opens it. A path that is open to everybody gives no lease, and
    of a flood of such reads not each one has its finding.
    """
    own = {grant.accessor_hmac for grant in receipt.grants if grant.accessor_hmac}
    found = {one.line for one in receipt.findings if one.rule in _ABOUT_WRAPPED}
    requests: dict[str, list[Observation]] = {}
    for line in lines:
        may_lease = not line.path.startswith(_LEASELESS) and "open_to_all" not in line.detail
        if line.actor in own and line.kind is Kind.USED and may_lease:
            requests.setdefault(line.request_id or line.line, []).append(line)
    for read in requests.values():
        is_failed = any(line.closing and line.failed for line in read)
        if is_wrapped(read) and not is_failed and not found & {line.line for line in read}:
            at = f"{one_line(read[0].path)!r:.120} at {rfc3339(read[0].at)}"
            yield f"a token of the task read {at} in a wrapping, and no finding of the receipt says so"


def _unknown_leases(receipt: Receipt, lines: list[Observation]) -> Iterator[str]:
    own = {grant.accessor_hmac for grant in receipt.grants if grant.accessor_hmac}
    known = {lease.lease_id for lease in receipt.proof.leases}
    derived = derived_tokens(lines)
    given = [(line, lease) for line in lines if done(line) and (lease := issued(line)) is not None]
    ours = {line.request_id for line, _ in given if line.request_id and owning_token(line, derived) in own}
    for line, lease in given:
        is_own = owning_token(line, derived) in own
        if is_own and lease.lease_id not in known:
            yield f"the receipt leaves out lease {one_line(lease.lease_id)}, read at {rfc3339(line.at)}"
        elif not is_own and lease.lease_id in known and line.request_id not in ours:
            yield f"lease {one_line(lease.lease_id)} was read by a token that is none of the receipt's"


def _used_later(credential: Credential, lines: list[Observation]) -> Iterator[str]:
    """Yield the first use of a token, and sign of its life, after its end.

    The end is where it was seen gone. Only requests that came afterwards count: an answer may come later than its
    request.
    """
    gone_at = _time_of(credential, 3)
    if not credential.accessor or gone_at is None:
        return
    late = (o for o in lines if o.actor == credential.accessor and o.kind in _USES and not o.closing and o.at > gone_at)
    first = next(late, None)
    if first is not None:
        how = f"{one_line(first.path)!r:.120} at {rfc3339(first.at)}"
        yield f"{credential.name} was used after it was seen gone: {how}"
    about = [o for o in lines if o.subject == credential.accessor and o.kind in _SHOW_LIFE]
    before = {o.request_id for o in about if not o.closing and o.at <= gone_at}
    after = (o for o in about if o.at > gone_at and o.request_id not in before)
    living = next((o for o in after if done(o) and "revocation_begun" not in o.detail), None)
    if living is not None:
        yield f"{credential.name} lived after it was seen gone: {living.path} at {rfc3339(living.at)}"


def _hazards(credential: Credential, found: Scan) -> Iterator[str]:
    """Yield the acts that check 4 should have named.

    An act that takes records away did not take this one where the credential was seen after the act.
    """
    check = credential.check(4)
    issue, end, gone = (_time_of(credential, n) for n in (1, 2, 3))
    if check is None or not check.ok or issue is None or gone is None:
        return
    own = found.observations
    spaces = {id(one.observation): one.namespace for one in found.about}
    home = _namespace_of(credential, found)
    mount, lease_path = _mount_and_path(credential)
    seen_alive = [o.at for o in own if _found_alive(o, credential, found)]
    for act in hazardous_acts(own):
        there = spaces[id(act)]
        # an act in a namespace above concerns this one as well
        here = not there or f"{home}/".startswith(f"{there}/")
        if not here or not issue <= act.at <= gone:
            continue
        if not touches(act.path, mount, lease_path, token=not credential.lease_id):
            continue
        is_write = act.path.startswith(f"{mount}/")
        if is_write or end is None or not any(act.at < at <= end for at in seen_alive):
            shown = f"{one_line(act.path)!r:.120} at {rfc3339(act.at)} (line {act.line[:16]})"
            yield f"{one_line(credential.name)}: check 4 says that nothing came in between, and the files show {shown}"


def _found_alive(line: Observation, credential: Credential, found: Scan) -> bool:
    if not done(line):
        return False
    if not credential.lease_id:
        return line.kind is Kind.TOKEN_LOOKUP and line.subject == credential.accessor
    gone = _line_of(credential, 3, found)
    same = gone.observation.subject if gone is not None and gone.observation is not None else ""
    return line.kind is Kind.LEASE_LOOKUP and line.subject == same != ""


def _namespace_of(credential: Credential, found: Scan) -> str:
    seen = _line_of(credential, 1, found)
    return seen.namespace if seen is not None else ""


def _line_of(credential: Credential, n: int, found: Scan) -> SeenLine | None:
    return next((found.named.get(line) for _, line in lines_in(stated(credential.check(n)))), None)


def _mount_and_path(credential: Credential) -> tuple[str, str]:
    """Return the mount of a credential, and the path of its lease."""
    if not credential.lease_id:
        role = credential.grant.role if credential.grant else ""
        return "auth/token", f"auth/token/create/{role}/"
    part = next((part for part in _CREDENTIAL_PATHS if part in credential.lease_id), "/")
    return credential.lease_id.partition(part)[0], credential.lease_id


def _time_of(credential: Credential, n: int) -> datetime | None:
    return time_of(stated(credential.check(n)))
