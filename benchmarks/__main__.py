"""`python -m benchmarks`: measure, print a table, write `build/bench.json`; exit 1 when a bar is missed.

    --no-fail       exit 0 all the same
    --only NAMES    some groups only, comma-separated: start, demo, commit, idle, policy, masking, execution, latency,
                    throughput, warm, crowd, keep, flood, fairness,
                    grant, end, record, decode, kill
    --calls         print each Vault request and each ledger transaction of one grant and of one completion

Every figure is measured in this run, beside what it is compared with. Milliseconds are this machine's; ratios
are what can be compared between machines.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    commit,
    crowd,
    decode,
    demo,
    end,
    execution,
    fairness,
    flood,
    grant,
    idle,
    keep,
    kill,
    latency,
    masking,
    policy,
    record,
    start,
    throughput,
    warm,
)
from benchmarks.measure import Figure, rounded
from benchmarks.meter import COMMIT, LEDGER_READ, VAULT, Meter
from benchmarks.scene import scene

BUILD = Path(__file__).parent.parent / "build"
ALONE = {
    "start": start.run,
    "demo": demo.run,
    "commit": commit.run,
    "idle": idle.run,
    "policy": policy.run,
    "masking": masking.run,
    "execution": execution.run,
    "latency": latency.run,
    "throughput": throughput.run,
    "warm": warm.run,
    "crowd": crowd.run,
    "keep": keep.run,
    "flood": flood.run,
    "fairness": fairness.run,
}
IN_SCENE = ("grant", "end", "record", "decode", "kill")
_WHAT = {VAULT: "Vault requests", COMMIT: "ledger commits", LEDGER_READ: "ledger reads"}


def main() -> int:
    asked = _arguments()
    # as Ctrl-C: the servers and their directories go
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # a file or a pipe has no width: wide enough that no line is broken
    console = Console(width=None if sys.stdout.isatty() else 160)
    progress = Console(stderr=True)
    BUILD.mkdir(exist_ok=True)
    figures: list[Figure] = []
    started = time.monotonic()
    # on the disk of the checkout: a temporary directory in memory would make commits look free
    with tempfile.TemporaryDirectory(prefix="bench-", dir=BUILD) as name:
        for group, found in _measured(asked.only, Path(name), console if asked.calls else None):
            progress.print(f"{group}: {len(found)} figures after {time.monotonic() - started:.0f} s", highlight=False)
            figures += found
    _show(console, figures)
    (BUILD / "bench.json").write_text(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")
    missed = [figure.name for figure in figures if not figure.ok]
    if missed:
        progress.print(f"Missed: {', '.join(missed)}", style="bold red")
    return 1 if missed and not asked.no_fail else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure jitvault on real servers.")
    parser.add_argument("--no-fail", action="store_true", help="exit 0 although a bar is missed")
    parser.add_argument("--calls", action="store_true", help="print the calls of one grant and of one completion")
    parser.add_argument("--only", type=_groups, default=(*ALONE, *IN_SCENE), metavar="NAMES", help="some groups")
    return parser.parse_args()


def _groups(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = sorted(set(names) - {*ALONE, *IN_SCENE})
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return names


def _measured(only: tuple[str, ...], directory: Path, calls: Console | None) -> Iterator[tuple[str, list[Figure]]]:
    for name, run in ALONE.items():
        if name in only:
            yield name, _tried(name, partial(run, directory))
    if not set(IN_SCENE) & set(only):
        return
    with scene(directory) as world:
        for name, run_in in (("grant", grant.run), ("end", end.run)):
            # the decoder's lines come from both, so it needs them to have run
            if name in only or "decode" in only:
                yield name, _tried(name, partial(_metered, name, partial(run_in, world), calls))
        if "record" in only:
            yield "record", _tried("record", partial(record.run, world))
        if "decode" in only:
            yield "decode", _tried("decode", partial(decode.run, world.world.audit_file, directory))
        if "kill" in only:
            yield "kill", _tried("kill", partial(kill.run, world))


def _metered(name: str, run: Callable[[], tuple[list[Figure], Meter]], calls: Console | None) -> list[Figure]:
    found, meter = run()
    if calls:
        _show_calls(calls, name, meter)
    return found


def _tried(name: str, run: Callable[[], list[Figure]]) -> list[Figure]:
    """The group's figures. One that breaks off is a missed figure that says why: the others are not lost with it."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - whatever a benchmark meets
        return [Figure(f"{name}_broke_off", 1, "times", f"{type(error).__name__}: {error}", bar=0)]


def _show(console: Console, figures: list[Figure]) -> None:
    table = Table("figure", "value", "unit", "bar", "ok", "measured against")
    for column in (1, 3):
        table.columns[column].justify = "right"
    for figure in figures:
        sign = "≤" if figure.better == "lower" else "≥"
        bar = "" if figure.bar is None else f"{sign} {figure.bar:g}"
        ok = "" if figure.bar is None else ("[green]yes[/]" if figure.ok else "[bold red]no[/]")
        table.add_row(figure.name, f"{rounded(figure.value):,}", figure.unit, bar, ok, figure.against)
    console.print(table)


def _show_calls(console: Console, name: str, meter: Meter) -> None:
    for kind, title in _WHAT.items():
        table = Table(f"{title} of one {name}", "times")
        table.columns[1].justify = "right"
        for (_, what), times in sorted(item for item in meter.what.items() if item[0][0] == kind):
            table.add_row(what, str(times))
        console.print(table)


if __name__ == "__main__":
    sys.exit(main())
