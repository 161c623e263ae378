"""Hints for a request that Vault refused: which group may send it."""

from __future__ import annotations

from jitvault import shipped_files as shipped
from jitvault.errors import Denied, JitvaultError, VaultNotServing, VaultRefused, WorkerRefused

_ASK_THE_OPERATOR = (
    "The policies that decided are the worker's, and are not on this host: an operator sees by "
    "`jitvault policy explain SPEC` what they require. Run `jitvault grant TASK` again when that is the case, or "
    "change the spec and run `jitvault submit SPEC --revise`."
)
_WHO = "`bao token lookup` shows who you are."


def needed_groups(error: JitvaultError) -> str | None:
    """Return the groups of which one may do what Vault refused, as a sentence.

    None where no group may, or the path is not jitvault's own.
    """
    if not isinstance(error, VaultRefused) or not error.path:
        return None
    from jitvault.provision.who_may import groups_that_may

    groups = groups_that_may(error.method, error.path, shipped.vault_policies())
    if not groups:
        return None
    named = " or ".join(filter(None, [", ".join(groups[:-1]), groups[-1]]))
    return f"That takes a member of {named}: an administrator adds an entity to a group (docs/install.md)."


def hint_for(error: JitvaultError) -> str:
    """Return the error's hint.

    It names the groups where Vault refused a path of jitvault's, and what is not set on this host.
    """
    if isinstance(error, Denied) and not error.has_own_hint and _settings_say("lacks_policies"):
        return _ASK_THE_OPERATOR
    if isinstance(error, VaultNotServing) and not error.answers and _settings_say("has_default_address"):
        return f"VAULT_ADDR is not set: this address is the default. {error.hint}"
    if error.has_own_hint or isinstance(error, WorkerRefused):
        return error.hint
    needed = needed_groups(error)
    return f"{needed} {_WHO}" if needed else error.hint


def _settings_say(what: str) -> bool:
    """Return a fact of the settings, False where they are what is wrong."""
    from jitvault.settings import load

    try:
        return bool(getattr(load(), what))
    except JitvaultError:
        return False


def only(who: str, error: JitvaultError) -> str:
    """Return the hint that `who` alone can do it, with the groups."""
    return " ".join(filter(None, [f"Only {who} can.", needed_groups(error), _WHO]))
