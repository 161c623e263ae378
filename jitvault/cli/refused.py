"""Hints for a request that Vault refused: which group may send it."""

from __future__ import annotations

from jitvault.errors import JitvaultError, VaultRefused

_WHO = "`bao token lookup` shows who you are."


def needed_groups(error: JitvaultError) -> str | None:
    """Return the groups of which one may do what Vault refused, as a sentence.

    None where no group may, or the path is not jitvault's own.
    """
    if not isinstance(error, VaultRefused) or not error.path:
        return None
    from jitvault import shipped_files as shipped
    from jitvault.provision.who_may import groups_that_may

    groups = groups_that_may(error.method, error.path, shipped.vault_policies())
    if not groups:
        return None
    named = " or ".join(filter(None, [", ".join(groups[:-1]), groups[-1]]))
    return f"That takes a member of {named}: an administrator adds an entity to a group (docs/install.md)."


def hint_for(error: JitvaultError) -> str:
    """Return the error's hint.

    It names the groups where Vault refused a path of jitvault's.
    """
    if error.hint != VaultRefused.default_hint:
        return error.hint
    needed = needed_groups(error)
    return f"{needed} {_WHO}" if needed else error.hint


def only(who: str, error: JitvaultError) -> str:
    """Return the hint that `who` alone can do it, with the groups."""
    return " ".join(filter(None, [f"Only {who} can.", needed_groups(error), _WHO]))
