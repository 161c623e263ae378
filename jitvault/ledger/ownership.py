"""Whose ledger it is.

A ledger belongs to one installation of jitvault, and so to one Vault, for good. It is bound to that installation by the
first process that uses it with the worker's identity. The installation's id lies in Vault, where only an administrator
can write it: nothing that an operator or an agent writes makes a ledger look like another one's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from jitvault.errors import ForeignLedger, LedgerUnavailable, MissingLedger, UnusedLedger
from jitvault.formats.server_product import another_server

if TYPE_CHECKING:
    from jitvault.formats.server_product import Product
    from jitvault.ledger.ledger import Ledger

WITHOUT = "`jitvault status TASK` needs none; it shows the findings of that task as well."
MADE_BY = "Only `jitvault worker` and `jitvault ledger upgrade` make a new ledger."


def unused(place: str) -> UnusedLedger:
    """Return the error for a ledger that no worker has used."""
    return UnusedLedger(
        f"the ledger at {place} is new: no worker has used it yet, so it knows nothing",
        hint="Name the workers' ledger in JITVAULT_LEDGER, or start a worker on this one.",
    )


def foreign(ledger: Ledger, place: str, address: str, *, provisioned: bool, product: Product | None) -> ForeignLedger:
    """Return the error for a ledger of another installation.

    `provisioned` says whether the Vault at `address` has an installation at all.
    """
    why = ""
    with suppress(LedgerUnavailable):
        # a ledger does not know which server it was used with until a worker used it
        why = another_server(ledger.product(), product) or ""
    here = f"that of the Vault at {address}" if provisioned else f"the Vault at {address} is not provisioned"
    message = f"the ledger at {place} belongs to another installation of jitvault than {here}"
    if not provisioned:
        message = f"the ledger at {place} belongs to an installation of jitvault, and {here}"
    return ForeignLedger(
        message + (f": {why}" if why else ""),
        hint="JITVAULT_LEDGER and VAULT_ADDR do not belong together: correct the one that is wrong.",
    )


def missing(error: MissingLedger, *, is_default: bool) -> MissingLedger:
    """Return the error for a ledger that is not there, with what to do.

    `is_default` says that JITVAULT_LEDGER is not set.
    """
    if is_default:
        hint = (
            "JITVAULT_LEDGER is not set, and this is the default. Auditors and workers have the ledger: ask one of "
            f"them, or name the workers' ledger in JITVAULT_LEDGER. {WITHOUT} {MADE_BY}"
        )
        return MissingLedger(str(error), hint=hint)
    return MissingLedger(str(error), hint=f"Name the workers' ledger in JITVAULT_LEDGER. {MADE_BY}")


def knows_nothing(place: str, task_id: str) -> LedgerUnavailable:
    """Return the error for an empty ledger where Vault has tasks."""
    return LedgerUnavailable(
        f"the ledger at {place} knows no task, but Vault knows of task {task_id} and perhaps others",
        hint="JITVAULT_LEDGER names another ledger than the workers', or theirs was lost. Then restore it from a "
        "backup if there is one, and run `jitvault ledger recover`.",
    )
