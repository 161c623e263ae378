"""`jitvault worker`: run the worker as a process."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from jitvault.cli.options import duration
from jitvault.errors import InvalidInput, JitvaultError, UsageError
from jitvault.formats.time_window import parse_seconds
from jitvault.memory_protection import keep_private
from jitvault.settings import Settings, load
from jitvault.wiring import Wiring
from jitvault.worker.logs import death, log_to_stderr
from jitvault.worker.loop_base import Pace
from jitvault.worker.once import PACE, Once
from jitvault.worker.process import Plan, work
from jitvault.worker.processes import Link, keep
from jitvault.worker.processes import check as check_several

_DEFAULT = 4
_MOST = 64


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


def worker(
    concurrency: Annotated[int, typer.Option(min=1, max=_MOST, help="How many tasks to work on at once.")] = _DEFAULT,
    slow_slots: Annotated[
        int,
        typer.Option(min=1, max=_MOST, help="How many more tasks may wait for a target that hangs."),
    ] = _DEFAULT,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=_MOST,
            help="How many processes to run, each a whole worker. More than one need a ledger on PostgreSQL.",
        ),
    ] = 1,
    sweep_every: Annotated[str, typer.Option(metavar="DURATION", help="How often to sweep, or `never`.")] = "1h",
    fix: Annotated[
        bool, typer.Option("--fix", help="Let sweeps revoke what belongs to no task, instead of only reporting it.")
    ] = False,
    health: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS:PORT", help="Serve /healthz, /readyz and /metrics, on loopback."),
    ] = None,
    log: Annotated[LogFormat, typer.Option(help="The format of the log on stderr.")] = LogFormat.CONSOLE,
    once: Annotated[
        bool, typer.Option("--once", help="Do everything that is due now, and end: for a host without a daemon.")
    ] = False,
    wait: Annotated[
        float, duration("--wait", "How long --once works at most (exit code 13).", shown="60s", least=1, most=86_400)
    ] = 60.0,
) -> None:
    """Run the lifecycle of all tasks until Ctrl-C or SIGTERM.

    The worker admits requests, issues approved access, renews what tasks hold, revokes what is due and confirms that it
    is revoked. Several workers may run on one ledger. On SIGHUP it reads templates and policies again. With --once it
    exits with 0 when everything due was done, and with 6 while the end of a task is not proven.

    Example: jitvault worker --concurrency 8 --health 127.0.0.1:8080
    """
    if once and processes > 1:
        raise UsageError("--once works in one process", hint="Leave out --processes, or --once.")
    # before anything secret is read
    # a worker lives long: what Python finds early is memory that it does not keep (`main` has it search seldom)
    gc.set_threshold(700, 10, 10)
    keep_private()
    pace = PACE if once else Pace(sweep_s=_sweep_s(sweep_every))
    plan = Plan(hands=concurrency, may_hang=slow_slots, health=health, pace=pace, fix=fix)
    _work(plan, Once(wait) if once else None, processes, as_json=log is LogFormat.JSON)


def _work(plan: Plan, once: Once | None, processes: int, *, as_json: bool) -> None:
    """Run the worker; in a JSON log its death is the last event."""
    logger = log_to_stderr(as_json=as_json)
    try:
        settings = load()
        with closing(Wiring(settings)) as wiring:
            commands = wiring.commands()
        logger = log_to_stderr(as_json=as_json, commands=commands)
        if processes > 1:
            check_several(settings)
            run = partial(_work_as_one, settings, plan, commands, as_json=as_json)
            code = keep(processes, plan.health, logger, run)
            raise typer.Exit(code)
        if once is None:
            work(settings, plan, logger)
        else:
            work(settings, plan, logger, once.goes_on)
            once.check()
    except JitvaultError as error:
        if not as_json:
            raise
        # whoever collects the log reads events alone, and most of all this one
        logger.error("died", **death(error))  # noqa: TRY400 - the reason is told, and no traceback
        raise typer.Exit(error.exit_code) from None


def _work_as_one(settings: Settings, plan: Plan, commands: Sequence[str], link: Link, *, as_json: bool) -> None:
    """Run one of several processes; its death is an event that says which."""
    logger = log_to_stderr(as_json=as_json, commands=commands, process=link.number)
    try:
        work(settings, replace(plan, health=None, link=link), logger)
    except JitvaultError as error:
        logger.error("died", **death(error))  # noqa: TRY400 - the reason is told, and no traceback
        raise typer.Exit(error.exit_code) from None


def _sweep_s(text: str) -> float:
    """Return how often to sweep, in seconds; 0 for `never`."""
    if text == "never":
        return 0
    try:
        found = parse_seconds(text)
    except InvalidInput as error:
        raise InvalidInput(f"--sweep-every: {error}", hint="Write it as 10m or 1h, or as `never`.") from None
    if found < 1:
        raise InvalidInput(f"--sweep-every: expected at least 1s, got {text}", hint="`never` makes no sweep.")
    return found
