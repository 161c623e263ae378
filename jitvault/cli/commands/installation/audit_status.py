"""Commands about the audit stream.

They show whether it can be trusted, and close what it showed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jitvault.cli import session
from jitvault.cli.quiet import note
from jitvault.cli.views import output
from jitvault.context import WorkerContext
from jitvault.documents.signed import check_note
from jitvault.errors import AuditLagging, AuditUntrusted, Frozen, InvalidInput, WrongState
from jitvault.formats.plural import counted
from jitvault.kill_switch.triggers import end_all, tripped
from jitvault.stream.status import Trust, examine, stream_status_from_ledger

if TYPE_CHECKING:
    from rich.console import Console

_FROZEN = (
    "Treat the worker's identity as stolen (docs/operations/break-glass.md), unless agents share an address with the "
    "worker: then name it in JITVAULT_SHARED_HOSTS; or the ledger was restored: then run `jitvault ledger recover`. "
    "At the end `jitvault unfreeze --reason WHY`, with the worker's identity, lifts the freeze."
)
_COLOURS = {"trusted": "green", "lagging": "yellow", "untrusted": "red", "unknown": "yellow"}


def audit_status() -> None:
    """Send a canary through the audit stream and show each source.

    The command exits with 7 when the stream is not trusted: then nothing is granted or confirmed. Without the worker's
    identity it sends no canary and shows what the ledger has recorded.

    Example: jitvault audit status
    """
    wiring = session.open_session()
    found = examine(wiring.worker) if wiring.has_worker else stream_status_from_ledger(session.ledger_to_read(wiring))
    # where there is an error, its hint says that
    _show(found.as_json(), found.hint if found.trust is Trust.UNKNOWN else None)
    if found.trust in (Trust.LAGGING, Trust.UNTRUSTED):
        kind = AuditLagging if found.trust is Trust.LAGGING else AuditUntrusted
        raise kind(found.why or "the audit stream is not trusted", hint=found.hint)
    if found.freeze is not None:
        raise Frozen(f"everything is frozen: {found.freeze.reason}", hint=_FROZEN)


def audit_accept(
    reason: Annotated[str, typer.Option(help="What was lost, and why it will not happen again.")],
) -> None:
    """Accept that audit lines were lost, after you have repaired the cause.

    The missing lines of jitvault's own requests are recorded as a gap of the stream. Across a gap nothing is confirmed
    without look-ups and a listing of leases.

    Example: jitvault audit accept --reason "the disk was full; it has its own now"
    """
    worker, why = worker_with_reason(reason)
    missing = worker.ledger.unseen_operations(worker.now())
    if not missing:
        raise WrongState(
            "no audit line of jitvault's own requests is missing", hint="`jitvault audit status` shows what is wrong."
        )
    sources = worker.ledger.start_segments(f"accepted by hand, {len(missing)} acts without a line: {why}", worker.now())
    gap = f"a gap in {counted(sources, 'source')}: across it nothing is confirmed without look-ups and a listing"
    output.print_lines({"sources": sources, "reason": why}, gap)


def lift_tripwires(reason: str) -> None:
    """Lift the tripwires' freeze of everything.

    What is still held is ended first. Raises WrongState.
    """
    worker, why = worker_with_reason(reason)
    lifted = _lift(worker, why)
    done = f"lifted {counted(lifted, 'freeze')}; tasks that were ended stay ended"
    output.print_lines({"lifted": lifted, "reason": why}, done)


def _lift(worker: WorkerContext, why: str) -> int:
    """Return how many freezes were lifted.

    Raises WrongState while a task is still held, or if nothing is frozen.
    """
    if worker.ledger.freeze() is not None:
        end_all(worker, tripped(worker, {}), note)
        if held := worker.ledger.live_tasks():
            raise WrongState(
                f"access is still held by {counted(len(held), 'task')}: {', '.join(sorted(held)[:5])}",
                hint="Run it again.",
            )
    lifted = worker.ledger.lift_freezes(why, worker.now())
    if not lifted:
        raise WrongState("no tripwire has frozen anything", hint="`jitvault freezes` shows the active freezes.")
    return lifted


def worker_with_reason(reason: str) -> tuple[WorkerContext, str]:
    """Return the worker and the reason.

    Raises InvalidInput for an empty reason, UsageError without the identity.
    """
    why = checked_reason(reason)
    return session.open_session().worker, why


def checked_reason(reason: str) -> str:
    """Return the reason of a decision. Raises InvalidInput for an empty one."""
    why = check_note(reason)
    if not why:
        raise InvalidInput("--reason: expected a reason", hint="The reason is the only record of this decision.")
    return why


def _show(found: Mapping[str, Any], next_step: str | None) -> None:
    if output.print_for_program(found):
        return
    console = output.console()
    state = found["state"]
    if state == "unknown":
        console.print("Whether the audit stream is trusted is", output.coloured("unknown", _COLOURS[state]))
    else:
        console.print("The audit stream is", output.coloured(state, _COLOURS[state]))
    facts: dict[str, str] = {}
    if found["lag_ms"] is not None:
        facts["lag"] = f"{found['lag_ms']} ms from a request to its line here"
        facts["clock"] = _clock(found["skew_ms"])
    facts["because"] = found["why"]
    if next_step:
        facts["next"] = next_step
    if found["frozen"]:
        facts["frozen"] = f"since {output.readable(found['frozen']['at'])}: {found['frozen']['why']}"
    if found["not_kept"]:
        facts["not kept"] = _not_kept(found["not_kept"])
    output.print_facts(console, facts)
    for source in found["sources"]:
        _show_source(console, source)


def _not_kept(kinds: Sequence[Mapping[str, Any]]) -> str:
    """Return in words which lines are only counted.

    Anyone can make Vault write them, and they belong to no task or say nothing new.
    """
    last = max(kinds, key=lambda counted: str(counted["last_at"]))
    counts = ", ".join(f"{counted['lines']:,} {counted['kind'].replace('_', ' ')}" for counted in kinds)
    return f"{counts}: only counted, the last {output.readable(last['last_at'])} from {last['last_from'] or 'nowhere'}"


def _show_source(console: Console, source: Mapping[str, Any]) -> None:
    console.print(source["name"], soft_wrap=True)
    facts = {
        "counts": "yes" if source["counts"] else _why_not(source),
        "read": _read(source) if source["read_at"] else "nothing yet",
        "canary": output.readable(source["last_canary"]) if source["last_canary"] else "none",
    }
    if source["gaps"]:
        newest = source["gaps"][0]
        facts["gaps"] = f"{len(source['gaps'])}, the last {output.readable(newest['at'])}: {newest['what']}"
    output.print_facts(console, facts)


def _why_not(source: Mapping[str, Any]) -> str:
    return "not yet: no canary was found in it" if source["there"] else "not yet: the file is not there"


def _read(source: Mapping[str, Any]) -> str:
    return f"{source['offset']:,} bytes of stretch {source['stretch']}, {output.readable(source['read_at'])}"


def _clock(skew_ms: int) -> str:
    """Return in words how Vault's clock differs.

    Differences below a second are the request's own time.
    """
    if abs(skew_ms) < 1000:
        return "Vault's and ours agree"
    return f"Vault's is {abs(skew_ms) / 1000:.1f} s {'ahead of' if skew_ms > 0 else 'behind'} ours"
