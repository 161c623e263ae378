"""What a model does next where a command of jitvault failed. Pure.

A model has the tools of the server and no shell. What it can do itself is said by their names; a hint about commands is
for the person that the model works for, and says so.
"""

from __future__ import annotations

from jitvault.errors import InvalidInput, VaultUnavailable, WaitTimedOut, WrongState

OVER = "Its programs are stopped. Ask for another task with request_access."
_OWN = {
    VaultUnavailable.exit_code: "Vault does not answer. Call again in a moment; list_access says what there is.",
    InvalidInput.exit_code: "Call request_access with other arguments; list_access says what there is.",
    WrongState.exit_code: "Ask for another task with request_access; list_access says which tasks hold access.",
    WaitTimedOut.exit_code: "No worker has answered. Call again in a moment; list_access says what there is.",
}


def hint_of(exit_code: int, hint: str) -> str:
    """Return the hint for a model; `hint` is that of the command, for people."""
    return _OWN.get(exit_code) or for_user(hint)


def for_user(hint: str) -> str:
    """Return a hint that a model passes on."""
    return f"Tell your user: {hint}"
