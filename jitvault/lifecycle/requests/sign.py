"""Sign what a person writes to Vault for the worker.

These are requests and decisions.

    requests/<entity id>/<task>/submit   the spec
    requests/<entity id>/<task>/grant    issue it now
    requests/<entity id>/<task>/extend   move its deadline
    requests/<entity id>/<task>/end      end it: completed, cancelled, revoked or intercepted
    decisions/<entity id>/<task>         approve or deny one digest
    decisions/<entity id>/<task>/extend/<digest>  the same of an extension
    decisions/<entity id>/<task>/withdraw  the approvals given until then count no more
    freezes/<entity id>/<scope>          grant nothing more of a scope, or lift that

Vault lets only the entity in the path write there, and only that entity use its signing key.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from jitvault.context import Person, new_id
from jitvault.documents.paths import APPROVAL_LIFE, decision_path, freeze_path, request_path
from jitvault.documents.signed import DOCUMENT_TYPE, check_name, check_note, signer_key
from jitvault.errors import InvalidInput
from jitvault.formats.canonical_json import digest_of
from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.extension import Extension, extension_part
from jitvault.model.revision import Revision
from jitvault.model.scope import Scope
from jitvault.model.spec import TaskSpec
from jitvault.model.states import EndReason


def sign_submission(person: Person, spec: TaskSpec, *, revise: bool) -> None:
    _sign(
        person, request_path(person.entity, spec.id, "submit"), "submit", spec.id, spec=spec.canonical(), revise=revise
    )


def sign_grant_request(person: Person, spec: TaskSpec, *, queued_until: datetime | None = None) -> str:
    """Request that exactly this spec is issued; return the nonce.

    With `queued_until` the request waits until then if it cannot be granted now.
    """
    fields: dict[str, object] = {"spec_digest": digest_of(spec.canonical())}
    if queued_until is not None:
        fields["queued_until"] = rfc3339(queued_until)
    return _sign(person, request_path(person.entity, spec.id, "grant"), "grant", spec.id, **fields)


def sign_extension(
    person: Person, revision: Revision, *, ends_at: datetime, seconds: int, reason: str, cancels: str | None = None
) -> str:
    """Request that the deadline of a granted revision is moved by `seconds`.

    `ends_at` is the present deadline. With `cancels`, the nonce of such a request, that request is taken back. Returns
    the nonce of what was signed. Raises InvalidInput.
    """
    if not check_note(reason):
        raise InvalidInput("--reason: expected a reason", hint="Approvers read it.")
    task_id = revision.spec.id
    fields: dict[str, object] = {
        "digest": revision.digest,
        "ends_at": rfc3339(ends_at),
        "seconds": seconds,
        "reason": reason,
    }
    if cancels is not None:
        fields["cancels"] = cancels
    return _sign(person, request_path(person.entity, task_id, "extend"), "extend", task_id, **fields)


def sign_end(person: Person, task_id: str, *, reason: EndReason | None, note: str, force: bool = False) -> None:
    """Request the end of a task.

    `reason` None is a cancellation before the grant. `force` requests that the task is closed even where its end cannot
    be proven, which only operators can. Raises InvalidInput.
    """
    said = reason.value if reason else "cancelled"
    if force:
        said = "forced"
    _sign(person, request_path(person.entity, task_id, "end"), "end", task_id, reason=said, note=check_note(note))


def sign_decision(
    person: Person,
    revision: Revision,
    *,
    decision: str,
    groups: Sequence[str],
    reason: str,
    extension: Extension | None = None,
) -> datetime:
    """Sign `approve` or `deny` for a revision, or an extension of it.

    The decision is in the name of `groups`. Returns the time until which an approval can be used. Raises InvalidInput.
    """
    expires = person.clock.agreed() + APPROVAL_LIFE
    task_id = revision.spec.id
    extends = {"digest": extension.digest, "requester": extension.by.entity} if extension else {}
    below = extension_part(extension.digest) if extension else ""
    fields = {
        **_about(revision),
        **extends,
        "decision": decision,
        "groups": sorted(groups),
        "reason": check_note(reason),
        "expires_at": rfc3339(expires),
    }
    _sign(person, decision_path(person.entity, task_id, below), "decision", task_id, **fields)
    return expires


def sign_withdrawal(person: Person, revision: Revision, *, reason: str) -> None:
    """Withdraw every approval that the person gave until now.

    Raises InvalidInput.
    """
    task_id = revision.spec.id
    path = decision_path(person.entity, task_id, "/withdraw")
    _sign(person, path, "withdraw", task_id, **_about(revision), reason=check_note(reason))


def _about(revision: Revision) -> dict[str, object]:
    content = revision.content
    return {
        "digest": revision.digest,
        "revision": content.revision,
        "requester": content.requester.entity,
    }


def sign_freeze(person: Person, scope: Scope, *, freezes: bool, reason: str) -> None:
    """Freeze a scope, or lift the freeze. Raises InvalidInput."""
    named = {"agent": scope.agent, "template": scope.template, "owner": scope.owner}
    fields = {part: check_name(name) for part, name in named.items()}
    path = freeze_path(person.entity, scope.key)
    _sign(person, path, "freeze", scope.key, **fields, freezes=freezes, reason=check_note(reason))


def _sign(person: Person, path: str, kind: str, task_id: str, **fields: object) -> str:
    """Sign a document and write it to Vault; return its nonce."""
    nonce = new_id()
    payload = {
        "kind": kind,
        "task": task_id,
        "entity": person.entity,
        "nonce": nonce,
        "at": rfc3339(person.clock.agreed()),
        **fields,
    }
    person.documents.put(path, person.signer.sign(payload, DOCUMENT_TYPE, key=signer_key(person.entity)))
    person.written[path] = kind
    return nonce
