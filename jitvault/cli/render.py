"""What commands print about one task; nothing here adds a secret."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from jitvault.cli import output
from jitvault.cli.decision import told
from jitvault.cli.output import NewFile, text, to_json

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from jitvault.agent.unwrap import TaskToken
    from jitvault.domain.revision import Revision

Published = Mapping[str, Any]

_MOST_USES = 12


def revision_of(document: Published) -> Revision:
    """The revision in a published document; its digest is taken over the bytes, never believed."""
    from jitvault.domain.revision import Revision

    return Revision.of(base64.b64decode(document["body"]))


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
    console = output.console()
    console.print(f"Task {task} is {output.coloured(state)}", highlight=False)
    output.print_facts(console, {"digest": document["digest"]}, least=len("missing"))
    missing = [{"missing": f"{each['count']} approval(s) by {each['group']}"} for each in document["missing"]]
    absent = [{"refused": one} for one in _uncounted(document)]
    because = [{"because": document["why_denied"]}] if document["why_denied"] else []
    for fact in (*missing, *absent, *because, {"next": shown["next"]}):
        output.print_facts(console, fact, least=len("missing"))


def granted(document: Published, message: Published | None, *, out: NewFile | None, as_json: bool) -> None:
    """The grant; the wrapping token is in it once, for whoever took it out of their inbox."""
    shown = {
        "task_id": document["task_id"],
        "grant_id": document["grant_id"],
        "state": document["state"],
        "digest": document["digest"],
        "expires_at": document["expires_at"],
        "ends_at": document["ends_at"],
        "ttl": document["ttl"],
        "wrapping": list(message["wrapping"]) if message else [],
    }
    if out is not None:
        out.write(to_json(shown) + "\n")
        shown["wrapping"] = [{k: v for k, v in wrapping.items() if k != "token"} for wrapping in shown["wrapping"]]
    if message is None:
        typer.echo(why_no_token(document), err=True)
    if as_json:
        text(to_json(shown) + "\n", out=None)
        return
    console = output.console()
    console.print(f"Task {shown['task_id']} is {output.coloured(shown['state'])}", highlight=False)
    console.print(f"  expires  {output.readable(shown['ends_at'])}", markup=False, highlight=False)
    print_wrappings(console, shown["wrapping"], out)


def print_wrappings(console: Console, wrappings: Sequence[Mapping[str, Any]], out: NewFile | None) -> None:
    """What each wrapping token gives, and how it is opened."""
    for wrapping in wrappings:
        for path in wrapping["reads"]:
            console.print(f"  reads    {path}", markup=False, highlight=False)
            if body := (wrapping.get("sends") or {}).get(path):
                console.print(f"  sends    {output.pairs(body)}", markup=False, highlight=False)
        what = out.path if out else wrapping["token"]
        console.print(f"  unwrap   within {wrapping['ttl']} s, once:", markup=False, highlight=False)
        console.print(f"           jitvault unwrap {what}", markup=False, highlight=False, soft_wrap=True)


def why_no_token(document: Published) -> str:
    revision = revision_of(document)
    if revision.spec.spec.deliver == "agent":
        agent = revision.content["agent"]["name"]
        return f"The wrapping token is in the inbox of {agent}, who takes it with `jitvault unwrap {revision.spec.id}`."
    return (
        "The wrapping token was printed before, or nobody took it within ten minutes. It is never made twice: "
        f"if it is lost, `jitvault revoke {revision.spec.id}` and use another id."
    )


def ended(document: Published, *, as_json: bool) -> None:
    """The proof of a task's end."""
    proof = document["proof"]
    if as_json:
        typer.echo(to_json(proof))
        return
    console = output.console()
    console.print(
        f"Task {proof['task_id']} is {output.coloured(proof['state'])} ({proof['end_reason']})", highlight=False
    )
    _print_proof(console, proof)


def proposal(
    digest: str, lines: Sequence[str], decision: Mapping[str, Any], changes: Sequence[str] | None = None
) -> None:
    """What an approver is about to sign, what policy said of it, and what changed since it was approved, on stderr."""
    console = output.console(stderr=True)
    for line in (*lines, f"By policy: {told(decision)}.", *changed(changes)):
        console.print(line, markup=False, highlight=False)
    console.print(f"Digest: {digest}", markup=False, highlight=False, soft_wrap=True)


def changed(changes: Sequence[str] | None) -> list[str]:
    """The differences against the last approved revision, to be printed; nothing where none was approved."""
    return [] if changes is None else ["Changed since it was approved:", *(f"  {line}" for line in changes)]


def voted(document: Published, decision: str, digest: str, expires: str | None, *, as_json: bool) -> None:
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
    console = output.console()
    past = {"approve": "approved task", "deny": "denied task", "withdraw": "withdrew your approval of task"}[decision]
    taken = document["state"] in ("ending", "confirmed", "sealed", "unverified")
    what = "its access is taken back, and the task is" if taken else "it is"
    said = f"You {past} {shown['task_id']}; {what} {output.coloured(shown['state'])}"
    console.print(said, highlight=False)
    for missing in document["missing"]:
        console.print(f"  missing  {missing['count']} approval(s) by {missing['group']}", markup=False)


def unwrapped(held: TaskToken, *, out: NewFile | None, as_json: bool) -> None:
    from jitvault.domain.access import sent

    bodies = sent(held.reads)
    shown = {
        "task_id": held.task_id,
        "token": held.token.reveal(),
        "expires_at": held.expires_at.isoformat(timespec="seconds"),
        "reads": [fetch.path for fetch in held.reads],
        "sends": bodies,
    }
    if as_json or out:
        text(to_json(shown) + "\n", out=out)
        return
    console = output.console()
    until = output.readable(held.expires_at.isoformat())
    console.print(
        f"Task {held.task_id}: this token lives until {until}, and longer where it is kept",
        markup=False,
        highlight=False,
    )
    for path in shown["reads"]:
        console.print(f"  reads  {path}", markup=False, highlight=False)
        if body := bodies.get(path):
            console.print(f"  sends  {output.pairs(body)}", markup=False, highlight=False)
    console.print(f"  token  {shown['token']}", markup=False, highlight=False, soft_wrap=True)


def secrets(task_id: str, found: Sequence[Mapping[str, Any]], *, out: NewFile | None, as_json: bool) -> None:
    if as_json or out:
        text(to_json({"task_id": task_id, "secrets": list(found)}) + "\n", out=out)
        return
    console = output.console()
    for secret in found:
        console.print(secret["path"], markup=False, highlight=False, soft_wrap=True)
        console.print(f"  lease  {secret['lease_id'] or 'none'}", markup=False, highlight=False, soft_wrap=True)
        for name, value in secret["fields"].items():
            text_of = "\n".join(map(str, value)) if isinstance(value, list) else value
            console.print(f"  {name}  {text_of}", markup=False, highlight=False, soft_wrap=True)


def status(shown: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json(shown))
        return
    from rich.text import Text

    from jitvault.cli import timeline
    from jitvault.domain.revision import unasked

    console = output.console()
    content = shown["revision"]["content"]
    reason = f" ({shown['end_reason']})" if shown["end_reason"] else ""
    console.print(f"Task {shown['task_id']} is {output.coloured(shown['state'])}{reason}", highlight=False)
    facts = {
        "requester": content["requester"]["name"],
        "agent": content["agent"]["name"],
        "owner": content["owner"]["name"],
        "intent": content["spec"]["spec"]["intent"],
        **_family(shown),
        "risk": content["risk"],
        "revision": str(shown["revision"]["number"]),
        "digest": shown["digest"],
        "policy": told(shown["decision"]),
        "decisions": _decisions(shown) or "none needed or made",
    }
    if alone := unasked(content["access"]):
        facts["proof"] = f"not by the target for {'; '.join(alone)}"
    if shown["grant"]:
        grant = shown["grant"]
        facts["token"] = f"{grant['verdict']}, expires {output.readable(grant['expires_at'])}"
        facts["ttl"] = f"{grant['ttl_s']} s of {grant['requested_ttl_s']} s asked for, {grant['step_s']} s at a time"
        facts["deadline"] = output.readable(shown["ends_at"])
        facts |= _more_time(shown)
    facts |= _ended(shown)
    if shown["state"] == "ending" and shown["due_at"]:
        facts["tried again"] = f"from {output.readable(shown['due_at'])} on, and by each command on the task"
    output.print_facts(console, facts)
    _print_asked(console, shown["end_requested"])
    if shown["frozen"]:
        console.print(f"  FROZEN     {shown['frozen']['why']}", style="red", markup=False, highlight=False)
    for finding in shown["findings"]:
        console.print(f"  FINDING    {finding['message']}", style="red", markup=False, highlight=False)
        named = f"{finding['rule']}" + (
            f", line {finding['line'][:16]}, request {finding['request_id']}" if finding["line"] else ""
        )
        console.print(f"             {named}", style="red", markup=False, highlight=False, soft_wrap=True)
    _print_uses(console, shown["uses"])
    if shown["proof"]:
        _print_proof(console, shown["proof"])
    table = output.new_table("when (UTC)", "what happened")
    for when, what in timeline.rows(shown["timeline"]):
        table.add_row(when, Text(what))
    console.print(table)


def _decisions(shown: Mapping[str, Any]) -> str:
    """Those that count, and why others do not."""
    counted = [f"{d['name']}: {d['decision']}" for d in shown["decisions"]]
    return "; ".join([", ".join(counted), *_uncounted(shown)] if counted else _uncounted(shown))


def _uncounted(shown: Mapping[str, Any]) -> list[str]:
    return [f"{one['name']} {one['why']}" for one in shown["refused"]]


def _ended(shown: Mapping[str, Any]) -> dict[str, str]:
    """Who ended the task and who closed it without proof, when and why, as far as that has happened."""
    facts, ended, forced = {}, shown["ended"], (shown["proof"] or {}).get("forced")
    if ended:
        by = f" by {ended['name']}" if ended["name"] else ""
        facts["ended"] = f"{output.readable(ended['at'])}{by}" + (f": {ended['note']}" if ended["note"] else "")
    if forced:
        facts["forced"] = f"by {forced['name']}: {forced['reason']}"
    return facts


def _more_time(shown: Mapping[str, Any]) -> dict[str, str]:
    """What the task got beyond its window, and what was asked for last and is not granted."""
    facts, last = {}, shown["extension"]
    if shown["extensions"]:
        told = (f"{one['seconds']} s for {one['by']['name']} ({one['reason']})" for one in shown["extensions"])
        facts["extended"] = ", ".join(told)
    held = shown["state"] in ("issuing", "issued", "active")
    if held and last is not None and last["state"] != "extended":
        missing = ", ".join(f"{each['count']} of {each['group']}" for each in last["missing"])
        waits = f"waits for {missing or 'its requester'}" if last["error"] is None else last["error"]["message"]
        asked = last["content"]
        facts["more time"] = f"{asked['seconds']} s asked for by {asked['by']['name']}: {waits}"
    return facts


def _family(shown: Mapping[str, Any]) -> dict[str, str]:
    """What is above and below the task, where there is something."""
    above, below = " → ".join(shown["delegation"]), ", ".join(shown["children"])
    return {**({"handed on by": above} if above else {}), **({"handed on to": below} if below else {})}


def _print_asked(console: Console, asked: Sequence[Mapping[str, Any]]) -> None:
    """Who asked for the end of the task, while no worker has taken that up."""
    for one in asked:
        why = f": {one['note']}" if one["note"] else ""
        line = f"  end requested by {one['by']} at {output.readable(one['at'])}, waits for a worker{why}"
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _print_uses(console: Console, uses: Sequence[Mapping[str, Any]]) -> None:
    """What the task's tokens did, by the audit stream."""
    for use in uses[:_MOST_USES]:
        act, times = use["act"].replace("_", " "), "" if use["count"] == 1 else f" {use['count']} times"
        line = f"  {act:<15}{use['path']}{times} from {', '.join(use['addresses'])}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(uses) > _MOST_USES:
        console.print(f"  … and {len(uses) - _MOST_USES} more; --json has all", markup=False, highlight=False)


def published(document: Published, now: datetime, *, as_json: bool) -> None:
    """What the worker published, for whoever has no ledger, and what is not known from it."""
    from jitvault.cli import fallback

    shown = {k: v for k, v in document.items() if k not in ("body", "installation")}
    if as_json:
        typer.echo(to_json(shown))
        return
    decided(document, as_json=False)
    held_up = {"held up": document["error"]["message"]} if document["error"] else {}
    facts = {**_ended(document), **held_up, **fallback.facts(document, now)}
    output.print_facts(output.console(), facts, least=len("missing"))
    _print_asked(output.console(), document["end_requested"])
    if document["proof"]:
        _print_proof(output.console(), document["proof"])


def _print_proof(console: Console, proof: Mapping[str, Any]) -> None:
    if proof["confirmed"]:
        console.print(
            f"  every credential dead after {proof['dead_ms']} ms, proven after {proof['confirmed_ms']} ms",
            highlight=False,
        )
    _print_verdict(console, "task token", proof["token"], "")
    for token in proof["earlier_tokens"]:
        _print_verdict(console, "its earlier", token, "")
    for lease in proof["leases"]:
        _print_verdict(console, "lease", lease, lease["lease_id"])
    owners = (proof["token"], *proof["earlier_tokens"], *proof["leases"])
    failed = [c for owner in owners for c in owner["checks"] if not c["ok"]]
    for check in failed:
        line = f"check {check['n']} ({check['name']}): {check['evidence']}"
        console.print(output.indented(line, console.width), style="red", markup=False, highlight=False, soft_wrap=True)


def _print_verdict(console: Console, what: str, owner: Mapping[str, Any], name: str) -> None:
    """One credential; its id has a line of its own and is never folded, so that it can be copied."""
    line = f"  {what:<12}{owner['verdict']:<18}{_checks(owner['checks'])}"
    console.print(line, markup=False, highlight=False)
    if name:
        console.print(f"    {name}", markup=False, highlight=False, soft_wrap=True)
    if owner.get("error"):
        console.print(f"    {owner['error']}", style="red", markup=False, highlight=False, soft_wrap=True)


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(f"{c['n']}{'✓' if c['ok'] else '✗'}" for c in checks)
