"""`jitvault verify`: check a receipt on any machine, from files alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from jitvault.cli.views import verification as view
from jitvault.documents.trust import read_trust_file
from jitvault.errors import InvalidInput, NotConfirmed, SecurityFinding, UsageError
from jitvault.formats.plural import counted
from jitvault.formats.shorten import one_line
from jitvault.verification.history import History, read_history
from jitvault.verification.keys import MAX_KEY_FILE, ReceiptKey, read_keys
from jitvault.verification.log_lines import files_in, lines_of
from jitvault.verification.signature import MAX_RECEIPT
from jitvault.verification.trust import Trust, keys_in, trust_in
from jitvault.verification.verify import verify as verified

_LOOKED_AT = 100
"""How many lines of a file are looked at before it is called no audit log."""
_MAX_HISTORY = 256 * 1024 * 1024


def verify(
    receipt: Annotated[
        Path, typer.Argument(metavar="RECEIPT", help="The receipt that `jitvault report TASK --receipt` wrote.")
    ],
    trust: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `jitvault export-keys` wrote, for the next three."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="The public key of receipts, as PEM or as Vault shows it in JSON."),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The id of jitvault's namespace in Vault: `root`, or another."),
    ] = None,
    worker_entity: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="The id of an entity that the worker logs in as. It can be repeated."),
    ] = None,
    audit: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="An audit file, also a rotated or compressed one, or a directory of them. It can be repeated.",
        ),
    ] = None,
    status: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `jitvault status TASK -o json` printed, with its history."),
    ] = None,
) -> None:
    """Verify a receipt offline, and say what was checked and what was not.

    The command needs no Vault, no ledger and no setting, only these files. It exits with 0 if every check was made and
    holds, with 12 if one does not hold, and with 6 if one could not be made; with 8 where an --audit FILE is no audit
    log.

    Without --audit it checks the signature, and that each verdict follows from the evidence in the receipt. With the
    audit files it also finds each line that the receipt names, compares it with what the receipt says, and looks for
    what the receipt leaves out. With the ids of jitvault's namespace and of the worker's entities it says whether
    those lines are the worker's.

    Example: jitvault verify receipt.json --trust trust.json --audit audit.log
    """
    data = _content(receipt, MAX_RECEIPT, "receipt")
    keys, known = _trusted(trust, key, namespace, worker_entity or ())
    files = files_in(audit or ())
    found = verified(data, keys, history=_history(status), files=[lines_of(path) for path in files], trust=known)
    if found.outcome.problems:
        # whoever named another file by mistake must not read that the receipt does not hold
        _check_audit_logs(audit or ())
    view.print_verified(found)
    if found.outcome.holds is None:
        missing = ", ".join(one.name for one in found.outcome.not_made)
        raise NotConfirmed(
            f"nothing contradicts the receipt of task {found.receipt.task}, and not everything was checked: {missing}",
            hint="--audit and --trust give what is missing; docs/auditors.md says where they come from.",
        )
    if not found.outcome.holds:
        first, *more = found.outcome.problems
        also = f", and {len(more)} more" if more else ""
        raise SecurityFinding(
            one_line(f"the receipt of task {found.receipt.task} does not hold: {first}{also}"),
            hint="Nothing in it is proven then. Keep the files as they are, and ask who has the ledger.",
        )


def _trusted(
    trust: Path | None, key: Path | None, namespace: str | None, workers: Sequence[str]
) -> tuple[list[ReceiptKey], Trust]:
    """Return the receipts' keys, and what the auditor knows besides.

    An empty id is none. Raises UsageError, InvalidInput.
    """
    if trust is None:
        if key is None:
            raise UsageError(
                "verify needs --trust FILE, or --key PEM", hint="`jitvault export-keys --out FILE` writes a trust file."
            )
        known = Trust(namespace or "", frozenset(filter(None, workers)))
        return read_keys(_content(key, MAX_KEY_FILE, "key file")), known
    if key is not None or namespace or workers:
        raise UsageError(
            "--trust stands for --key, --namespace and --worker-entity", hint="Give the file, or these options."
        )
    file = read_trust_file(_content(trust, MAX_KEY_FILE, "trust file"))
    return keys_in(file), trust_in(file)


def _check_audit_logs(named: Sequence[Path]) -> None:
    """Raise InvalidInput for a file that was named and has no audit entry."""
    for path in named:
        lines = list(islice(lines_of(path), _LOOKED_AT)) if path.is_file() else []
        if lines and not any(line.entry for line in lines):
            raise InvalidInput(
                f"--audit {path} is no audit log: none of its first {counted(len(lines), 'line')} is an audit entry",
                hint="Name the file that Vault's audit device writes, or a directory of its rotated files.",
            )


def _history(status: Path | None) -> History | None:
    return None if status is None else read_history(_content(status, _MAX_HISTORY, "history"))


def _content(path: Path, most: int, what: str) -> bytes:
    """Return a file's bytes.

    Raises UsageError, and InvalidInput for a file of more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"the {what} {path} cannot be read: {error.strerror}", hint="Name a file.") from None
    if len(data) > most:
        raise InvalidInput(f"{path} is larger than {most >> 20} MiB, so it is no {what}", hint="Name another file.")
    return data
