"""What commands print about more than one task: lists, templates, specs and what `init` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

from jitvault.cli.views import output
from jitvault.cli.views.output import to_json

if TYPE_CHECKING:
    from rich.console import Console

    from jitvault.documents.tidy import Remains
    from jitvault.kill_switch.kill import Result
    from jitvault.lifecycle.decision.pending_approvals import PendingApproval
    from jitvault.model.vault_access import Fetch
    from jitvault.provision.approvers import Approver
    from jitvault.provision.init import Plan
    from jitvault.provision.template_check.steps import Outcome


_TOLD = 5
_AFTER, _SECOND = "accepted_after_end", timedelta(seconds=1)


def tasks(rows: Sequence[Mapping[str, Any]], *, published: bool, as_json: bool, only_open: bool) -> None:
    """`published`: they are what a worker left in Vault, and no ledger was read."""
    if as_json:
        typer.echo(to_json({"tasks": list(rows), "published": published}))
        return
    from jitvault.cli.views.published import age

    # told where there is something to tell: most lists have none, and 80 columns are few
    told = any(row["findings"] for row in rows)
    more = (*(("findings",) if told else ()), *(("as of",) if published else ()))
    table = output.new_table("task", "state", "ended", "due", *more)
    for row in rows:
        # of what holds access its end is of interest, of what is ending when it is tried again
        at = row.get("due_at") if row["end_reason"] else row.get("ends_at") or row.get("due_at")
        cells = [row["task_id"], output.coloured(row["state"] or "?"), row["end_reason"] or ""]
        cells += [output.readable(at) if at else ""]
        cells += [output.coloured(str(row["findings"]), "red") if row["findings"] else ""] if told else []
        cells += [f"{age(row['age_s'])} ago"] if published else []
        table.add_row(*cells)
    console = output.console()
    console.print(table if rows else f"There are no {'open ' if only_open else ''}tasks.")
    if published:
        console.print(
            "This is what a worker last published in Vault of each. What it has not done or not published yet does not "
            "show, nor does what was removed after its seal: the ledger has it.",
        )


def killed(results: Sequence[Result], *, as_json: bool) -> None:
    """How each task of a kill switch came out; a success is told in one line."""
    rows = [
        {
            "task_id": result.task_id,
            "state": result.state.value if result.state else None,
            "proven": result.proven,
            "ended_earlier": result.ended_earlier,
            "error": str(result.error) if result.error else None,
            "not_proven": list(result.not_proven),
        }
        for result in results
    ]
    if as_json:
        typer.echo(to_json({"tasks": rows, "proven": sum(result.proven for result in results)}))
        return
    console = output.console()
    now = [row for row in rows if not row["ended_earlier"]]
    for row in now:
        if not row["proven"]:
            said = row["error"] or f"is {row['state']}"
            console.print(f"  {row['task_id']}: {said}", style="red", soft_wrap=True)
    proven = sum(bool(row["proven"]) for row in now)
    console.print(f"{proven} of {len(now)} tasks are ended and proven" if now else "There was no task to end")
    _not_proven(rows, console)
    _ended_earlier([row for row in rows if row["ended_earlier"]], console)


def _not_proven(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """What no check of a proof looks at, of some tasks: in a hurry a thousand lines hide the others."""
    told = [row for row in rows if row["not_proven"]]
    for row in told[:_TOLD]:
        for said in row["not_proven"]:
            line = output.indented(f"{row['task_id']}: not proven: {said}", console.width)
            console.print(line, style="yellow", soft_wrap=True)
    if len(told) > _TOLD:
        console.print(f"  … and of {len(told) - _TOLD} more tasks; --json has all", style="yellow")


def _ended_earlier(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The tasks that this run had nothing to end of, and how to close them."""
    if not rows:
        return
    stay, them = ("stays", "it") if len(rows) == 1 else ("stay", "them")
    console.print(
        f"{len(rows)} more had ended before and {stay} without proof; neither Vault nor the target shows any access of "
        f"{them}, and the exit code says nothing of {them}:",
        soft_wrap=True,
    )
    for row in rows:
        console.print(f"  {row['task_id']}: {row['error'] or row['state']}", soft_wrap=True)
    console.print("Close each with `jitvault revoke TASK --force --reason WHY` once the night is over.", soft_wrap=True)


def checked(spec: Mapping[str, Any], fetches: Sequence[Fetch], *, as_json: bool) -> None:
    if as_json:
        reads = [fetch.path for fetch in fetches]
        sends = {fetch.path: dict(fetch.data) for fetch in fetches if fetch.data}
        typer.echo(to_json({"ok": True, "spec": spec, "reads": reads, "sends": sends}))
        return
    console = output.console()
    console.print(f"{spec['metadata']['id']}: the spec is valid")
    for fetch in fetches:
        console.print(f"  {fetch.template} reads {fetch.path}")
        if fetch.data:
            console.print(f"    sending {output.pairs(fetch.data)}")


def templates(found: Sequence[Mapping[str, Any]], states: Mapping[str, str] | None, *, as_json: bool) -> None:
    """`states` are those of their checks by name, None where the caller may not see them."""
    known = states or {}
    if as_json:
        typer.echo(to_json({"templates": [{**one, "check": known.get(one["metadata"]["name"])} for one in found]}))
        return
    columns = ("template", "tier", "ttl", "window", "proof", *(("check",) if states is not None else ()))
    table = output.new_table(*columns, "what it allows")
    for one in found:
        spec, meta = one["spec"], one["metadata"]
        cells = [meta["name"], spec["tier"], spec["ttl"], spec["max_window"], spec["confirm"]]
        cells += [output.coloured(known[meta["name"]])] if states is not None else []
        table.add_row(*cells, meta["description"])
    output.console().print(table)


def template(
    found: Mapping[str, Any], paths: Sequence[str], check: str | None, told: Sequence[str], *, as_json: bool
) -> None:
    if as_json:
        typer.echo(to_json({"template": found, "paths": list(paths), "check": check, "told": list(told)}))
        return
    from jitvault.formats.time_window import parse_duration
    from jitvault.model.verifiers import describe_acceptance

    console = output.console()
    spec = found["spec"]
    console.print(f"{found['metadata']['name']}: {found['metadata']['description']}")
    choices = (f"{name}: {', '.join(p['choices'])}" for name, p in spec["parameters"].items())
    output.print_facts(
        console,
        {
            "owner": found["metadata"]["owner"],
            "tier": spec["tier"],
            "choices": "; ".join(choices) or "none",
            "ttl": f"{spec['ttl']}, window at most {spec['max_window']}, wrapping {spec['wrap_ttl']}",
            "leases": f"at most {spec['lease_budget']} a task",
            "proof": f"{spec['confirm']}" + (f" (probe {spec['probe']})" if "probe" in spec else ""),
            **({"why": f"not proven by the target: {spec['confirm_why']}"} if "confirm_why" in spec else {}),
            **({"after end": describe_acceptance(parse_duration(spec[_AFTER]) // _SECOND)} if _AFTER in spec else {}),
            **({"verifiers": ", ".join(spec["verifiers"])} if "verifiers" in spec else {}),
            **({"check": check} if check else {}),
            **({"told": "; ".join(told)} if told else {}),
            "reads": ", ".join(paths),
            **({"sends": output.pairs(spec["data"])} if "data" in spec else {}),
        },
    )


def outcomes(name: str, found: Sequence[Outcome]) -> None:
    """What the check of a template found, as JSON."""
    paths = [
        {
            "path": one.path,
            "with": dict(one.with_),
            "passed": one.passed,
            "ms": one.ms,
            "steps": [step.as_json() for step in one.steps],
            "left_behind": list(one.left_behind),
        }
        for one in found
    ]
    typer.echo(to_json({"template": name, "passed": all(one.passed for one in found), "paths": paths}))


def outcome(found: Outcome) -> None:
    """What the check of one path found: the numbers of its steps, and what to mend."""
    console = output.console()
    said = output.coloured("passed" if found.passed else "failed")
    console.print(found.path, said, f"in {found.ms} ms", soft_wrap=True)
    marks = " ".join(f"{step.n}{'✓' if step.ok else '✗'}" for step in found.steps)
    console.print(f"  {marks}")
    for step in found.steps:
        seen = {f"step {step.n} {'✓' if step.ok else '✗'}": f"{step.name}: {step.evidence}"}
        if not step.ok:
            output.print_facts(console, {**seen, "mend": step.mend})
        elif step.told:
            output.print_facts(console, seen)
    for what in found.left_behind:
        console.print(f"  LEFT BEHIND  {what}", style="red", soft_wrap=True)


def provisioned(plan: Plan, missing: Sequence[str], *, applied: bool, as_json: bool) -> None:
    steps = [{"action": s.action, "kind": s.kind, "name": s.name, "detail": list(s.detail)} for s in plan.steps]
    if as_json:
        typer.echo(to_json({"applied": applied, "steps": steps, "missing": list(missing)}))
        return
    console = output.console()
    for step in plan.changes:
        sign = {"create": "+", "update": "~"}[step.action]
        console.print(f"{sign} {step.kind} {step.name}", style="green")
        for line in step.detail:
            console.print(f"    {line}")
    kept = len(plan.steps) - len(plan.changes)
    done = "made" if applied else "to make"
    console.print(f"{len(plan.changes)} changes {done}, {kept} as they should be")
    for note in missing:
        console.print(f"missing: {note}", style="yellow")


def remains(found: Sequence[Remains], *, removed: int | None, as_json: bool) -> None:
    """What is left of tasks that are over, and how many documents of it were removed; None before that was asked."""
    if as_json:
        typer.echo(to_json({"removed": removed, "tasks": [one.as_json() for one in found]}))
        return
    if removed:
        output.console().print(f"{removed} documents of {len(found)} tasks were removed")
        return
    table = output.new_table("task", "state", "documents")
    for one in found:
        table.add_row(one.task_id, output.coloured(one.state) if one.state else "", str(len(one.paths)))
    # what is asked goes to the terminal, and the result to standard output
    console = output.console(stderr=removed is None)
    console.print(table if found else "There is nothing to remove.")


def approvers(found: Sequence[Approver], *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json({"approvers": [one.as_json() for one in found]}))
        return
    table = output.new_table("person", "entity", "groups", "since (UTC)", "problems")
    for one in found:
        groups, problems = "\n".join(one.groups), "\n".join(one.problems)
        table.add_row(one.person, one.name or one.entity, groups, f"{one.since:%Y-%m-%d %H:%M:%S}", problems)
    output.console().print(table if found else "Nobody is registered as an approver.")


def approver(done: str, one: Approver, *, as_json: bool) -> None:
    """What was done to one registration; `done` is a past participle."""
    if as_json:
        typer.echo(to_json(one.as_json()))
        return
    console = output.console()
    console.print(f"{one.person} is {done}")
    facts = {"entity": f"{one.name or 'gone'} ({one.entity})", "groups": ", ".join(one.groups)}
    output.print_facts(console, facts | ({"problems": ", ".join(one.problems)} if one.problems else {}))


def waiting(found: Sequence[PendingApproval], *, as_json: bool) -> None:
    """What waits for one approver: a block for each task."""
    if as_json:
        typer.echo(to_json({"tasks": [one.as_json() for one in found]}))
        return
    from jitvault.cli.views.policy import told
    from jitvault.cli.views.task import changed

    console = output.console()
    for one in found:
        missing = ", ".join(f"{each['count']} of {each['group']}" for each in one.missing)
        matter = one.matter
        what = f"revision {matter.revision.content['revision']}" + (", more time" if matter.extension else "")
        console.print(f"Task {one.task_id}, {what}", style="bold")
        for line in (*matter.words, f"By policy: {told(matter.decision)}.", *changed(one.changes)):
            console.print(output.folded(f"  {line}", console.width), soft_wrap=True)
        facts = {"digest": matter.digest, "missing": missing, "next": f"jitvault approve {one.task_id}"}
        output.print_facts(console, facts)
    if not found:
        console.print("Nothing waits for you.")
