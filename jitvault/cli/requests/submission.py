"""Submit a spec: read it, check that its id is free, sign the request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import islice

import typer

from jitvault.agent.command_events import Asked
from jitvault.cli import caller, session
from jitvault.cli.options import ending, is_file, is_task_id, set_made_task
from jitvault.cli.quiet import is_for_program, note
from jitvault.cli.requests.grant_wait import own_request, spec_of
from jitvault.cli.requests.spec_file import STANDARD_INPUT, ReadSpec, read_spec
from jitvault.documents.illegible import illegible
from jitvault.documents.paths import ANYONE, PUBLISHED, request_path
from jitvault.documents.published_task import IllegibleDocument, PublishedRefusal, PublishedTask
from jitvault.documents.signed import payload_of
from jitvault.errors import InvalidInput, JitvaultError, UsageError, VaultRefused, WrongState
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.strict_yaml import place
from jitvault.lifecycle.requests.sign import sign_submission
from jitvault.model.revision_text import difference_of_specs
from jitvault.model.spec import TaskSpec
from jitvault.model.vault_access import role_name
from jitvault.wiring import Wiring

_MOST_LOOKED_AT = 100
_OTHER = "With `--id ID` this spec asks for another task."


def is_spec(what: str) -> bool:
    """Return whether `what` stands for a spec, and not for a task's id.

    That is `-`, a file, and the name of a file that does not exist.
    """
    return what == STANDARD_INPUT or is_file(what) or what.endswith((".yaml", ".yml", ".json")) or "/" in what


def submit_spec(
    context: typer.Context,
    wiring: Wiring,
    name: str,
    task_id: str | None,
    *,
    revise: bool,
    heartbeat: timedelta | None = None,
) -> TaskSpec:
    """Sign a request for a spec, and return the spec.

    It is that of the file `name`, or of standard input for `-`, with `heartbeat` where it has none. An id that is made
    from the spec's `generateName` is said before anything is signed: whoever is interrupted afterwards has to know it.
    Raises InvalidInput, WrongState, VaultRefused.
    """
    read = _read(wiring, name, task_id, revise=revise)
    spec = read.spec if heartbeat is None else _with_heartbeat(wiring, read.spec, heartbeat)
    ending(context).task = spec.id
    _check_free(wiring, spec, revise=revise)
    if read.prefix is not None:
        # what `exec` prints is its program's, which does not say the id
        _announce(context, spec.id, is_in_result=is_for_program() and heartbeat is None)
    try:
        with session.signing(
            f"ask for task {spec.id}", "members of jitvault-operators", writes=request_path(ANYONE, spec.id, "submit")
        ):
            sign_submission(wiring.person, spec, revise=revise)
    except VaultRefused:
        # nothing was written, so nobody has to find the task
        set_made_task(context, None)
        raise
    caller.tell(Asked(spec.id))
    return spec


def _read(wiring: Wiring, name: str, task_id: str | None, *, revise: bool) -> ReadSpec:
    """Return the spec in a file, checked before anything is written.

    Raises InvalidInput, UsageError.
    """
    read = read_spec(wiring, name, task_id)
    if revise and read.prefix is not None:
        raise UsageError(
            "--revise replaces the spec of a task, and this spec has generateName: each submission is another task",
            hint="Name the task with --id ID. Nothing was written.",
        )
    network = read.spec.spec.network
    if network is not None and wiring.token_role(role_name("15m", network)) is None:
        raise InvalidInput(
            f"{place(read.source)}: spec.network: network {network} is not provisioned",
            hint="An administrator provisions it with `jitvault init --network NAME=CIDR`.",
        )
    return read


def _with_heartbeat(wiring: Wiring, spec: TaskSpec, heartbeat: timedelta) -> TaskSpec:
    """Return the spec with a heartbeat.

    One that has its own keeps it, and one that the caller asked for without one is not another spec now.
    """
    if spec.spec.window.heartbeat is not None or own_spec(wiring, spec.id) == spec:
        return spec
    window = spec.spec.window.model_copy(update={"heartbeat": heartbeat})
    return spec.model_copy(update={"spec": spec.spec.model_copy(update={"window": window})})


def _announce(context: typer.Context, task_id: str, *, is_in_result: bool) -> None:
    """Say the id that was made, now and wherever the command ends early."""
    set_made_task(context, task_id)
    if not is_in_result:
        # with --quiet as well: nobody else knows the id, and without it the task is found in a list alone
        typer.echo(f"The id of this task is {task_id}", err=True)


def _check_free(wiring: Wiring, spec: TaskSpec, *, revise: bool) -> None:
    """Refuse an id that another requester or another spec has already.

    Nothing is written before. Raises WrongState.
    """
    document = session.published(wiring, spec.id)
    if document is None or isinstance(document, PublishedRefusal):
        return
    if isinstance(document, IllegibleDocument):
        raise illegible(spec.id, document.place)
    if document.requester != wiring.person.entity:
        owner = document.full_revision.content.requester.name
        raise WrongState(f"task {spec.id} was submitted by {owner}", hint=_OTHER)
    changed = difference_of_specs(spec_of(document), spec.canonical())
    if not changed:
        if revise:
            note(f"the spec is that of revision {document.revision} already: nothing changes, and approvals stay")
        return
    if document.state not in session.BEFORE:
        raise WrongState(
            f"task {spec.id} is {document.state} with another spec: {'; '.join(changed[:5])}",
            hint=f"What was granted is not changed afterwards. {_OTHER}",
        )
    if not revise:
        raise WrongState(
            f"task {spec.id} was submitted with another spec: {'; '.join(changed[:5])}",
            hint=f"`jitvault submit SPEC --revise` replaces it with a new revision. {_OTHER}",
        )


@contextmanager
def naming_agents(wiring: Wiring, spec: TaskSpec) -> Iterator[None]:
    """Say which agent was most likely meant where a worker refuses a spec.

    The agents are those of some tasks that are published. Nothing is said where one of them has the spec's agent.
    """
    try:
        yield
    except InvalidInput as error:
        agent = spec.spec.agent
        known = _agents_of_tasks(wiring)
        meant = nearest(agent, known) if agent not in known else ""
        error.hint += f" No other task has the agent {agent}{meant}." if meant else ""
        raise


def _agents_of_tasks(wiring: Wiring) -> set[str]:
    """Return the names of the agents of up to _MOST_LOOKED_AT tasks."""
    found = set[str]()
    with suppress(JitvaultError):
        for name in islice(wiring.documents.names(PUBLISHED), _MOST_LOOKED_AT):
            document = session.published(wiring, name)
            if isinstance(document, PublishedTask):
                found.add(document.full_revision.content.agent.name)
    return found


def own_spec(wiring: Wiring, task_id: str) -> TaskSpec | None:
    """Return the spec that the caller submitted for a task; None without one.

    It is read from the caller's own signed request.
    """
    if not is_task_id(task_id):
        return None
    person = wiring.person
    document = person.documents.get(own_request(wiring, task_id, "submit"))
    return TaskSpec.from_data(payload_of(document)["spec"], task_id) if document else None
