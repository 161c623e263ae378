"""Output of `jitvault unwrap`: a task token, or the secrets that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jitvault.cli.quiet import is_quiet
from jitvault.cli.views import output
from jitvault.cli.views.output import NewFile, text, to_json
from jitvault.model.token_limits import RENEWED_FOR_YOU

if TYPE_CHECKING:
    from jitvault.agent.unwrap import TaskToken

_WITH_SECRETS = f"use them until the task ends; {RENEWED_FOR_YOU}"


def print_task_token(held: TaskToken, *, out: NewFile | None, as_json: bool) -> None:
    """Print an unwrapped task token, or write it to the new file."""
    from jitvault.model.vault_access import data_by_path

    bodies = data_by_path(held.reads)
    may = held.limits.in_words() if held.limits else RENEWED_FOR_YOU
    shown: dict[str, Any] = {
        "task_id": held.task_id,
        "token": held.token.reveal(),
        "expires_at": held.expires_at.isoformat(timespec="seconds"),
        "reads": [fetch.path for fetch in held.reads],
        "sends": bodies,
        "limits": held.limits.as_json() if held.limits else None,
    }
    if as_json or out:
        text(to_json(shown) + "\n", out=out)
        if not as_json:
            _print_may(may, stderr=True)
        return
    if is_quiet():
        text(f"{shown['token']}\n", out=None)
        return
    console = output.console()
    until = output.readable(held.expires_at.isoformat())
    console.print(
        f"Task {held.task_id}: this token lives until {until}, and longer while a worker renews it",
    )
    for path in shown["reads"]:
        console.print(f"  reads  {path}")
        if body := bodies.get(path):
            console.print(f"  sends  {output.pairs(body)}")
    console.print(f"  token  {shown['token']}", soft_wrap=True)
    _print_may(may)


def print_secrets(task_id: str, found: Sequence[Mapping[str, Any]], *, out: NewFile | None, as_json: bool) -> None:
    """Print the secrets that a task token gave, or write them to the new file.

    The token itself is not shown, so its holder cannot read again.
    """
    if as_json or out:
        text(to_json({"task_id": task_id, "secrets": list(found)}) + "\n", out=out)
        if not as_json:
            _print_may(_WITH_SECRETS, stderr=True)
        return
    console = output.console()
    for secret in found:
        console.print(secret["path"], soft_wrap=True)
        console.print(f"  lease  {secret['lease_id'] or 'none'}", soft_wrap=True)
        for name, value in secret["fields"].items():
            text_of = "\n".join(map(str, value)) if isinstance(value, list) else value
            console.print(f"  {name}  {text_of}", soft_wrap=True)
    _print_may(_WITH_SECRETS)


def _print_may(words: str, *, stderr: bool = False) -> None:
    """Print what the agent may do."""
    if not is_quiet():
        output.print_facts(output.console(stderr=stderr), {"may": words}, least=len("token"))
