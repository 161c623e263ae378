"""Output of `jitvault unwrap`: a task token, or the secrets that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from jitvault.agent.credential import Credential, as_dsn, as_env, as_text
from jitvault.agent.unwrap import TaskToken
from jitvault.cli.quiet import is_quiet
from jitvault.cli.views import output
from jitvault.cli.views.output import NewFile, text, to_json
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.server_product import with_commands
from jitvault.formats.time_window import format_duration
from jitvault.model.token_limits import RENEWED_FOR_YOU, reads_left_in_words
from jitvault.model.vault_access import data_by_path


def print_task_token(held: TaskToken, *, out: NewFile | None, as_json: bool, commands: Sequence[str] = ()) -> None:
    """Print an unwrapped task token, or write it to the new file.

    `commands` are the server's programs, which a token with a heartbeat is looked up with.
    """
    bodies = data_by_path(held.reads)
    may = {"may": held.limits.in_words() if held.limits else RENEWED_FOR_YOU, **_heartbeat(held, commands)}
    uses = [held.use_of(fetch) for fetch in held.reads]
    shown: dict[str, Any] = {
        "task_id": held.task_id,
        "token": held.token.reveal(),
        "expires_at": rfc3339(held.expires_at),
        "ends_at": rfc3339(held.ends_at) if held.ends_at else None,
        "reads": [fetch.path for fetch in held.reads],
        "sends": bodies,
        "uses": [
            {
                "template": use.template,
                "with": use.choices,
                "path": use.path,
                "connection": use.connection,
            }
            for use in uses
        ],
        "limits": held.limits,
        "heartbeat_s": _heartbeat_s(held),
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
    console.print(f"Task {held.task_id}: this token works {_until(held)}")
    for use in uses:
        console.print(f"  reads    {use.path}", soft_wrap=True)
        if body := bodies.get(use.path):
            console.print(f"  sends    {output.pairs(body)}", soft_wrap=True)
        if use.connection:
            console.print(f"  connect  {use.connection.in_words()}", soft_wrap=True)
    console.print(f"  token    {shown['token']}", soft_wrap=True)
    _print_may(may, least=len("connect"))


def print_secrets(
    held: TaskToken, found: Sequence[Credential], *, out: NewFile | None, format_: str | None = None
) -> None:
    """Print the secrets that a task token gave, or write them to the new file.

    The token itself is not shown, so its holder cannot read again. `format_` is json, env or dsn; None prints them for
    people, and writes JSON to a file.
    """
    column = len("token")
    if format_ is None and out is None:
        column = _print_for_people(found)
    else:
        text(_formatted(held, found, format_ or "json"), out=out)
    if format_ != "json":
        _print_until(held, found, stderr=format_ is not None or out is not None, least=column)


def read_yourself(held: TaskToken, done: int) -> str:
    """Return the hint for a token whose secrets could not all be read."""
    spent = f" {done} of {held.limits.reads} reads are done." if held.limits and done else ""
    return (
        "The wrapping is open, so the task's token was printed instead: read with it, and do not unwrap again." + spent
    )


def _formatted(held: TaskToken, found: Sequence[Credential], format_: str) -> str:
    """Return the secrets in a format for programs."""
    if format_ == "dsn":
        return as_dsn(found)
    facts = {"task_id": held.task_id, **_times(held, found)}
    if format_ == "env":
        return as_env(found, {f"JITVAULT_{name.upper()}": value for name, value in facts.items()})
    secrets = [each.as_json() for each in found]
    shown = {**facts, "ends_at": facts.get("ends_at"), "heartbeat_s": _heartbeat_s(held), "secrets": secrets}
    return to_json(shown) + "\n"


def _times(held: TaskToken, found: Sequence[Credential]) -> dict[str, str]:
    """Return when the secrets end: without a worker, and with the task."""
    first = min([each.expires_at for each in found], default=held.expires_at)
    times = {"expires_at": first, "ends_at": held.ends_at}
    return {name: rfc3339(at) for name, at in times.items() if at is not None}


def _print_for_people(found: Sequence[Credential]) -> int:
    """Print each secret with where it is used; return the width of the labels."""
    console = output.console()
    facts = []
    for secret in found:
        shown = {"lease": secret.lease_id or "none"}
        if secret.connection:
            shown["connect"] = secret.connection.in_words()
        facts.append(shown | {name: as_text(value) for name, value in secret.fields.items()})
    column = max((len(name) for shown in facts for name in shown), default=len("token"))
    for secret, shown in zip(found, facts, strict=True):
        console.print(secret.use.path, soft_wrap=True)
        for name, value in shown.items():
            console.print(f"  {name:<{column}}  {value}", soft_wrap=True)
    return column


def _print_until(held: TaskToken, found: Sequence[Credential], *, stderr: bool, least: int) -> None:
    """Print until when the secrets can be used, and what is left to read."""
    until = f"{_until(held)}, when the task ends" if held.ends_at else "until the task ends"
    may = {"may": f"use them {until}; {RENEWED_FOR_YOU}", **_heartbeat_of_read(held)}
    _print_may(may, stderr=stderr, least=least)
    if held.limits and len(found) >= held.limits.reads and not is_quiet():
        reads = reads_left_in_words(len(found), held.limits.reads)
        output.print_facts(output.console(stderr=stderr), {"reads": reads}, least=least)


def _until(held: TaskToken) -> str:
    """Return until when a token or its secrets work, in words."""
    if held.ends_at is not None:
        return f"until {output.readable(held.ends_at)}"
    return f"until {output.readable(held.expires_at)}, and longer while a worker renews it"


def _heartbeat_s(held: TaskToken) -> int | None:
    """Return how many seconds the token may do nothing, None for any number."""
    return int(held.heartbeat.total_seconds()) if held.heartbeat is not None else None


def _heartbeat(held: TaskToken, commands: Sequence[str]) -> dict[str, str]:
    """Return what keeps a task with a heartbeat, where its token is shown."""
    if held.heartbeat is None:
        return {}
    every = format_duration(timedelta(seconds=max(1, int(held.heartbeat.total_seconds()) // 3)))
    look_up = with_commands("`bao token lookup`", commands or ("bao",))
    return {
        "note": f"by its heartbeat the task ends {format_duration(held.heartbeat)} after the last look-up of this "
        f"token: {look_up} every {every}. Another time use `jitvault exec {held.task_id} -- CMD`, which does that"
    }


def _heartbeat_of_read(held: TaskToken) -> dict[str, str]:
    """Return how soon a task with a heartbeat ends whose token is not shown."""
    if held.heartbeat is None:
        return {}
    return {
        "note": f"by its heartbeat the task ends {format_duration(held.heartbeat)} after the last look-up of its "
        f"token, which --read does not show. Another time use `jitvault exec {held.task_id} -- CMD`, which looks it up"
    }


def _print_may(facts: Mapping[str, str], *, stderr: bool = False, least: int = len("token")) -> None:
    """Print what the agent may do, and what keeps its access."""
    if not is_quiet():
        output.print_facts(output.console(stderr=stderr), facts, least=least)
