"""More time for a task that holds access: asked for in a signed request, decided anew, and done.

Where its token can live until the new deadline, the deadline moves and the token is renewed on. Where it cannot, it is
ended and proven dead with all its leases, and only then the next one is made: a task never has two that live. Both
begin with one commit; whatever stops this process after it, the next run goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from jitvault.context import WorkerContext
from jitvault.errors import Denied, InvalidInput, JitvaultError, NotConfirmed
from jitvault.formats.time_window import format_duration
from jitvault.ledger.model import Change, GrantRow, Row, TaskRecord
from jitvault.lifecycle.confirmation.confirm import TaskJudgement, judge
from jitvault.lifecycle.confirmation.reconcile import collect_reconciled
from jitvault.lifecycle.decision.ancestors import cap_to_ancestors, check_extends, is_replaced
from jitvault.lifecycle.decision.evaluate import Standing, evaluate_extension
from jitvault.lifecycle.decision.template_gate import check_templates_tested
from jitvault.lifecycle.issuance.attempts import check_attempt_due
from jitvault.lifecycle.issuance.issue import MAX_ATTEMPTS, issue
from jitvault.lifecycle.record.integrity import check_issuable, published
from jitvault.lifecycle.renewal.cached_reads import with_cached_reads
from jitvault.lifecycle.requests.publish import publish
from jitvault.lifecycle.requests.reader import ExtensionRequest, extension_requests
from jitvault.lifecycle.revocation.results import next_try
from jitvault.lifecycle.revocation.revoke import EndCause, revoke
from jitvault.model.extension import (
    MOST_ASKED,
    Extension,
    extended,
    extension_events,
    is_too_often,
    recent_extension_events,
    whole_window_s,
    window_start,
)
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Party, Revision, grant_terms
from jitvault.model.states import EndReason, State, Verdict
from jitvault.model.ttl import least
from jitvault.model.vault_access import cap_of, role_name, smallest_cap
from jitvault.policy.decision import Obligations
from jitvault.stream.reading import canary

_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request for more time, and what it comes to. `replaces`: its token cannot live so long."""

    request: ExtensionRequest
    extension: Extension
    replaces: bool


def extend(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Do what was asked for since the last look: move the deadline, note who is missing, or refuse it.

    The caller has just seen that the task may go on. Afterwards it may be `issuing`: `issue_replacement` goes on.
    """
    # to see who asked for nothing; what is asked for is decided by what is there now
    asked = None if worker.is_late() else _open_request(with_cached_reads(worker), file)
    if asked is None:
        return
    revision = Revision.of(file.revision.body)
    try:
        standing = evaluate_extension(worker, revision, asked.extension, asked.request.by)
        _check_possible(worker, file, revision, asked, standing)
    except (Denied, InvalidInput) as error:
        _refuse(worker, file, claim, asked, error)
        return
    if standing.state is State.PENDING_APPROVAL or not _is_there_to_take(revision, asked, standing):
        _wait(worker, file, claim, asked, standing)
        return
    # no more time on a stream that lags or is another Vault's
    canary(worker)
    _apply(worker, file, claim, asked, standing)


_AGAIN = "The task goes on until its deadline. Ask again when that is so, or have another task granted."


def is_replaced_token_unproven(file: TaskRecord) -> bool:
    """Whether the token that an extension is to replace may live still; nothing of the next one is made before."""
    return is_replaced(file.task) and any(grant.delivered and not grant.settled for grant in file.grants)


def issue_replacement(worker: WorkerContext, file: TaskRecord, claim: int) -> EndCause | None:
    """Go on with an extension that the task's token cannot live for: end it, prove it dead, issue the next one.

    What a run before this one may have made of the next one is settled. Gives why the task ends where it cannot be.
    Raises NotConfirmed while the old one is not proven dead.
    """
    event = extended(file.events)[-1]
    if is_replaced_token_unproven(file):
        _end_old(worker, file, claim)
        file = worker.file(file.task.task_id)
    first = next(grant.attempt for grant in file.grants if grant.grant_id == event.body["replaces"])
    made = [grant for grant in file.grants if grant.attempt > first and grant.accessor_hmac is not None]
    if len(made) >= MAX_ATTEMPTS:
        return EndReason.ISSUE_FAILED, {"note": "the token for its extension could not be delivered"}
    worker.ledger.extend(file.task.task_id, claim)
    check_attempt_due(worker, file, claim)
    publish(worker, file, None)
    check_issuable(worker, file, published(worker, file.task.task_id), claim)
    canary(worker)
    try:
        # the window's cap was held against the whole of it: counted from now it would cut it short, or not at all
        issue(worker, file, claim, replace(Obligations.of(event.body["obligations"]), max_window_s=None))
    except InvalidInput as error:
        return EndReason.ISSUE_FAILED, {"note": str(error)}
    return None


def _open_request(worker: WorkerContext, file: TaskRecord) -> _Asked | None:
    """The request that nobody has answered: the requester's, or the agent's where there is none."""
    task, revision = file.task, Revision.of(file.revision.body)
    began, ends_at = window_start(file.events), task.ends_at
    if began is None or ends_at is None:
        return None
    parts = [revision.content[part]["entity"] for part in ("requester", "agent")]
    answered = {
        event.body["request"] for event in extension_events(file.events) if event.kind != EventKind.EXTENSION_PENDING
    }
    for request in extension_requests(worker, task.task_id, parts, digest=revision.digest, ends_at=ends_at):
        too_often = is_too_often(file.events, request.by.id, request.nonce, worker.now())
        if request.nonce not in answered and not too_often:
            until = ends_at + timedelta(seconds=request.seconds)
            extension = Extension(
                installation=worker.installation,
                task=task.task_id,
                revision=task.revision,
                revision_digest=revision.digest,
                by=Party(request.by.id, request.by.name),
                reason=request.reason,
                since=ends_at,
                seconds=request.seconds,
                window_s=whole_window_s(began, until),
            )
            return _Asked(request, extension, _outlives(worker, file.grants[-1], extension))
    return None


def _outlives(worker: WorkerContext, grant: GrantRow, extension: Extension) -> bool:
    """Whether the token cannot be renewed up to the new deadline: only its role's cap counts, as it is now."""
    role = worker.tokens.role(grant.role) or {}
    capped_s = int(role.get("token_explicit_max_ttl") or 0)
    cap = min(cap_of(grant.role), timedelta(seconds=capped_s)) if capped_s else cap_of(grant.role)
    return grant.issued_at is None or extension.until > grant.issued_at + cap


def _check_possible(
    worker: WorkerContext, file: TaskRecord, revision: Revision, asked: _Asked, standing: Standing
) -> None:
    """Raise InvalidInput or Denied where the task cannot have so long, or no token could be made for it."""
    extension, task_id, obligations = asked.extension, file.task.task_id, standing.decision.obligations
    if standing.state is State.DENIED:
        raise Denied(f"task {task_id} is not extended: {standing.why_denied}", hint=_AGAIN)
    longest_s = min(entry["max_window_s"] for entry in revision.access)
    whole = format_duration(timedelta(seconds=extension.window_s))
    if extension.window_s > longest_s:
        most = format_duration(timedelta(seconds=longest_s))
        raise InvalidInput(f"task {task_id}: its window would be {whole}; its templates allow {most}", hint=_AGAIN)
    if obligations.max_window_s is not None and extension.window_s > obligations.max_window_s:
        most = format_duration(timedelta(seconds=obligations.max_window_s))
        raise Denied(f"task {task_id}: its window would be {whole}; policy allows {most}", hint=_AGAIN)
    check_extends(worker, revision, extension.until)
    if not asked.replaces:
        return
    now = worker.now()
    caps = replace(obligations, max_window_s=None)
    granted = grant_terms(revision, now, cap_to_ancestors(worker, revision, now, caps), until=extension.until)
    role = role_name(smallest_cap(timedelta(seconds=granted.window_s)), revision.spec.spec.network)
    if worker.tokens.role(role) is None:
        hint = "An administrator provisions it with `jitvault init`."
        raise InvalidInput(f"task {task_id}: token role {role} is missing", hint=hint)
    check_templates_tested(worker, revision, obligations.confirm)


def _is_there_to_take(revision: Revision, asked: _Asked, standing: Standing) -> bool:
    """Whether somebody takes a new token, where there will be one: as for a grant, whoever asked after the last
    approval does, and an agent's inbox is watched.
    """
    if not asked.replaces or revision.spec.spec.deliver == "agent":
        return True
    by_requester = asked.request.by.id == revision.content["requester"]["entity"]
    return by_requester and all(vote.written_at < asked.request.written_at for vote in standing.tally.approved_by)


def _apply(worker: WorkerContext, file: TaskRecord, claim: int, asked: _Asked, standing: Standing) -> None:
    """The deadline moves in one commit. What is renewed then is due at once; what is replaced has no access before
    the next token is there.
    """
    now, grant, obligations = worker.now(), file.grants[-1], standing.decision.obligations
    ttl_s, step_s = (least(length, obligations.max_ttl_s) for length in (grant.ttl_s, grant.step_s))
    rows: list[Row] = []
    if not asked.replaces:
        rows = [replace(grant, ttl_s=ttl_s, step_s=step_s, rolling=True, renew_at=now)]
        rows += [replace(lease, renew_at=now) for lease in file.leases if lease.verdict is Verdict.LIVE]
    body = {
        **_said(asked, standing),
        "replaces": grant.grant_id if asked.replaces else None,
        "ends_at": asked.extension.until.isoformat(),
    }
    change = Change(
        EventKind.EXTENDED,
        body,
        state=State.ISSUING if asked.replaces else None,
        fields={"ends_at": asked.extension.until, "due_at": now},
        rows=rows,
    )
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=now)


def _wait(worker: WorkerContext, file: TaskRecord, claim: int, asked: _Asked, standing: Standing) -> None:
    tally = standing.tally
    body = {
        **_said(asked, standing),
        "replaces": asked.replaces,
        "missing": tally.missing_json(),
        "open_to": list(tally.open_to(standing.decision.obligations.approvals)),
        "refused": [refusal.as_json() for refusal in tally.refused],
    }
    last = extension_events(file.events)
    if (
        last
        and last[-1].kind == EventKind.EXTENSION_PENDING
        and all(last[-1].body.get(key) == value for key, value in body.items())
    ):
        return
    if len(recent_extension_events(file.events, asked.request.by.id, worker.now())) >= MOST_ASKED:
        # whoever may decide can write something else each time
        return
    worker.ledger.apply(file.task.task_id, Change(EventKind.EXTENSION_PENDING, body), claim=claim, at=worker.now())


def _refuse(worker: WorkerContext, file: TaskRecord, claim: int, asked: _Asked, error: JitvaultError) -> None:
    """Tell it once. What a person was told is refused is not granted later, when nobody looks."""
    body = {
        **_about(asked),
        "error": {"exit_code": error.exit_code, "message": str(error), "hint": error.hint},
    }
    worker.ledger.apply(file.task.task_id, Change(EventKind.EXTENSION_REFUSED, body), claim=claim, at=worker.now())


def _about(asked: _Asked) -> dict[str, Any]:
    extension = asked.extension
    return {"digest": extension.digest, "request": asked.request.nonce, "extension": extension.content}


def _said(asked: _Asked, standing: Standing) -> Mapping[str, Any]:
    """What the chain keeps of the decision."""
    approved = [{"entity": vote.entity_id, "name": vote.name} for vote in standing.tally.approved_by]
    return {**_about(asked), **standing.decision.as_json(), "approved_by": approved}


def _end_old(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """End the token and its leases, and prove all of it dead. Raises NotConfirmed where it cannot be proven yet."""
    task_id = file.task.task_id
    old = next(grant.grant_id for grant in file.grants if not grant.settled)
    for _ in range(_ROUNDS):
        worker.ledger.extend(task_id, claim)
        # what was in flight gets a lease all the same: it is in the next round
        revoke(worker, file, claim)
        evidence = collect_reconciled(worker, task_id, claim)
        file = evidence.file
        found = judge(worker, evidence)
        if found.proven:
            break
    rows: tuple[Row, ...] = (*found.leases, *found.checks)
    if not found.proven:
        _keep_unproven(worker, file, claim, found)
        raise NotConfirmed(
            f"task {task_id}: its old token and leases are revoked and not proven dead yet, so it has no new token",
            hint=f"`jitvault status {task_id}` names the check that failed; the next command on the task tries again.",
        )
    newest = evidence.newest
    settled = next(replace(one, settled=True) for one in found.grants if one.grant_id == old)
    body = {"grant": old, "verdict": settled.verdict.value, "canary": newest.place.offset}
    change = Change(EventKind.ATTEMPT_SETTLED, body, rows=(settled, *rows))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _keep_unproven(worker: WorkerContext, file: TaskRecord, claim: int, found: TaskJudgement) -> None:
    """Keep what an old token lacks to be proven dead, and try later each time.

    People hear of it as of any end that is not proven: until then the task holds no access, and an operator can end it.
    """
    now, begun = worker.now(), datetime.fromisoformat(extended(file.events)[-1].at)
    rows: tuple[Row, ...] = (*found.grants, *found.leases, *found.checks)
    change = Change(EventKind.JUDGED, {"replaced": "not proven"}, fields={"due_at": next_try(begun, now)}, rows=rows)
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=now)
    worker.ledger.tell_unproven(file.task.task_id, now)
