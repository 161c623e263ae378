"""The worker as a process."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from jitvault.cli.options import Debug


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


def worker(
    hands: Annotated[int, typer.Option("--hands", min=1, max=64, help="How many tasks are looked after at once.")] = 4,
    may_hang: Annotated[
        int, typer.Option("--may-hang", min=1, max=64, help="How many more may wait for a target that hangs.")
    ] = 4,
    sweep_every: Annotated[
        str, typer.Option("--sweep-every", metavar="DURATION", help="How often to sweep, or `never`.")
    ] = "1h",
    fix: Annotated[
        bool, typer.Option("--fix", help="Let sweeps end what belongs to no task, instead of only telling.")
    ] = False,
    health: Annotated[
        str | None,
        typer.Option("--health", metavar="ADDRESS:PORT", help="Serve healthz, readyz and metrics, on loopback."),
    ] = None,
    log: Annotated[LogFormat, typer.Option("--log", help="How to log, to stderr.")] = LogFormat.CONSOLE,
    debug: Debug = False,
) -> None:
    """Run the lifecycle of all tasks unattended, until Ctrl-C or SIGTERM.

    It takes requests, issues what is approved, keeps alive what is held, ends what is due and proves what has ended.
    Several workers may run on one ledger. SIGHUP reads templates and policies again.
    """
    from jitvault.formats.time_window import parse_duration
    from jitvault.settings import load
    from jitvault.wiring import Wiring
    from jitvault.worker.logs import log_to_stderr
    from jitvault.worker.loops import Pace
    from jitvault.worker.memory import keep_private
    from jitvault.worker.process import Plan, work

    # before anything secret is read
    keep_private()
    pace = Pace(sweep_s=0 if sweep_every == "never" else parse_duration(sweep_every).total_seconds())
    plan = Plan(hands=hands, may_hang=may_hang, health=health, pace=pace, fix=fix)
    settings = load()
    told = log_to_stderr(as_json=log is LogFormat.JSON, vault_command=Wiring(settings).vault_command)
    work(settings, plan, told)
