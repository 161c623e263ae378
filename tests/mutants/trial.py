"""Put one mutation into a throw-away copy of the checkout and see what its tests say."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

from mutants.forked_pytest import run_pytest
from mutants.mutation import ROOT, Mutation
from mutants.witness import FAILURES
from mutants.witness import ROOT as ROOT_VARIABLE

_LEFT_OUT = (".git", ".venv", "build", "dist", "*.pyc.*", ".*_cache", ".hypothesis")
_LONGEST_S = 240
# pytest says of its plugins that it cannot rewrite their asserts any more, which nobody needs
_PRELOADED = "ignore::pytest.PytestAssertRewriteWarning"
GREEN, RED = 0, 1


@dataclass(frozen=True, slots=True)
class Run:
    """How pytest ended: its exit code (None: it did not end), the tests that failed, and its last words."""

    code: int | None
    failed: tuple[str, ...]
    said: str
    seconds: float

    @property
    def is_green(self) -> bool:
        return self.code == GREEN

    @property
    def is_red(self) -> bool:
        """Tests failed, and not for want of a name or a module."""
        return self.code == RED and bool(self.failed)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant. `why` is empty for one that was caught."""

    mutation: Mutation
    why: str
    caught_by: str
    seconds: float
    said: str = ""


class Copy:
    """A copy of the checkout for one process at a time."""

    def __init__(self, place: Path) -> None:
        self.place = place
        shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
        # a mutant leaves no bytecode, and would compile all of it each time
        compileall.compile_dir(place / "jitvault", quiet=2)

    def run(self, tests: Sequence[str]) -> Run:
        """Run some tests up to the first that fails."""
        failures = self.place / "failures.txt"
        failures.unlink(missing_ok=True)
        argv = ["-n", "0", "-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
        argv += ["--hypothesis-profile=mutants", *tests]
        begun = time.monotonic()
        code, said = self._ended(argv, failures, _LONGEST_S)
        failed = tuple(failures.read_text().split()) if failures.exists() else ()
        return Run(code, failed, said, time.monotonic() - begun)

    def run_all(self, tests: Sequence[str]) -> tuple[tuple[str, ...], float]:
        """Run tests as the suite runs them; return the names of those that were not green, and the seconds it took."""
        begun = time.monotonic()
        code, said = self._ended(["-q", *tests], self.place / "failures.txt", None)
        if code == GREEN:
            return (), time.monotonic() - begun
        kept = self.place / ".pytest_cache/v/cache/lastfailed"
        if code != RED or not kept.exists():
            raise SystemExit(f"the tests of the mutations do not run: pytest ended with {code}\n{said[-2000:]}")
        return tuple(json.loads(kept.read_text())), time.monotonic() - begun

    def _ended(self, argv: Sequence[str], failures: Path, longest_s: float | None) -> tuple[int | None, str]:
        environment = {
            # not what a pytest that this runs in says to its own workers
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            # before any installed jitvault, and for the children of the tests as well
            "PYTHONPATH": f"{self.place}{os.pathsep}{self.place / 'tests'}",
            # what the checkout's own runs left is used, and a mutant leaves none
            "PYTHONDONTWRITEBYTECODE": "1",
            ROOT_VARIABLE: str(self.place),
            FAILURES: str(failures),
        }
        # those that the suite leaves out as well
        return run_pytest(
            ["-p", "mutants.witness", "-m", "", "-W", _PRELOADED, *argv], self.place, environment, longest_s
        )

    def judge(self, mutation: Mutation) -> Verdict:
        """Whether the tests of the mutation turn red by it. That they are green without it was seen before."""
        if stale := mutation.why_stale(self.place):
            return Verdict(mutation, f"stale: {stale}", "", 0.0)
        path = self.place / mutation.file
        before = path.read_text()
        # two versions of a file can have the same size and second, by which bytecode is known
        Path(cache_from_source(path)).unlink(missing_ok=True)
        path.write_text(mutation.applied(before))
        try:
            run = self.run(mutation.tests)
        finally:
            path.write_text(before)
        if run.is_red:
            return Verdict(mutation, "", run.failed[0], run.seconds)
        why = "survived" if run.is_green else f"no verdict: pytest ended with {run.code}"
        return Verdict(mutation, why, "", run.seconds, run.said)


def is_of(name: str, selection: Sequence[str]) -> bool:
    """Whether the test of this name runs where these tests are asked for."""
    return any(name == asked or name.startswith((f"{asked}::", f"{asked}[")) for asked in selection)
