"""Output about lists of tasks, templates, specs and approvers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

from jitvault.cli.folding import for_terminal, wrapped
from jitvault.cli.views import output
from jitvault.cli.views.listing import Cell, Column, print_listing
from jitvault.cli.views.output import to_json
from jitvault.formats.plural import counted
from jitvault.model.proof_check import NOT_ASKED
from jitvault.model.scope import Scope
from jitvault.model.states import PROVEN

if TYPE_CHECKING:
    from rich.console import Console

    from jitvault.documents.tidy import Remains
    from jitvault.kill_switch.kill import Result
    from jitvault.lifecycle.decision.pending_approvals import PendingApproval
    from jitvault.model.vault_access import Fetch
    from jitvault.provision.template_check.steps import Outcome


_MOST_SHOWN = 5
_AFTER = "accepted_after_end"
_SECOND = timedelta(seconds=1)
_FREEZERS = {"recovery": "jitvault ledger recover", "tripwire": "a tripwire"}


def print_kill_results(results: Sequence[Result], *, as_json: bool) -> None:
    """Print the result of each task of a kill switch.

    The successes are summed up in one line.
    """
    rows = [
        {
            "task_id": result.task_id,
            "state": result.state.value if result.state else None,
            "confirmed": result.confirmed,
            "target_asked": result.target_asked,
            "ended_earlier": result.ended_earlier,
            "error": str(result.error) if result.error else None,
            "not_proven": list(result.not_proven),
        }
        for result in results
    ]
    shown = {"tasks": rows, "confirmed": sum(result.confirmed for result in results)}
    if output.print_for_scripts(shown, *(result.task_id for result in results), as_json=as_json):
        return
    console = output.console()
    now = [row for row in rows if not row["ended_earlier"]]
    for row in now:
        if not row["confirmed"]:
            problem = row["error"] or f"is {row['state']}"
            console.print(f"  {row['task_id']}: {problem}", style="red", soft_wrap=True)
    for line in _ends_in_words(now):
        console.print(line, soft_wrap=True)
    _print_not_proven(rows, console)
    _print_ended_earlier([row for row in rows if row["ended_earlier"]], console)


def _ends_in_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how many of the tasks ended, and what that rests on.

    An end that rests on Vault's word alone is not called proven.
    """
    if not rows:
        return ["There was no task to end"]
    confirmed = [row for row in rows if row["confirmed"]]
    by_vault = sum(row["target_asked"] is False for row in confirmed)
    proven = len(confirmed) - by_vault
    of = f"of {len(rows)} {'task is' if len(rows) == 1 else 'tasks are'} ended"
    lines = [f"{proven} {of} and proven"] if proven or not by_vault else []
    return [*lines, f"{by_vault} {of}: {NOT_ASKED}"] if by_vault else lines


def print_frozen(scope: Scope, reason: str, states: Mapping[str, str], *, by_worker: bool, as_json: bool) -> None:
    """Print what a freeze has ended.

    `by_worker` says that the ledger was read. What is not ended is in the error that follows.
    """
    ended = {task: state for task, state in states.items() if state in PROVEN}
    left = {task: state for task, state in states.items() if task not in ended}
    shown = {"frozen": scope.as_json(), "reason": reason, "ended": ended, "not_ended": left}
    if output.print_for_scripts(shown, *states, as_json=as_json):
        return
    console = output.console()
    console.print(f"Frozen: {scope}.", soft_wrap=True)
    console.print("Nothing of it is granted or renewed until it is lifted.")
    if not states:
        source = "" if by_worker else ", by what is published in Vault"
        console.print(f"No task of it held access{source}.")
        return
    held = "1 task held" if len(states) == 1 else f"{len(states)} tasks held"
    console.print(f"{held} access, {len(ended)} ended and confirmed.")


def print_freezes(
    found: Sequence[Mapping[str, Any]], signs: Sequence[Mapping[str, str]], *, tripwires_known: bool
) -> None:
    """Print the active freezes.

    `signs` are what published tasks tell of a tripwire, where no ledger was read.
    """
    console = output.console()
    columns = [Column("what"), Column("by"), Column("since", spare=1), Column("why")]
    rows = []
    for row in found:
        author = row["by"] or _FREEZERS.get(row["kind"], "")
        rows.append([str(Scope(**row["scope"])), author, output.readable(row["first_at"]), row["reason"]])
    if rows:
        print_listing(console, columns, rows)
    else:
        console.print("Nothing is frozen." if tripwires_known else "Nothing is frozen by operators.")
    if not tripwires_known:
        line = "Whether a tripwire froze everything is not known here: only the ledger records it."
        if signs:
            line += " A tripwire did something, by what is published; ask who has the ledger whether that holds on:"
        console.print(wrapped(line, sys.stdout), soft_wrap=True)
    for sign in signs[:_MOST_SHOWN]:
        line = f"{sign['task_id']}, {output.readable(sign['at'])}: {sign['message']}"
        console.print(for_terminal(line, sys.stdout, first="  ", rest="    "), style="red", soft_wrap=True)
    if len(signs) > _MOST_SHOWN:
        console.print(f"  … and {len(signs) - _MOST_SHOWN} more; --json has all", style="red", soft_wrap=True)


def print_lifted_freezes(lifted: Sequence[Mapping[str, Any]]) -> None:
    """Print the freezes that were lifted, and by whom."""
    console = output.console()
    if not lifted:
        console.print("No freeze that was lifted is known here.")
        return
    columns = [Column("lifted"), Column("by"), Column("since", spare=3), Column("why", spare=2)]
    columns += [Column("lifted at", spare=1), Column("lifted by"), Column("why it was lifted")]
    rows = []
    for row in lifted:
        lift = row["lifted"]
        frozen = [row["by"] or _FREEZERS.get(row["kind"], ""), output.readable(row["at"]), row["reason"]]
        ended = [output.readable(lift["at"]), lift["by"] or "", lift["reason"]]
        rows.append([str(Scope(**row["scope"])), *frozen, *ended])
    console.print()
    print_listing(console, columns, rows)


def _print_not_proven(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what no check of a proof looks at, for some tasks.

    In an emergency, too many lines would hide the others.
    """
    concerned = [row for row in rows if row["not_proven"]]
    for row in concerned[:_MOST_SHOWN]:
        for point in row["not_proven"]:
            line = output.indented(f"{row['task_id']}: not proven: {point}", console.width)
            console.print(line, style="yellow", soft_wrap=True)
    if len(concerned) > _MOST_SHOWN:
        console.print(f"  … and of {len(concerned) - _MOST_SHOWN} more tasks; --json has all", style="yellow")


def _print_ended_earlier(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the tasks that had ended before this run, and how to close them."""
    if not rows:
        return
    stay, them = ("stays", "it") if len(rows) == 1 else ("stay", "them")
    console.print(
        f"{len(rows)} more had ended before and {stay} without proof; neither Vault nor the target shows any access of "
        f"{them}, and the exit code does not count {them}:",
        soft_wrap=True,
    )
    for row in rows:
        console.print(f"  {row['task_id']}: {row['error'] or row['state']}", soft_wrap=True)
    console.print("Close each with `jitvault revoke TASK --force --reason WHY` after the incident.", soft_wrap=True)


def print_spec_check(name: str, spec: Mapping[str, Any], fetches: Sequence[Fetch], *, as_json: bool) -> None:
    """Print that a spec is valid, and what its task would read.

    `name` is the task's id, or the pattern of the ids that are made of the spec.
    """
    reads = [fetch.path for fetch in fetches]
    sends = {fetch.path: dict(fetch.data) for fetch in fetches if fetch.data}
    shown = {"ok": True, "spec": spec, "reads": reads, "sends": sends}
    # the id of a task that is not submitted yet is not known
    ids = [spec["metadata"]["id"]] if "id" in spec["metadata"] else []
    if output.print_for_scripts(shown, *ids, as_json=as_json):
        return
    console = output.console()
    console.print(f"{name}: the spec is valid")
    for fetch in fetches:
        console.print(f"  {fetch.template} reads {fetch.path}")
        if fetch.data:
            console.print(f"    sending {output.pairs(fetch.data)}")
    agent, owner = (spec["spec"][part] for part in ("agent", "owner"))
    console.print(
        output.indented(f"not checked here: whether Vault has {agent} and {owner}; `grant` does", console.width)
    )


def print_templates(found: Sequence[Mapping[str, Any]], states: Mapping[str, str] | None, *, as_json: bool) -> None:
    """Print a list of templates.

    `states` are those of their checks by name, None where the caller may not see them.
    """
    known = states or {}
    names = [template["metadata"]["name"] for template in found]
    rows = [{**template, "check": known.get(name)} for name, template in zip(names, found, strict=True)]
    if output.print_for_scripts({"templates": rows}, *names, as_json=as_json):
        return
    columns = [Column("template"), Column("tier"), Column("ttl", spare=2), Column("window", spare=1)]
    columns += [Column("proof", spare=3), Column("check"), Column("what it allows")]
    table = []
    for template in found:
        spec = template["spec"]
        meta = template["metadata"]
        check = known.get(meta["name"], "")
        cells = [meta["name"], spec["tier"], spec["ttl"], spec["max_window"], spec["confirm"]]
        table.append([*cells, Cell(check, output.colour_of(check)), meta["description"]])
    print_listing(output.console(), columns, table)


def print_template(
    found: Mapping[str, Any],
    paths: Sequence[str],
    check: str | None,
    remarks: Sequence[str],
    *,
    connections: Sequence[str],
    as_json: bool,
) -> None:
    """Print one template.

    `check` is the state of its check, `remarks` what a passed check had to say, and `connections` where its credentials
    are used, for each choice that makes a difference.
    """
    if as_json:
        typer.echo(to_json({"template": found, "paths": list(paths), "check": check, "told": list(remarks)}))
        return
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
            **_accepted_after(spec),
            **({"verifiers": ", ".join(spec["verifiers"])} if "verifiers" in spec else {}),
            **({"check": check} if check else {}),
            **({"remarks": "; ".join(remarks)} if remarks else {}),
            "reads": ", ".join(paths),
            **({"connects": "; ".join(connections)} if connections else {}),
            **({"sends": output.pairs(spec["data"])} if "data" in spec else {}),
        },
    )


def _accepted_after(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return for how long others may accept a certificate after its end."""
    from jitvault.formats.time_window import parse_duration
    from jitvault.model.verifiers import describe_acceptance

    if _AFTER not in spec:
        return {}
    after_s, ttl_s = (parse_duration(spec[name]) // _SECOND for name in (_AFTER, "ttl"))
    return {"after end": describe_acceptance(after_s, ttl_s)}


def print_outcomes(name: str, found: Sequence[Outcome]) -> None:
    """Print the results of a template's check as JSON."""
    paths = [
        {
            "path": outcome.path,
            "with": dict(outcome.with_),
            "passed": outcome.passed,
            "ms": outcome.ms,
            "steps": [step.as_json() for step in outcome.steps],
            "left_behind": [left.what for left in outcome.left_behind],
            "clear": [command for left in outcome.left_behind for command in left.commands],
        }
        for outcome in found
    ]
    typer.echo(to_json({"template": name, "passed": all(outcome.passed for outcome in found), "paths": paths}))


def print_outcome(found: Outcome, program: str) -> None:
    """Print the result of checking one path.

    It has the numbers of the steps, what to repair, and the commands that end what was left behind. `program` is the
    server's, `bao` or `vault`.
    """
    console = output.console()
    result = output.coloured("passed" if found.passed else "failed")
    console.print(found.path, result, f"in {found.ms} ms", soft_wrap=True)
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
        for command in what.commands:
            # on one line, so that it can be copied
            typed = f"{program} {command[4:]}" if command.startswith("bao ") else command
            console.print(f"    {typed}", soft_wrap=True)


def print_remains(found: Sequence[Remains], *, removed: int | None, as_json: bool) -> None:
    """Print the documents of finished tasks.

    `removed` is how many were removed, None before the question.
    """
    shown = {"removed": removed, "tasks": [remains.as_json() for remains in found]}
    is_question = removed is None
    ids = (remains.task_id for remains in found)
    if not is_question and output.print_for_scripts(shown, *ids, as_json=as_json):
        return
    if removed:
        output.console().print(f"Removed {counted(removed, 'document')} of {counted(len(found), 'task')}")
        return
    # what belongs to the question goes to stderr, and the result to stdout
    console = output.console(stderr=removed is None)
    if not found:
        console.print("There is nothing to remove.")
        return
    columns = [Column("task"), Column("state"), Column("documents")]
    states = [Cell(remains.state or "", output.colour_of(remains.state or "")) for remains in found]
    numbers = (str(len(remains.paths)) for remains in found)
    print_listing(console, columns, [*zip((each.task_id for each in found), states, numbers, strict=True)])


def print_pending(
    found: Sequence[PendingApproval], frozen: Mapping[str, Mapping[str, Any] | None], *, as_json: bool
) -> None:
    """Print what waits for one approver, a block for each task.

    `frozen` has the freeze that covers a task, by its id, None where none is seen.
    """
    ids = (pending.task_id for pending in found)
    tasks = [{**pending.as_json(), "frozen": frozen[pending.task_id]} for pending in found]
    if output.print_for_scripts({"tasks": tasks}, *ids, as_json=as_json):
        return
    from jitvault.cli.views.proposal import proposal_lines

    console = output.console()
    for pending in found:
        # folded in a pipe, too: a terminal may be behind it, and would fold where a line of ours begins
        freeze = frozen[pending.task_id]
        for line in proposal_lines(pending.subject, pending.changes, pending.groups, console.width, frozen=freeze):
            console.print(line, soft_wrap=True)
        output.print_facts(console, {"next": f"jitvault approve {pending.task_id}"})
        console.print()
    if not found:
        console.print("No task waits for your approval.")
