"""Output about templates and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from jitvault.cli.views import output
from jitvault.cli.views.listing import Cell, Column, print_listing
from jitvault.formats.time_window import parse_duration
from jitvault.model.verifiers import describe_acceptance
from jitvault.provision.template_check.steps import Outcome

_AFTER = "accepted_after_end"
_SECOND = timedelta(seconds=1)


def print_templates(found: Sequence[Mapping[str, Any]], states: Mapping[str, str] | None) -> None:
    """Print a list of templates.

    `states` are those of their checks by name, None where the caller may not see them.
    """
    known = states or {}
    names = [template["metadata"]["name"] for template in found]
    rows = [{**template, "check": known.get(name)} for name, template in zip(names, found, strict=True)]
    if output.print_for_scripts({"templates": rows}, *names):
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
) -> None:
    """Print one template.

    `check` is the state of its check, `remarks` what a passed check had to say, and `connections` where its credentials
    are used, for each choice that makes a difference.
    """
    shown = {"template": found, "paths": list(paths), "check": check, "remarks": list(remarks)}
    if output.print_for_program(shown):
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
            "why": f"not proven by the target: {spec['confirm_why']}" if "confirm_why" in spec else "",
            "after end": _accepted_after(spec),
            "verifiers": ", ".join(spec.get("verifiers", ())),
            "check": check,
            "remarks": "; ".join(remarks),
            "reads": ", ".join(paths),
            "connects": "; ".join(connections),
            "sends": output.pairs(spec.get("data", {})),
        },
    )


def _accepted_after(spec: Mapping[str, Any]) -> str:
    """Return for how long others may accept a certificate after its end."""
    if _AFTER not in spec:
        return ""
    after_s, ttl_s = (parse_duration(spec[name]) // _SECOND for name in (_AFTER, "ttl"))
    return describe_acceptance(after_s, ttl_s)


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
    output.print_for_program({"template": name, "passed": all(outcome.passed for outcome in found), "paths": paths})


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
        elif step.is_remark:
            output.print_facts(console, seen)
    for what in found.left_behind:
        console.print(f"  LEFT BEHIND  {what}", style="red", soft_wrap=True)
        for command in what.commands:
            # on one line, so that it can be copied
            typed = f"{program} {command[4:]}" if command.startswith("bao ") else command
            console.print(f"    {typed}", soft_wrap=True)
