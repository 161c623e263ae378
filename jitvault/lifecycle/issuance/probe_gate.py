"""Refuse a grant whose end the probe could not prove.

The probe's login may have been changed since the template's check. So it logs in once more before each grant.
"""

from __future__ import annotations

from jitvault.context import WorkerContext
from jitvault.errors import InvalidInput, NotConfirmed, ProbeUnusable, UsageError
from jitvault.lifecycle.confirmation.wrapped_read_probes import probe_target
from jitvault.model.revision import Revision
from jitvault.policy.decision import ProofLevel, needed_proof_level

_MEND = (
    "An administrator corrects the probe's login at the target, or its document in jitvault/probes/; `jitvault doctor` "
    "says when it gets in. Then run the same command again."
)


def check_probes(worker: WorkerContext, revision: Revision, obliged: ProofLevel | None) -> None:
    """Raise InvalidInput where a probe could not ask its target about the end.

    A target that does not answer, or lets nobody in any more, says nothing about the probe. Agents can bring that
    about, and nobody else shall be refused by it. `obliged` is the proof level that policy requires of every access.
    """
    probes = {
        (entry["engine"], entry["probe"]): entry["template"]
        for entry in revision.access
        if needed_proof_level(entry["confirm"], obliged) == ProofLevel.TARGET
    }
    for (engine, probe), template in sorted(probes.items()):
        refused = f"template {template} is not granted, since its end could not be proven: the probe {probe}"
        try:
            lacking = worker.engines[engine].missing_rights(probe_target(worker, probe))
        except (ProbeUnusable, UsageError) as error:
            raise InvalidInput(f"{refused}: {error}", hint=_MEND) from None
        except NotConfirmed:
            continue
        if lacking:
            raise InvalidInput(f"{refused} lacks {', '.join(lacking)}", hint=_MEND)
