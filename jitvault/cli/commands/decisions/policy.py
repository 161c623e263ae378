"""`jitvault policy`: check a policy set, test and explain its decisions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from jitvault.cli import session
from jitvault.cli.decisions.policy_warnings import warnings_of
from jitvault.cli.folding import for_terminal
from jitvault.cli.lookups.own_identity import own_identity
from jitvault.cli.options import SpecFile, TaskId
from jitvault.cli.requests.spec_file import ReadSpec, missing_file, read_spec
from jitvault.cli.views import output
from jitvault.cli.views.policy import obligation_facts
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import InvalidInput, JitvaultError, WrongState
from jitvault.formats.plural import counted
from jitvault.formats.strict_yaml import MAX_BYTES, place
from jitvault.lifecycle.decision.evaluate import enabled
from jitvault.lifecycle.decision.explain import explain, template_facts
from jitvault.lifecycle.decision.questions import decision_input_for, principal_of
from jitvault.lifecycle.requests.freezes import freezes_covering_request, freezes_covering_seen
from jitvault.model.decision_input import DecisionInput
from jitvault.model.spec import TaskSpec
from jitvault.policy.cases import Outcome, parse_cases
from jitvault.policy.decision import AGENTS, OPERATORS, Obligations
from jitvault.policy.named_in_conditions import networks_named
from jitvault.policy.question import Principal
from jitvault.wiring import Wiring

_NOTHING_FROZEN = "nothing is frozen"
# what `policy explain` assumes without the worker's identity
_ASSUMED = (
    "the agent is in jitvault-agents and in no other group, the owner in none",
    "no other task holds a lease",
    "the agent has no open finding",
    _NOTHING_FROZEN,
    "the worker has these policies",
)
_ASSUMED_OF_PARENT = "its parent has this access, you may delegate it, and it was not delegated to the parent"


def policy_check(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="A directory with policies and their schema; by default those in use."),
    ] = None,
) -> None:
    """Check a policy set against its schema, and find rules that never decide.

    The command warns of what validates and is most likely not meant: a misspelt risk, tier or criticality; a risk that
    no rule covers; a group that Vault does not have; access that could be granted and not be renewed. Whether Vault has
    a group is asked with whatever identity is set here.

    Example: jitvault policy check policies/cedar
    """
    wiring = session.open_session()
    found = wiring.policies(directory or wiring.settings.policies)
    rules = list(found.rules.values())
    warnings = warnings_of(wiring, found)
    shown = {
        "ok": not found.idle,
        "policies": found.digest,
        "rules": [rule.id for rule in rules],
        "groups": sorted(found.groups),
        "idle": [{"rule": rule, "why": why} for rule, why in found.idle.items()],
        "warnings": warnings,
    }
    if not output.print_for_program(shown):
        permits = sum(rule.permits for rule in rules)
        facts = {
            "rules": f"{permits} permit, {len(rules) - permits} forbid",
            "groups": ", ".join(sorted(found.groups)) or "none",
            "policies": found.digest,
            "idle": "; ".join(f"{rule}: {why}" for rule, why in found.idle.items()),
        }
        console = output.console()
        console.print("The policy set is valid")
        output.print_facts(console, facts)
        for warning in warnings:
            typer.echo(for_terminal(f"warning: {warning}", sys.stdout, rest=" " * 9))
    if found.idle:
        raise InvalidInput(
            f"{counted(len(found.idle), 'rule')} without any effect: {', '.join(found.idle)}",
            hint="Remove these rules, or correct the rules that cover them. The policy set is used nevertheless.",
        )


def policy_test(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The test cases, YAML or JSON.")],
) -> None:
    """Run test cases against the policies in use.

    Each case has a request and the decision that it expects. The command exits with 8 where a decision differs.

    Example: jitvault policy test cases.yaml
    """
    authorizer = session.open_session().authorizer
    outcomes = []
    for case in parse_cases(_read(file), str(file)):
        decision = authorizer.decide([case.request.question()])
        outcomes.append(Outcome(case.name, decision, tuple(case.expect.differences(decision))))
    failed = [outcome for outcome in outcomes if outcome.differences]
    cases = [outcome.as_json() for outcome in outcomes]
    if not output.print_for_program({"ok": not failed, "policies": authorizer.digest, "cases": cases}):
        _show_outcomes(outcomes)
    if failed:
        raise InvalidInput(
            f"{len(failed)} of {len(outcomes)} cases are not decided as expected: {failed[0].name}",
            hint="Correct the policies or the case.",
        )


def policy_explain(
    spec: SpecFile,
    task_id: TaskId = None,
) -> None:
    """Explain what the policies would decide about a spec now.

    The command shows by which rules and why, and for a denial what would have to change. It requests nothing. With the
    worker's identity it takes held leases and freezes into account; without it, the output says what was assumed.

    Example: jitvault policy explain task.yaml
    """
    wiring = session.open_session()
    _check_has_policies(wiring)
    read = read_spec(wiring, spec, task_id)
    question, assumed = _question_of(wiring, read.spec)
    networks = networks_named(wiring.policies(wiring.settings.policies).rules.values())
    found = explain(wiring.authorizer, question, networks)
    if wiring.has_worker:
        frozen = freezes_covering_request(wiring.worker_without_session, question)
    else:
        frozen, assumed = _freezes_seen(wiring, question, assumed)
    decision = found.decision
    obligations = decision.obligations
    answer = {
        "task_id": read.spec.id if read.prefix is None else None,
        "decision": decision.as_json(),
        "instead": list(found.instead),
        "frozen": frozen,
        "assumed": assumed,
    }
    if output.print_for_program(answer):
        return
    facts = {"by": ", ".join(decision.rules) or "no rule", "because": "; ".join(decision.reasons)}
    facts |= obligation_facts(obligations) if decision.permitted else {}
    if not decision.permitted:
        facts["needed"] = "; or ".join(found.instead) or "other policies: no single change of the request is enough"
    if frozen:
        facts["frozen"] = "; ".join(freeze["reason"] for freeze in frozen) + " (`jitvault freezes`)"
    facts |= _taken_id(wiring, read)
    facts |= {"policies": decision.policy_digest, "assumed": "; ".join(assumed) or "nothing"}
    console = output.console()
    state = _resulting_state(decision.permitted, obligations)
    if frozen:
        console.print(f"Task {read.name} is frozen: nothing is granted; otherwise it would be {state}")
    elif decision.permitted and not wiring.has_worker:
        # an agent with an open finding is barred, and only the worker's identity sees that
        agent = read.spec.spec.agent
        console.print(f"Task {read.name} would be {state}; not if {agent} has an open finding, which is not known here")
    else:
        console.print(f"Task {read.name} would be {state}")
    output.print_facts(console, facts)


def _taken_id(wiring: Wiring, read: ReadSpec) -> dict[str, str]:
    """Return that the id of a spec is that of another requester's task.

    Policy does not know of it, and the request would be refused. Nothing is known without a login.
    """
    if wiring.person_token is None or read.prefix is not None:
        return {}
    with suppress(JitvaultError):
        document = session.published(wiring, read.spec.id)
        if isinstance(document, PublishedTask) and document.requester != wiring.person.entity:
            owner = document.full_revision.content.requester.name
            return {"id": f"taken: {owner} requested task {read.spec.id}; with --id ID the spec asks for another"}
    return {}


def _check_has_policies(wiring: Wiring) -> None:
    """Raise WrongState on an agent's host without the worker's policies."""
    if wiring.settings.lacks_policies:
        raise WrongState(
            "the policies that decide are the worker's, and are not on this agent's host",
            hint="Ask for the access: `jitvault submit SPEC` has it decided and prints why. To explain it here, set "
            "JITVAULT_POLICIES to a copy of the worker's policies; an operator explains it where they are.",
        )


def _freezes_seen(
    wiring: Wiring, question: DecisionInput, assumed: list[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the freezes that cover the access, and what is still assumed.

    Without the worker's identity they are those that the caller may read in Vault.
    """
    if wiring.person_token is None:
        return [], assumed
    try:
        frozen = freezes_covering_seen(wiring.person, question)
    except JitvaultError:
        return [], assumed
    known = "no tripwire froze everything"
    return frozen, [known if each == _NOTHING_FROZEN else each for each in assumed]


def _resulting_state(permitted: bool, obligations: Obligations) -> str:
    if not permitted:
        return "denied"
    return "pending_approval" if obligations.approvals else "approved at once"


def _show_outcomes(outcomes: Sequence[Outcome]) -> None:
    console = output.console()
    for outcome in outcomes:
        mark = output.coloured("✗", "red") if outcome.differences else output.coloured("✓", "green")
        console.print(mark, outcome.name)
        for difference in outcome.differences:
            console.print(f"    {difference}")


def _question_of(wiring: Wiring, spec: TaskSpec) -> tuple[DecisionInput, list[str]]:
    """Return what policy is asked about a spec that was not submitted.

    The second value says what of it is assumed.
    """
    access = [template_facts(wiring.templates[entry.template]) for entry in spec.spec.access]
    you, assumed = _assumed_caller(wiring, spec)
    depth = 1 if spec.spec.parent else 0
    about_parent = [_ASSUMED_OF_PARENT] if depth else []
    if not wiring.has_worker:
        agent = Principal("Agent", spec.spec.agent, spec.spec.agent, (AGENTS,))
        owner = Principal("Operator", spec.spec.owner, spec.spec.owner)
        is_agent = AGENTS in you.groups
        delegator = None
        if depth:
            delegator = replace(you, kind="Agent") if is_agent else you
        asks = is_agent and (depth > 0 or you.entity == agent.entity)
        at = wiring.clock.agreed()
        found = DecisionInput(spec, access, you, agent, owner, {}, depth, at, delegator, agent_asks=asks)
        return found, [*assumed, *about_parent, *_ASSUMED]
    worker = wiring.worker_without_session
    me = worker.identity.by_id(wiring.person.entity) if wiring.person_token else None
    if me:
        you = principal_of(worker, "Operator", me)
        assumed = []
    agent = principal_of(worker, "Agent", enabled(worker, spec, "agent"))
    owner = principal_of(worker, "Operator", enabled(worker, spec, "owner"))
    found = decision_input_for(
        worker,
        spec,
        access,
        requester=you,
        agent=agent,
        owner=owner,
        depth=depth,
        delegator=you if depth else None,
        agent_asks=not depth and you.entity == agent.entity,
    )
    return found, [*assumed, *about_parent]


def _assumed_caller(wiring: Wiring, spec: TaskSpec) -> tuple[Principal, list[str]]:
    """Return who requests the task, and what of that is assumed.

    The worker's identity, which knows, is not here. A login shows who its user is, as far as Vault says; on an agent's
    host without one that is the agent itself, which asks for nobody else.
    """
    is_agents_host = wiring.settings.agent_login is not None and not wiring.has_worker
    if is_agents_host and spec.spec.parent:
        you = Principal("Operator", "you", "you", (AGENTS,))
        return you, [f"you are in {AGENTS}, and requested the first of the tasks above this one"]
    me = None if wiring.has_worker or spec.spec.parent else own_identity(wiring)
    if me is not None:
        name = me.name or ("you" if OPERATORS in me.groups else spec.spec.agent)
        named = [] if me.name or name == "you" else [f"you are {name}"]
        groups = " and ".join(me.groups) or "none that jitvault has"
        return Principal("Operator", name, name, me.groups), [*named, f"you are in no other group than {groups}"]
    if not is_agents_host:
        return Principal("Operator", "you", "you", (OPERATORS,)), [f"you are in {OPERATORS}"]
    name = spec.spec.agent
    return Principal("Operator", name, name, (AGENTS,)), [f"you are {name}"]


def _read(path: Path) -> bytes:
    """Return the file's content, at most one byte more than is allowed.

    Raises InvalidInput.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise missing_file(path) from None
    except OSError as error:
        hint = "Name a file that you can read."
        raise InvalidInput(f"{place(str(path))} cannot be read: {error.strerror}", hint=hint) from None
