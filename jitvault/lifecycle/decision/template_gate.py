"""Refuse templates that have not passed their check.

Nothing is granted whose revocation was not seen to work.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.paths import CHECKS, check_path
from jitvault.documents.template_check import Basis, Record, read_record, template_digest, why_not
from jitvault.errors import InvalidInput, VaultRefused, VaultRejected
from jitvault.model.revision import Revision
from jitvault.policy.decision import ProofLevel, needed_proof_level


def check_templates_tested(worker: WorkerContext, revision: Revision, obliged: ProofLevel | None = None) -> None:
    """Raise InvalidInput when a template has not passed its check.

    The check has to be about the template as it is now. Only access that needs proof from its target is checked.
    `obliged` is the proof level that policy requires of every access. `revision` was resolved just now, so its digests
    are of what Vault has. The message names the command that helps.
    """
    for entry in revision.access:
        if needed_proof_level(entry["confirm"], obliged) != ProofLevel.TARGET:
            continue
        name = entry["template"]
        if entry["probe"] is None:
            raise InvalidInput(
                f"template {name} is not granted: policy wants its end proven by the target, and it names no probe",
                hint="Give the template a probe, or ask for access by another one.",
            )
        if why := _why_not(worker, entry):
            raise InvalidInput(
                f"template {name} is not granted: {why}; an administrator runs `jitvault templates check {name}`",
                hint="Run the same command again when the check has passed. A worker that runs reads edited templates "
                "again at a SIGHUP: without one it still has the template of before.",
            )


def leases_under_check(worker: WorkerContext) -> set[str]:
    """Return the leases that template checks have made and not revoked yet.

    They are listed in documents that administrators wrote. The set is empty where the worker may not read them, since
    the end of a task must not depend on that.
    """
    return {lease for record in _records(worker) for lease in record.running}


def leases_ended_by_checks(worker: WorkerContext) -> frozenset[str]:
    """Return the leases that the last template checks have made and revoked.

    They are listed in documents that administrators wrote.
    """
    return frozenset(lease for record in _records(worker) for lease in record.ended)


def _records(worker: WorkerContext) -> list[Record]:
    """Return the administrators' records of checks.

    The result is None where they are unreadable.
    """
    with suppress(VaultRefused, InvalidInput):
        found = [read_record(_document(worker, name)) for name in worker.templates]
        return [record for record in found if record is not None and record.installation == worker.installation]
    return []


def _why_not(worker: WorkerContext, entry: Mapping[str, Any]) -> str | None:
    """Return why the check of an access entry's template does not count.

    The result is None where the check counts.
    """
    name = entry["template"]
    template = worker.templates.get(name)
    if template is None or f"sha256:{template.digest()}" != entry["template_digest"]:
        return "the worker has another template of that name"
    return why_not(
        _document(worker, name),
        installation=worker.installation,
        template=name,
        path=entry["path"],
        basis=Basis(template_digest(template), entry["engine_config"], _probe_written_at(worker, entry["probe"])),
    )


def _probe_written_at(worker: WorkerContext, probe: str) -> datetime | None:
    stored = worker.documents.read(f"probes/{probe}")
    return stored.written_at if stored else None


def _document(worker: WorkerContext, name: str) -> dict[str, Any] | None:
    try:
        return worker.documents.get(check_path(name))
    except VaultRejected:
        raise
    except VaultRefused:
        raise InvalidInput(
            f"the worker may not read jitvault/{CHECKS}: an administrator runs `jitvault init`",
            hint="Its policy is of an earlier version.",
        ) from None
