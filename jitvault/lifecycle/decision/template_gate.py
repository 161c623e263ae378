"""Refuse templates that were not checked, or whose probe is refused.

Nothing is granted whose revocation was not seen to work, or whose end the probe could not prove. The probe's login may
have been changed at the target since the check, so it logs in once more before each grant.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.paths import CHECKS, check_path
from jitvault.documents.template_check import Basis, Record, read_record, template_digest, why_not
from jitvault.engines.interface import Engine, probe_of
from jitvault.errors import InvalidInput, NotConfirmed, ProbeUnusable, UsageError, VaultRefused, VaultRejected
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access
from jitvault.policy.decision import ProofLevel, needed_proof_level

_MEND = (
    "An administrator corrects the probe's login at the target, or its document in jitvault/probes/; `jitvault doctor` "
    "says when it gets in. Then run the same command again."
)


Probes = Mapping[tuple[str, str], tuple[str, Mapping[str, Any]]]
"""By engine and name of a probe: a template that it is for, and its document."""


def check_templates_tested(worker: WorkerContext, revision: Revision, obliged: ProofLevel | None = None) -> Probes:
    """Raise InvalidInput when a template has not passed its check.

    The check has to be about the template as it is now. Only access that needs proof from its target is checked.
    `obliged` is the proof level that policy requires of every access. `revision` was resolved just now, so its digests
    are of what Vault has. The message names the command that helps. Returns the probes of the templates.
    """
    probes: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
    for entry in revision.access:
        if needed_proof_level(entry.confirm, obliged) != ProofLevel.TARGET:
            continue
        name, probe = entry.template, entry.probe
        if probe is None:
            raise InvalidInput(
                f"template {name} is not granted: policy wants its end proven by the target, and it names no probe",
                hint="Give the template a probe, or ask for access by another one.",
            )
        stored = worker.documents.read(f"probes/{probe}")
        if why := _why_not(worker, entry, stored.written_at if stored else None):
            raise InvalidInput(
                f"template {name} is not granted: {why}; an administrator runs `jitvault templates check {name}`",
                hint="Run the same command again when the check has passed. A worker that runs reads edited templates "
                "again at a SIGHUP: without one it still has the template of before.",
            )
        probes[entry.engine, probe] = (name, stored.document if stored else {})
    return probes


def check_provable(worker: WorkerContext, revision: Revision, obliged: ProofLevel | None) -> None:
    """Raise InvalidInput when the target could not prove an end.

    That is when a template has not passed its check, or when the target refuses the probe now. The arguments are those
    of `check_templates_tested`.
    """
    for (engine, probe), (name, where) in sorted(check_templates_tested(worker, revision, obliged).items()):
        if why := _why_refused(worker.engines[engine], where):
            refused = f"template {name} is not granted, since its end could not be proven: the probe {probe}"
            raise InvalidInput(f"{refused}{why}", hint=_MEND)


def _why_refused(engine: Engine, where: Mapping[str, Any]) -> str:
    """Return why a probe cannot ask its target, to follow its name.

    Empty as well for a target that does not answer, or lets nobody in any more: that says nothing about the probe.
    Agents can bring it about, and nobody else shall be refused by it.
    """
    try:
        lacking = probe_of(engine).missing_rights(where)
    except (ProbeUnusable, UsageError) as error:
        return f": {error}"
    except NotConfirmed:
        return ""
    return f" lacks {', '.join(lacking)}" if lacking else ""


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


def _why_not(worker: WorkerContext, entry: Access, probe_at: datetime | None) -> str | None:
    """Return why the check of an access entry's template does not count.

    The result is None where the check counts. `probe_at` is when the probe's document was written.
    """
    name = entry.template
    template = worker.templates.get(name)
    if template is None or f"sha256:{template.digest()}" != entry.template_digest:
        return "the worker has another template of that name"
    return why_not(
        _document(worker, name),
        installation=worker.installation,
        template=name,
        path=entry.path,
        basis=Basis(template_digest(template), entry.engine_config, probe_at),
    )


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
