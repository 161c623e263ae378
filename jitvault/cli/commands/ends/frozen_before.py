"""The freezes of a scope that are there before it is frozen again."""

from __future__ import annotations

from contextlib import suppress

from jitvault.cli.views.output import readable
from jitvault.errors import JitvaultError
from jitvault.lifecycle.requests.freeze_history import first_at, freeze_history
from jitvault.lifecycle.requests.freezes import freezes_seen_by_person
from jitvault.model.scope import Scope
from jitvault.wiring import Wiring


def frozen_before(wiring: Wiring, scope: Scope) -> list[str]:
    """Return in words who froze the same scope before, since when and why.

    The caller's own freeze is replaced by another one; those of others hold as well. Nothing where Vault does not show
    the freezes: a doubt about them must not keep the new one from being signed.
    """
    found: list[str] = []
    with suppress(JitvaultError):
        same = [one for one in freezes_seen_by_person(wiring.person) if Scope(**one["scope"]).is_same(scope)]
        history = freeze_history(wiring.person.documents) if same else []
        for one in same:
            own = one["by"] == "you"
            then = "your new reason replaces that one" if own else "both reasons hold, and one lift ends both"
            by = one["by"] if own else _name(wiring, one["by"])
            since = readable(first_at(one, history))
            found.append(f"{scope} was frozen already, by {by} since {since}: {one['reason']}; {then}")
    return found


def _name(wiring: Wiring, entity: str) -> str:
    """Return an entity's name, or its id where nobody here may ask Vault."""
    known = wiring.worker.identity.by_id(entity) if wiring.has_worker else None
    return known.name if known is not None else entity
