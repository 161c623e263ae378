"""Acts, deaths and outages in sequences that nobody thought of; the invariants hold after each, and all of it ends.

SOAK_SECONDS=N (`make soak-state`) plays for so long, each round from a seed of its own, which is printed; SOAK_SEED=S
plays that one round again, and SOAK_BLOB=B the one example that a failure names as @reproduce_failure.
SOAK_STORIES=1 tells of each example what was played.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from mortal import Mortal, mortals
from play import SETTLE_S, Play, Trouble
from rig import hurried
from stage import Stage, hasty, staged

from jitvault.engines import database

SOAK_S = float(os.environ.get("SOAK_SECONDS", "0"))
SEED = os.environ.get("SOAK_SEED")
BLOB = os.environ.get("SOAK_BLOB")
LOUD = bool(os.environ.get("SOAK_STORIES"))
# a round is short, so that a seed is soon played again, and its servers' files stay small
ROUND = 5
# one example costs some ten seconds of real time; shrinking would take an hour, and a story that is told is enough
QUICK = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=2,
    stateful_step_count=9,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, derandomize=False, max_examples=ROUND, stateful_step_count=14, print_blob=True)

TASK = st.integers(0, 2)
TROUBLE = st.builds(
    Trouble,
    st.sampled_from(["lose", "hold", "kill", "target", "seal"]),
    st.sampled_from(["before", "after"]),
    st.integers(0, 45),
    st.sampled_from([1, 1, 3]),
)
ENDS = st.sampled_from([("complete",), ("revoke",), ("revoke", "--force", "--reason", "it is played")])
ANYTHING = st.one_of(st.just(("grant",)), ENDS, st.just(("status",)))


class Acts(RuleBasedStateMachine):
    """No rule has a precondition and no choice depends on what was found: an example can be played again."""

    stage: Stage
    mortal: Mortal
    directory: Path

    def __init__(self) -> None:
        super().__init__()
        self.outer = sys.exc_info()[1]
        own = Path(mkdtemp(dir=self.directory))
        self.play = Play(self.stage, self.mortal, own, ("low", "medium", "low"))

    @initialize()
    def begin(self) -> None:
        """One task is held already: most of what can go wrong begins there."""
        self.play.command(0, "grant")
        self.play.unwrap(0)
        self.play.read(0)

    @rule(n=TASK)
    def submit(self, n: int) -> None:
        self.play.command(n, "submit")

    @rule(n=TASK, who=st.sampled_from(["approver-1", "approver-2"]))
    def approve(self, n: int, who: str) -> None:
        self.play.command(n, "submit")
        self.play.command(n, "approve", "--yes", who=who)

    @rule(n=TASK)
    def grant_and_use(self, n: int) -> None:
        self.play.command(n, "grant")
        self.play.unwrap(n)
        self.play.read(n)

    @rule(n=TASK)
    def grant(self, n: int) -> None:
        self.play.command(n, "grant")

    @rule(n=TASK)
    def read(self, n: int) -> None:
        self.play.unwrap(n)
        self.play.read(n)

    @rule(n=TASK, how=ENDS)
    def end(self, n: int, how: tuple[str, ...]) -> None:
        self.play.command(n, *how)

    @rule(n=TASK, what=ANYTHING, point=st.integers(1, 90))
    def die(self, n: int, what: tuple[str, ...], point: int) -> None:
        self.play.dies(n, what, point)

    @rule(n=TASK, what=ANYTHING, trouble=TROUBLE)
    def have_an_outage(self, n: int, what: tuple[str, ...], trouble: Trouble) -> None:
        self.play.troubled(trouble, lambda: self.play.command(n, *what))

    @rule(n=TASK, how=ENDS)
    def end_during_a_read(self, n: int, how: tuple[str, ...]) -> None:
        self.play.read_during(n, lambda: self.play.command(n, *how))

    @rule(n=TASK, how=ENDS)
    def end_what_cannot_be_dropped(self, n: int, how: tuple[str, ...]) -> None:
        self.play.obstruct(n)
        self.play.command(n, *how)

    @rule(n=TASK)
    def release(self, n: int) -> None:
        self.play.release(n)

    @rule(n=TASK, seconds=st.sampled_from([0.0, SETTLE_S]))
    def look(self, n: int, seconds: float) -> None:
        time.sleep(seconds)
        self.play.command(n, "status")

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.play.check()

    def teardown(self) -> None:
        """Also runs while a failure is on its way, which is then told with what was played."""
        failure = sys.exc_info()[1]
        try:
            if failure is self.outer:
                self.play.over()
                if LOUD:
                    print(self.play.told(), flush=True)  # noqa: T201
        except Exception as error:
            failure = error
            raise
        finally:
            if failure is not None and failure is not self.outer:
                failure.add_note(self.play.told())
            self.play.clear_away()


def play(directory: Path, how: settings, seed: int | None = None) -> None:
    """One round on servers of its own."""
    with ExitStack() as stack:
        stage = stack.enter_context(staged())
        mortal = stack.enter_context(mortals(directory))
        machine = type("Acts", (Acts,), {"stage": stage, "mortal": mortal, "directory": directory})
        if BLOB:
            machine = hypothesis.reproduce_failure(hypothesis.__version__, BLOB.encode())(machine)
        elif seed is not None:
            machine = hypothesis.seed(seed)(machine)
        run_state_machine_as_test(machine, settings=how)


def seeds() -> Iterator[int]:
    if SEED is not None:
        yield int(SEED)
        return
    begun = time.monotonic()
    while time.monotonic() - begun < SOAK_S:
        yield random.SystemRandom().randrange(2**32)


def test_whatever_happens_in_whatever_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty(monkeypatch, 0.8)
    hurried(monkeypatch)
    monkeypatch.setattr(database, "CONNECT_S", 1)
    if not SOAK_S and SEED is None and not BLOB:
        play(tmp_path, QUICK)
        return
    for seed in seeds():
        print(f"SOAK_SEED={seed} make soak-state", flush=True)  # noqa: T201 - so that it can be played again
        play(tmp_path, settings(LONG, verbosity=Verbosity.normal), seed)
