"""What the audit files show about a task and its receipt does not say."""

from __future__ import annotations

from collections.abc import Iterator

from jitvault.audit.observation import Kind, Observation, issued
from jitvault.audit.trail import derived_tokens, done, owning_token
from jitvault.audit.tripwires.trip import Rule
from jitvault.documents.receipt import Receipt
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.shorten import one_line
from jitvault.lifecycle.confirmation.hazards import hazardous_acts, touches
from jitvault.lifecycle.confirmation.wrapped_reads import is_wrapped
from jitvault.verification.audit_scan import Scan, ScannedLine, jitvaults_namespace
from jitvault.verification.evidence import lines_in, time_of
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import PREDICATE, Credential, accessors_of, credentials

_LEASES = f"{PREDICATE}/proof/leases"
_GRANTS = f"{PREDICATE}/grants"

_USES = frozenset({Kind.USED, Kind.LEASE_ISSUED, Kind.RENEWED})
_SHOW_LIFE = frozenset({Kind.TOKEN_LOOKUP, Kind.RENEWED})
_CREDENTIAL_PATHS = ("/creds/", "/issue/")
# a token's requests about itself make no lease, even when they are wrapped
_LEASELESS = ("auth/token/", "sys/", "cubbyhole/")
_ABOUT_WRAPPED = frozenset({Rule.WRAPPED_LEASE, Rule.OUTSIDE_TEMPLATE})


def left_out_problems(receipt: Receipt, scan: Scan, namespace_id: str) -> Iterator[Problem]:
    """Yield what the receipt leaves out.

    These are leases, tokens and uses, and acts that can have faked an end. `namespace_id` is that of jitvault's
    namespace, empty where the auditor did not give it.
    """
    lines = scan.observations
    yield from _other_tasks(receipt, scan, jitvaults_namespace(receipt, scan, namespace_id))
    yield from _unknown_leases(receipt, lines)
    yield from _wrapped_reads(receipt, lines)
    for credential in credentials(receipt):
        yield from _used_later(credential, lines)
        yield from _hazards(credential, scan)


def unclaimed_tokens(receipt: Receipt, scan: Scan, namespace_id: str) -> int:
    """Return how many tokens of the task's time the receipt does not claim.

    They are of the worker's roles. The line of a creation names no task. The task's time is from its first request, or
    the beginning of the files, to its seal and to the last line that published something of it.
    """
    ours = jitvaults_namespace(receipt, scan, namespace_id)
    begin = scan.first_requested or scan.first
    end = max(scan.last_published or receipt.sealed_at, receipt.sealed_at)
    others = (creation for request, creation in scan.created.items() if request not in scan.claimed)
    times = (at for at, namespace in others if namespace == ours or not ours)
    return sum(1 for at in times if begin is not None and begin <= at <= end)


def _other_tasks(receipt: Receipt, scan: Scan, namespace_id: str) -> Iterator[Problem]:
    """Yield lines that pair our token with another task, or another token with our task."""
    own = accessors_of(receipt)
    of_own = {one.position for one in scan.tasks if one.accessor in own}
    # what another audit device shows of a token of ours is no other token
    distinct = [one for one in scan.tasks if one.accessor in own or one.position not in of_own]
    ours = [one for one in distinct if one.namespace_id == namespace_id or not namespace_id]
    pairs = sorted({(one.accessor, one.task) for one in ours})
    for accessor, task in pairs:
        if accessor in own and task != receipt.task:
            why = f"Vault gave the token {accessor[:28]} to task {one_line(task)!r:.80}"
            yield Problem(why, (_GRANTS, f"{PREDICATE}/task"))
        elif accessor not in own:
            # a task's id is never used again
            yield Problem(f"Vault shows a token of this task that the receipt leaves out: {accessor[:28]}", (_GRANTS,))
    if receipt.proof.leases and not any(accessor in own and task == receipt.task for accessor, task in pairs):
        why = "no line of the files shows that Vault gave one of these tokens to this task"
        yield Problem(why, (_GRANTS, f"{PREDICATE}/task"))


def _wrapped_reads(receipt: Receipt, lines: list[Observation]) -> Iterator[Problem]:
    """Yield each wrapped read that no finding of the receipt names.

    No line shows what such a read gave before somebody opens it. A path that is open to everybody gives no lease, and
    of a flood of such reads not each one has its finding.
    """
    own = accessors_of(receipt)
    reported = {one.line for one in receipt.findings if one.rule in _ABOUT_WRAPPED}
    requests: dict[str, list[Observation]] = {}
    for line in lines:
        may_lease = not line.path.startswith(_LEASELESS) and "open_to_all" not in line.detail
        if line.actor in own and line.kind is Kind.USED and may_lease:
            requests.setdefault(line.request_id or line.line, []).append(line)
    for read in requests.values():
        is_failed = any(line.closing and line.failed for line in read)
        if is_wrapped(read) and not is_failed and not reported & {line.line for line in read}:
            at = f"{one_line(read[0].path)!r:.120} at {rfc3339(read[0].at)}"
            why = f"a token of the task read {at} in a wrapping, and no finding of the receipt says so"
            yield Problem(why, (f"{PREDICATE}/findings",))


def _unknown_leases(receipt: Receipt, lines: list[Observation]) -> Iterator[Problem]:
    own = accessors_of(receipt)
    known = {lease.lease_id for lease in receipt.proof.leases}
    derived = derived_tokens(lines)
    issues = [(line, lease) for line in lines if done(line) and (lease := issued(line)) is not None]
    by_own = {line.request_id for line, _ in issues if line.request_id and owning_token(line, derived) in own}
    for line, lease in issues:
        is_own = owning_token(line, derived) in own
        if is_own and lease.lease_id not in known:
            why = f"the receipt leaves out lease {one_line(lease.lease_id)}, read at {rfc3339(line.at)}"
            yield Problem(why, (_LEASES,))
        elif not is_own and lease.lease_id in known and line.request_id not in by_own:
            why = f"lease {one_line(lease.lease_id)} was read by a token that is none of the receipt's"
            yield Problem(why, (_LEASES, _GRANTS))


def _used_later(credential: Credential, lines: list[Observation]) -> Iterator[Problem]:
    """Yield the first use of a token, and sign of its life, after a look-up said that it is gone.

    Only requests that came afterwards count: an answer may come later than its request.
    """
    gone_at = time_of(credential.evidence(3))
    if not credential.accessor or gone_at is None:
        return
    late = (o for o in lines if o.actor == credential.accessor and o.kind in _USES and not o.closing and o.at > gone_at)
    first = next(late, None)
    if first is not None:
        how = f"{one_line(first.path)!r:.120} at {rfc3339(first.at)}"
        yield Problem(f"{credential.name} was used after it was seen gone: {how}", (credential.at(3),))
    about = [o for o in lines if o.subject == credential.accessor and o.kind in _SHOW_LIFE]
    before = {o.request_id for o in about if not o.closing and o.at <= gone_at}
    after = (o for o in about if o.at > gone_at and o.request_id not in before)
    living = next((o for o in after if done(o) and "revocation_begun" not in o.detail), None)
    if living is not None:
        why = f"{credential.name} lived after it was seen gone: {living.path} at {rfc3339(living.at)}"
        yield Problem(why, (credential.at(3),))


def _hazards(credential: Credential, scan: Scan) -> Iterator[Problem]:
    """Yield the acts that check 4 should have named.

    An act that takes records away did not take this one where the credential was seen after the act.
    """
    check = credential.check(4)
    issue, end, gone = (time_of(credential.evidence(n)) for n in (1, 2, 3))
    if check is None or not check.ok or issue is None or gone is None:
        return
    lines = scan.observations
    paths = {id(one.observation): one.namespace_path for one in scan.about}
    own_path = _namespace_path(credential, scan)
    mount, lease_path = _mount_and_path(credential)
    seen_alive = [o.at for o in lines if _found_alive(o, credential, scan)]
    for act in hazardous_acts(lines):
        # an act in a namespace above concerns this one as well
        concerns_own = not paths[id(act)] or f"{own_path}/".startswith(f"{paths[id(act)]}/")
        if not concerns_own or not issue <= act.at <= gone:
            continue
        if not touches(act.path, mount, lease_path, token=credential.is_token):
            continue
        is_write = act.path.startswith(f"{mount}/")
        if is_write or end is None or not any(act.at < at <= end for at in seen_alive):
            shown = f"{one_line(act.path)!r:.120} at {rfc3339(act.at)} (line {act.line[:16]})"
            why = f"{credential.name}: check 4 says that nothing came in between, and the files show {shown}"
            yield Problem(why, (credential.at(4),))


def _found_alive(line: Observation, credential: Credential, scan: Scan) -> bool:
    if not done(line):
        return False
    if credential.is_token:
        return line.kind is Kind.TOKEN_LOOKUP and line.subject == credential.accessor
    gone = _line_of(credential, 3, scan)
    subject = gone.observation.subject if gone is not None and gone.observation is not None else ""
    return line.kind is Kind.LEASE_LOOKUP and line.subject == subject != ""


def _namespace_path(credential: Credential, scan: Scan) -> str:
    issue = _line_of(credential, 1, scan)
    return issue.namespace_path if issue is not None else ""


def _line_of(credential: Credential, n: int, scan: Scan) -> ScannedLine | None:
    return next((scan.named.get(sha256) for _, _, sha256 in lines_in(credential.evidence(n))), None)


def _mount_and_path(credential: Credential) -> tuple[str, str]:
    """Return the mount of a credential, and the path of its lease."""
    if credential.is_token:
        role = credential.grant.role if credential.grant else ""
        return "auth/token", f"auth/token/create/{role}/"
    part = next((part for part in _CREDENTIAL_PATHS if part in credential.lease_id), "/")
    return credential.lease_id.partition(part)[0], credential.lease_id
