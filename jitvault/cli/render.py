"""What commands print. Results go to stdout, everything else to stderr; nothing here adds a secret.

Text from specs and Vault is shown as text: markup in it is not interpreted.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from jitvault.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from jitvault.agent.unwrap import TaskToken
    from jitvault.domain.revision import Revision
    from jitvault.provision.init import Plan

Published = Mapping[str, Any]

_COLOURS = {
    "denied": "red",
    "cancelled": "dim",
    "lapsed": "dim",
    "pending_approval": "yellow",
    "ending": "yellow",
    "confirmed": "green",
    "sealed": "green",
}


def to_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def revision_of(document: Published) -> Revision:
    """The revision in a published document; its digest is taken over the bytes, never believed."""
    from jitvault.domain.revision import Revision

    return Revision.of(base64.b64decode(document["body"]))


def text(value: str, *, out: NewFile | None) -> None:
    """Print a result, or write it to the new file."""
    if out is None:
        sys.stdout.write(value)
        sys.stdout.flush()
    else:
        out.write(value)
        typer.echo(f"written to {out.path}", err=True)


class NewFile:
    """A file with mode 0600 that is made before the act whose result it will hold: a secret that comes once
    must not meet a full disk or a name that is taken.
    """

    def __init__(self, path: Path) -> None:
        """Raises UsageError when the file exists or cannot be made."""
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", hint="Name a new file.") from None

    def write(self, value: str) -> None:
        with os.fdopen(self._descriptor, "w") as file:
            file.write(value)


@contextmanager
def new_file(path: Path | None) -> Iterator[NewFile | None]:
    """The new file at `path`, or None without one; removed again when nothing was written into it."""
    if path is None:
        yield None
        return
    file = NewFile(path)
    try:
        yield file
    finally:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()


def decided(document: Published, *, as_json: bool) -> None:
    """A task that was decided about: its state, and who is missing."""
    task, state = document["task_id"], document["state"]
    steps = {
        "pending_approval": f"jitvault approve {task}",
        "approved": f"jitvault grant {task}",
        "denied": "change the spec and submit it with --revise",
    }
    shown = {
        "task_id": task,
        "state": state,
        "digest": document["digest"],
        "missing": document["missing"],
        "next": steps.get(state, f"jitvault status {task}"),
    }
    if as_json:
        typer.echo(to_json(shown))
        return
    console = _console()
    console.print(f"Task {task} is {_state(state)}", highlight=False)
    console.print(f"  digest   {document['digest']}", highlight=False, markup=False, soft_wrap=True)
    for missing in document["missing"]:
        console.print(f"  missing  {missing['count']} approval(s) by {missing['group']}", markup=False)
    if document["why_denied"]:
        console.print(f"  because  {document['why_denied']}", markup=False)
    console.print(f"  next     {shown['next']}", markup=False)


def granted(document: Published, message: Published | None, *, out: NewFile | None, as_json: bool) -> None:
    """The grant; the wrapping token is in it once, for whoever took it out of their inbox."""
    shown = {
        "task_id": document["task_id"],
        "grant_id": document["grant_id"],
        "state": document["state"],
        "digest": document["digest"],
        "expires_at": document["expires_at"],
        "wrapping": list(message["wrapping"]) if message else [],
    }
    if out is not None:
        out.write(to_json(shown) + "\n")
        shown["wrapping"] = [{k: v for k, v in wrapping.items() if k != "token"} for wrapping in shown["wrapping"]]
    if message is None:
        typer.echo(
            f"No wrapping token for you: it was taken, or delivered to the agent ({document['agent']}).",
            err=True,
        )
    if as_json:
        text(to_json(shown) + "\n", out=None)
        return
    console = _console()
    console.print(f"Task {shown['task_id']} is {_state(shown['state'])}", highlight=False)
    console.print(f"  expires  {_when(shown['expires_at'])}", markup=False, highlight=False)
    for wrapping in shown["wrapping"]:
        for path in wrapping["reads"]:
            console.print(f"  reads    {path}", markup=False, highlight=False)
        what = out.path if out else wrapping["token"]
        console.print(f"  unwrap   within {wrapping['ttl']} s, once:", markup=False, highlight=False)
        console.print(f"           jitvault unwrap {what}", markup=False, highlight=False, soft_wrap=True)


def ended(document: Published, *, as_json: bool) -> None:
    """The proof of a task's end."""
    proof = document["proof"]
    if as_json:
        typer.echo(to_json(proof))
        return
    console = _console()
    console.print(f"Task {proof['task_id']} is {_state(proof['state'])} ({proof['end_reason']})", highlight=False)
    _print_proof(console, proof)


def proposal(digest: str, lines: Sequence[str]) -> None:
    """What an approver is about to sign, on stderr."""
    console = _console(stderr=True)
    for line in lines:
        console.print(line, markup=False, highlight=False)
    console.print(f"Digest: {digest}", markup=False, highlight=False, soft_wrap=True)


def voted(document: Published, decision: str, digest: str, expires: str, *, as_json: bool) -> None:
    shown = {
        "task_id": document["task_id"],
        "decision": decision,
        "digest": digest,
        "expires_at": expires,
        "state": document["state"],
        "missing": document["missing"],
    }
    if as_json:
        typer.echo(to_json(shown))
        return
    console = _console()
    past = {"approve": "approved", "deny": "denied"}[decision]
    console.print(f"You {past} task {shown['task_id']}; it is {_state(shown['state'])}", highlight=False)
    for missing in document["missing"]:
        console.print(f"  missing  {missing['count']} approval(s) by {missing['group']}", markup=False)


def unwrapped(held: TaskToken, *, out: NewFile | None, as_json: bool) -> None:
    shown = {
        "task_id": held.task_id,
        "token": held.token.reveal(),
        "expires_at": held.expires_at.isoformat(timespec="seconds"),
        "reads": [path for _, path in held.reads],
    }
    if as_json or out:
        text(to_json(shown) + "\n", out=out)
        return
    console = _console()
    until = _when(held.expires_at.isoformat())
    console.print(f"Task {held.task_id}: this token lives until {until}", markup=False, highlight=False)
    for path in shown["reads"]:
        console.print(f"  reads  {path}", markup=False, highlight=False)
    console.print(f"  token  {shown['token']}", markup=False, highlight=False, soft_wrap=True)


def secrets(task_id: str, found: Sequence[Mapping[str, Any]], *, out: NewFile | None, as_json: bool) -> None:
    if as_json or out:
        text(to_json({"task_id": task_id, "secrets": list(found)}) + "\n", out=out)
        return
    console = _console()
    for secret in found:
        console.print(secret["path"], markup=False, highlight=False, soft_wrap=True)
        console.print(f"  lease  {secret['lease_id'] or 'none'}", markup=False, highlight=False, soft_wrap=True)
        for name, value in secret["fields"].items():
            console.print(f"  {name}  {value}", markup=False, highlight=False, soft_wrap=True)


def status(shown: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json(shown))
        return
    console = _console()
    content = shown["revision"]["content"]
    reason = f" ({shown['end_reason']})" if shown["end_reason"] else ""
    console.print(f"Task {shown['task_id']} is {_state(shown['state'])}{reason}", highlight=False)
    facts = {
        "requester": content["requester"]["name"],
        "agent": content["agent"]["name"],
        "owner": content["owner"]["name"],
        "intent": content["spec"]["spec"]["intent"],
        "risk": content["risk"],
        "revision": f"{shown['revision']['number']}  {shown['digest']}",
        "decisions": ", ".join(f"{d['name']}: {d['decision']}" for d in shown["decisions"]) or "none needed or made",
    }
    if shown["grant"]:
        facts["token"] = f"{shown['grant']['verdict']}, expires {_when(shown['grant']['expires_at'])}"
    _facts(console, facts)
    for finding in shown["findings"]:
        console.print(f"  FINDING    {finding['message']}", style="red", markup=False, highlight=False)
    if shown["proof"]:
        _print_proof(console, shown["proof"])
    table = _table("when (UTC)", "what happened")
    for event in shown["timeline"]:
        table.add_row(event["at"][:23].replace("T", " "), _told(event["event"], event["body"]))
    console.print(table)


def published(document: Published, *, as_json: bool) -> None:
    """What the worker published, for whoever has no ledger."""
    shown = {k: v for k, v in document.items() if k not in ("body", "installation", "error")}
    if as_json:
        typer.echo(to_json(shown))
        return
    decided(document, as_json=False)
    if document["proof"]:
        _print_proof(_console(), document["proof"])


def tasks(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json({"tasks": list(rows)}))
        return
    table = _table("task", "state", "ended", "due")
    for row in rows:
        due = _when(row["due_at"]) if row.get("due_at") and not row["end_reason"] else ""
        table.add_row(row["task_id"], _state(row["state"]), row["end_reason"] or "", due)
    _console().print(table if rows else "There are no tasks.")


def checked(spec: Mapping[str, Any], paths: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json({"ok": True, "spec": spec, "reads": list(paths.values())}))
        return
    console = _console()
    console.print(f"{spec['metadata']['id']}: the spec is valid", markup=False, highlight=False)
    for name, path in paths.items():
        console.print(f"  {name} reads {path}", markup=False, highlight=False)


def templates(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json({"templates": list(found)}))
        return
    table = _table("template", "tier", "ttl", "window", "proof", "what it allows")
    for one in found:
        spec, meta = one["spec"], one["metadata"]
        table.add_row(meta["name"], spec["tier"], spec["ttl"], spec["max_window"], spec["confirm"], meta["description"])
    _console().print(table)


def template(found: Mapping[str, Any], paths: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json({"template": found, "paths": list(paths)}))
        return
    console = _console()
    spec = found["spec"]
    console.print(f"{found['metadata']['name']}: {found['metadata']['description']}", markup=False, highlight=False)
    choices = (f"{name}: {', '.join(p['choices'])}" for name, p in spec["parameters"].items())
    _facts(
        console,
        {
            "owner": found["metadata"]["owner"],
            "tier": spec["tier"],
            "choices": "; ".join(choices) or "none",
            "ttl": f"{spec['ttl']}, window at most {spec['max_window']}, wrapping {spec['wrap_ttl']}",
            "leases": f"at most {spec['lease_budget']} a task",
            "proof": f"{spec['confirm']}" + (f" (probe {spec['probe']})" if "probe" in spec else ""),
            "reads": ", ".join(paths),
        },
    )


def provisioned(plan: Plan, *, applied: bool, as_json: bool) -> None:
    steps = [{"action": s.action, "kind": s.kind, "name": s.name, "detail": list(s.detail)} for s in plan.steps]
    if as_json:
        typer.echo(to_json({"applied": applied, "steps": steps, "missing": list(plan.missing)}))
        return
    console = _console()
    for step in plan.changes:
        sign = {"create": "+", "update": "~"}[step.action]
        console.print(f"{sign} {step.kind} {step.name}", style="green", markup=False, highlight=False)
        for line in step.detail:
            console.print(f"    {line}", markup=False, highlight=False)
    kept = len(plan.steps) - len(plan.changes)
    done = "made" if applied else "to make"
    console.print(f"{len(plan.changes)} changes {done}, {kept} as they should be", highlight=False)
    for note in plan.missing:
        console.print(f"missing: {note}", style="yellow", markup=False, highlight=False)


def _told(event: str, body: Mapping[str, Any]) -> Text:
    """One event in a few words; the whole of it is in --json."""
    from rich.text import Text

    words = event.replace("_", " ")
    if event == "observed":
        leases = f", {len(body['leases'])} new leases" if body["leases"] else ""
        return Text(f"observed {len(body['lines'])} audit lines{leases}")
    if event in ("submitted", "revised", "decided"):
        return Text(f"{words}: {body['state']}")
    if event == "ending":
        return Text(f"ending: {body['reason']}")
    if event == "revoked":
        return Text(f"revoked {body['subject']}: {body['verdict']}", overflow="fold")
    return Text(words)


def _print_proof(console: Console, proof: Mapping[str, Any]) -> None:
    if proof["confirmed"]:
        console.print(
            f"  every credential dead after {proof['dead_ms']} ms, proven after {proof['confirmed_ms']} ms",
            highlight=False,
        )
    table = _table("credential", "verdict", "checks")
    table.add_row("task token", proof["token"]["verdict"], _checks(proof["token"]["checks"]))
    for lease in proof["leases"]:
        table.add_row(lease["lease_id"], lease["verdict"], _checks(lease["checks"]))
    console.print(table)
    failed = [c for owner in (proof["token"], *proof["leases"]) for c in owner["checks"] if not c["ok"]]
    for check in failed:
        line = f"  check {check['n']} ({check['name']}): {check['evidence']}"
        console.print(line, style="red", markup=False, highlight=False)


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(f"{c['n']}{'✓' if c['ok'] else '✗'}" for c in checks)


def _facts(console: Console, facts: Mapping[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(f"  {name}", Text(str(value)))
    console.print(table)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        # an id that is cut cannot be copied: it is folded instead
        table.add_column(column, overflow="fold")
    return table


def _when(at: str | None) -> str:
    return f"{at[:10]} {at[11:19]} UTC" if at else "not known yet"


def _state(state: str) -> str:
    colour = _COLOURS.get(state, "bold")
    return f"[{colour}]{state}[/{colour}]"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=False, emoji=False)
