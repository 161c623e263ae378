"""`jitvault ledger`: create, upgrade, check and copy the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from jitvault.cli import session
from jitvault.cli.views.output import print_lines
from jitvault.errors import SecurityFinding, VaultRefused, VaultUnavailable
from jitvault.formats.plural import counted
from jitvault.ledger.chains import ChainCheck, lacking, look
from jitvault.ledger.copy import copy
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.storage.database import Database, opened, raw, upgrade, version
from jitvault.ledger.storage.rights import grants
from jitvault.lifecycle.record.integrity import published_heads
from jitvault.vault.documents import Documents
from jitvault.wiring import Wiring


def ledger_upgrade() -> None:
    """Create the ledger's tables, or upgrade them to this version.

    Workers may go on running meanwhile.

    Example: jitvault ledger upgrade
    """
    wiring = session.open_session()
    database = raw(_address(wiring))
    if version(database) is not None:
        wiring.check_owner(Ledger(database))
    before, after = upgrade(database)
    if before is None:
        what = "created"
    elif before == after:
        what = "not changed"
    else:
        what = f"upgraded from version {before}"
    place = wiring.ledger_place
    shown = {"before": before, "after": after, "ledger": place}
    print_lines(shown, f"The ledger at {place} was {what}: version {after}.")


def ledger_grants(
    role: Annotated[str, typer.Argument(help="The role of PostgreSQL as which a worker or a reader logs in.")],
    reader: Annotated[bool, typer.Option("--reader", help="For an auditor, who only reads.")] = False,
    inside: Annotated[str, typer.Option("--schema", metavar="NAME", help="The schema with the tables.")] = "public",
) -> None:
    """Print the SQL that gives a role what it needs at a ledger on PostgreSQL.

    It takes away whatever else the role has at these tables. Run it as the owner of the tables, again after each
    upgrade. The command connects to nothing.

    Example: jitvault ledger grants jitvault_worker | psql "$OWNER_URL"
    """
    statements = grants(role, writes=not reader, where=inside)
    print_lines({"statements": statements}, *(f"{line};" for line in statements))


def ledger_check() -> None:
    """Check the ledger's schema and triggers, and every task's event chain.

    The command also compares the chains with what Vault says that the ledger held. It exits with 11 for a schema that
    is not jitvault's, and with 12 where the ledger was edited or an older one was restored.

    Example: jitvault ledger check
    """
    wiring = session.open_session()
    wiring.check_owner(wiring.unchecked_ledger)
    database = opened(_address(wiring), create=False)
    found = look(database)
    heads = _heads(wiring, database)
    failure = edited_or_restored(found, heads["missing"])
    body = {
        "ledger": wiring.ledger_place,
        "version": version(database),
        "counts": dict(found.counts),
        "broken": [{"task_id": name, "problems": what} for name, what in found.broken.items()],
        "unguarded": list(found.unguarded),
        "heads": heads,
        "restored": bool(heads["missing"]) and found.is_whole,
        "ok": failure is None,
    }
    whole = found.counts["tasks"] - len(found.broken)
    counts = f"{counted(found.counts['tasks'], 'task')}, {counted(found.counts['events'], 'event')}"
    print_lines(
        body,
        f"The ledger at {wiring.ledger_place}: version {body['version']}, {counts}.",
        f"{counted(whole, 'chain')} {'is' if whole == 1 else 'are'} whole. {heads['said']}",
    )
    if failure is not None:
        raise failure


def edited_or_restored(found: ChainCheck, missing: Sequence[str]) -> SecurityFinding | None:
    """Return the error for what a check of the ledger found, None if nothing.

    `missing` are the tasks that lack the event that Vault knows of. Where that is all, an older ledger was put back:
    who changes rows breaks a chain, if they do not make all of it anew.
    """
    problems = [f"{name}: {'; '.join(what)}" for name, what in found.broken.items()]
    problems += [f"{name}: events that Vault knows of are missing" for name in missing]
    problems += [f"the trigger {name} is missing: rows can be changed" for name in found.unguarded]
    if not problems:
        return None
    told = ". ".join(problems[:3]) + (f" (and {len(problems) - 3} more)" if len(problems) > 3 else "")
    if not found.is_whole:
        return SecurityFinding(f"the ledger was edited: {told}")
    return SecurityFinding(
        f"the ledger was restored from an older state, or its newest events were deleted or written anew: {told}",
        hint="`jitvault ledger recover` takes in what it lacks. If nobody restored it, treat this as an incident.",
    )


def ledger_copy(
    to: Annotated[str, typer.Option(metavar="URL", help="An empty database, or a path. It is created if needed.")],
) -> None:
    """Copy the whole ledger into an empty database, and verify the copy.

    Stop all workers first. Then name the copy in JITVAULT_LEDGER and start them again.

    Example: jitvault ledger copy --to postgresql://jitvault@db.example.org/jitvault
    """
    wiring = session.open_session()
    wiring.check_owner(wiring.unchecked_ledger)
    source = opened(_address(wiring), create=False)
    target = raw(to, named="--to")
    upgrade(target)
    counts = copy(source, target)
    copied = (
        f"Copied {counted(counts['tasks'], 'task')} with {counted(counts['events'], 'event')}; every chain is whole."
    )
    advice = "Name the copy in JITVAULT_LEDGER, and do not use the old ledger any more."
    print_lines({"counts": counts}, f"{copied} {advice}")


def _address(wiring: Wiring) -> str:
    return wiring.settings.ledger.get_secret_value()


def _heads(wiring: Wiring, database: Database) -> dict[str, Any]:
    """Compare the ledger's chains with the heads published in Vault.

    That needs a token that may read the heads. Returns `{compared, missing, said}`; `compared` is None where Vault
    could not be asked.
    """
    token = wiring.login_if_any or wiring.person_token
    if token is None:
        return {"compared": None, "missing": [], "said": "Not compared with Vault: there is no token."}
    try:
        heads = published_heads(Documents(wiring.vault(token)))
    except (VaultRefused, VaultUnavailable) as error:
        return {"compared": None, "missing": [], "said": f"Not compared with Vault: {error}"}
    missing = lacking(database, heads)
    return {
        "compared": len(heads),
        "missing": missing,
        "said": (
            f"Of {counted(len(heads), 'task')} that Vault knows, {len(heads) - len(missing)} "
            f"{'has' if len(heads) - len(missing) == 1 else 'have'} all events that it knows."
        ),
    }
