"""`jitvault export-keys`: take from Vault what receipts are verified by."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from jitvault.cli import session
from jitvault.cli.options import Out
from jitvault.cli.views import output
from jitvault.vault.trusted import trusted

_INIT_MAKES = "jitvault-worker"


def export_keys(
    worker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"The name of an entity that the worker logs in as, {_INIT_MAKES} by default. It can be repeated.",
        ),
    ] = None,
    pki: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MOUNT",
            help="A mount of the PKI engine whose issuers are trusted about its certificates. It can be repeated.",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Write the trust file by which receipts are verified offline.

    It has the public keys of receipts and of everybody who signs, the id of jitvault's namespace, the ids of the
    worker's entities, and the issuers of certificates, as Vault has them now. Take it from Vault yourself, early, and
    keep it offline; `jitvault verify --trust` reads it.

    Example: jitvault export-keys --pki pki --out trust.json
    """
    wiring = session.open_session()
    with output.new_file(out) as file:
        found = trusted(wiring.vault(wiring.person_token or wiring.settings.admin), worker or [_INIT_MAKES], pki or [])
        shown = msgspec.to_builtins(found)
        if file is not None or not output.print_for_scripts(shown, found.namespace.id):
            output.text(output.to_json(shown) + "\n", out=file)
