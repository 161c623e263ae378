"""Commands that die by SIGKILL where a test tells them to, on a ledger of their own; the program is `killed_at.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import SPEC
from rig import Rig, own_rig

from jitvault.formats.secret import Secret
from jitvault.sandbox.world import World
from jitvault.vault.wrapping import Wrapping

ALL = bool(os.environ.get("JITVAULT_TEST_ALL_POINTS"))


@dataclass
class Mortal:
    """Starts commands that die where they are told to."""

    process: subprocess.Popen[str]
    directory: Path
    unanswered: int = 0

    def __call__(
        self, rig: Rig, *arguments: str, point: int, in_a_hurry: bool = False, within: str = ""
    ) -> dict[str, Any]:
        """How the command ended: `{signal, code, points, out, err}`. In a hurry it tries a revocation twice only.

        `within` (`module:function`): only points within that function count.
        """
        output = self.directory / f"run-{time.monotonic_ns()}"
        order = {
            "arguments": [*arguments, "--json"],
            "environment": rig.cli.environment("operator"),
            "point": point,
            "within": within,
            "in_a_hurry": in_a_hurry,
            "output": str(output),
        }
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self.unanswered += 1
        while self.unanswered:
            # that of a test whose time was over comes first
            line = self.process.stdout.readline()
            self.unanswered -= 1
        answer = json.loads(line)
        said = {name: output.with_suffix(f".{name}").read_text() for name in ("out", "err")}
        return {**answer, **said}


@contextmanager
def mortals(directory: Path) -> Iterator[Mortal]:
    """Start the program; `directory` keeps what its commands print."""
    program = Path(__file__).parent / "killed_at.py"
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:
        yield Mortal(process, directory)
        assert process.stdin
        process.stdin.close()


def points_of(names: list[str], acts: tuple[str, ...], sample: int = 0, *, before: bool = False) -> list[int]:
    """Which of the points, counted from 1, are tried: after each act, that is when it is done and nobody knows it, with
    `before` also before it, and an even sample; or all of them.
    """
    if ALL:
        return list(range(1, len(names) + 1))
    around = [n for n, name in enumerate(names, 1) if name.startswith(acts)]
    even = {1 + round(n * (len(names) - 1) / (sample - 1)) for n in range(sample)}
    return sorted(even.union(around if before else around[1::2]))


def new_rig(world: World, variables: dict[str, str], directory: Path, name: str) -> tuple[Rig, Path]:
    """A ledger and a spec for one death."""
    own = directory / name
    own.mkdir()
    task = f"c{time.time_ns()}-{name}"
    file = own / f"{task}.yaml"
    fields = {"intent": "Count.", "criticality": "low", "template": "postgres-readonly", "window": "15m", "more": ""}
    file.write_text(SPEC.format(id=task, **fields))
    return own_rig(world, variables, own), file


def time_passes(rig: Rig) -> None:
    """A dead process keeps its claims for 30 s by the database's clock; here they are over at once."""
    for table in ("tasks", "audit_sources"):
        if rig.has_table(table):
            rig.sql(f"UPDATE {table} SET claim_until = 0")


def until_done(rig: Rig, *arguments: str | Path) -> dict[str, Any]:
    """Run the command as its own messages say, until it is done."""
    for _ in range(6):
        result = rig("operator", *arguments, code=None)
        if result.code == 0:
            return dict(result.json)
        assert result.code in (5, 6), result
        if "is known in" in result.stderr:
            time.sleep(3.1)
    raise AssertionError(result)


def live_wrappings(rig: Rig, *outputs: str) -> set[str]:
    """The wrapping tokens in what was printed that can still be unwrapped; a grant that waits has none."""
    printed = {w["token"] for text in outputs if text for w in json.loads(text).get("wrapping", ())}
    vault = rig.vault(rig.token_of("agent"))
    return {token for token in printed if Wrapping(vault).creation_path(Secret(token))}
