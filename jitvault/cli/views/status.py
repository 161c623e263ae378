"""`jitvault status`: everything that is known of one task, from the ledger or from what the worker published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import typer

from jitvault.cli.views import output
from jitvault.cli.views.output import to_json
from jitvault.cli.views.policy import told
from jitvault.cli.views.task import NEVER_HELD, decided, not_proven, print_proof, uncounted

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from jitvault.cli.views.task import Published

_MOST_USES = 12


def status(shown: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json(shown))
        return
    from jitvault.cli.views import timeline
    from jitvault.model.revision import unasked
    from jitvault.model.verifiers import unproven

    console = output.console()
    content = shown["revision"]["content"]
    reason = [f"({shown['end_reason']})"] if shown["end_reason"] else []
    console.print(f"Task {shown['task_id']} is", output.coloured(shown["state"]), *reason)
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
        "decisions": _decisions(shown) or ("none yet" if shown["missing"] else "none needed or made"),
        **_waits_for(shown),
    }
    if alone := unasked(content["access"]):
        facts["proof"] = f"not by the target for {'; '.join(alone)}"
    if shown["proof"] is None and shown["state"] not in NEVER_HELD and (open_ := unproven(content["access"])):
        facts["not proven"] = "; ".join(open_)
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
        console.print(f"  FROZEN     {shown['frozen']['why']}", style="red")
    for message, named in _found(shown["findings"]):
        line = output.indented(message, console.width, first="  FINDING    ", rest=" " * 13)
        console.print(line, style="red", soft_wrap=True)
        console.print(f"             {named}", style="red", soft_wrap=True)
    _print_uses(console, shown["uses"])
    if shown["proof"]:
        print_proof(console, shown["proof"], shown["proof"]["not_proven"])
    table = output.new_table("when (UTC)", "what happened")
    for when, what in timeline.rows(shown["timeline"]):
        table.add_row(when, what)
    console.print(table)


def _waits_for(shown: Mapping[str, Any]) -> dict[str, str]:
    """Whose approval is missing, and the command that gives it."""
    missing = ", ".join(f"{each['count']} approval(s) by {each['group']}" for each in shown["missing"])
    return {"missing": missing, "next": f"jitvault approve {shown['task_id']}"} if missing else {}


def _decisions(shown: Mapping[str, Any]) -> str:
    """Those that count, and why others do not."""
    counted = [f"{d['name']}: {d['decision']}" for d in shown["decisions"]]
    return "; ".join([", ".join(counted), *uncounted(shown)] if counted else uncounted(shown))


def _found(findings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The findings, each with where it stands; of those that say the same the first. `--json` has all."""
    alike = itemgetter("rule", "message")
    for (rule, message), same in groupby(sorted(findings, key=alike), key=alike):
        first, *more = same
        line = f", line {first['line'][:16]}, request {first['request_id']}" if first["line"] else ""
        yield message, f"{rule}{line}" + (f", and {len(more)} more like it" if more else "")


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
        console.print(line, style="yellow", soft_wrap=True)


def _print_uses(console: Console, uses: Sequence[Mapping[str, Any]]) -> None:
    """What the task's tokens did, by the audit stream."""
    for use in uses[:_MOST_USES]:
        act, times = use["act"].replace("_", " "), "" if use["count"] == 1 else f" {use['count']} times"
        line = f"  {act:<15}{use['path']}{times} from {', '.join(use['addresses'])}"
        console.print(line, soft_wrap=True)
    if len(uses) > _MOST_USES:
        console.print(f"  … and {len(uses) - _MOST_USES} more; --json has all")


def published(document: Published, now: datetime, *, as_json: bool) -> None:
    """What the worker published, for whoever has no ledger, and what is not known from it."""
    from jitvault.cli.views import published as fallback

    shown = {k: v for k, v in document.items() if k not in ("body", "installation")}
    if as_json:
        typer.echo(to_json(shown))
        return
    decided(document, as_json=False)
    held_up = {"held up": document["error"]["message"]} if document["error"] else {}
    unproven = not_proven(document)
    open_ = {"not proven": "; ".join(unproven)} if unproven and document["proof"] is None else {}
    facts = {**_ended(document), **held_up, **open_, **fallback.facts(document, now)}
    output.print_facts(output.console(), facts, least=len("missing"))
    _print_asked(output.console(), document["end_requested"])
    if document["proof"]:
        print_proof(output.console(), document["proof"], unproven)
