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
from stage import Stage, Staging, hasty

from jitvault.engines.postgresql import client

SOAK_S = float(os.environ.get("SOAK_SECONDS", "0"))
SEED = os.environ.get("SOAK_SEED")
BLOB = os.environ.get("SOAK_BLOB")
LOUD = bool(os.environ.get("SOAK_STORIES"))
# of CI's examples, chosen because they have much in them; the first is always the simplest that there is
RICH = 50
# a round is short, so that a seed is soon played again, and its servers' files stay small
ROUND = 5
# one example costs some ten seconds of real time; shrinking would take an hour, and a story that is told is enough
QUICK = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=4,
    stateful_step_count=7,
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
ENDS = st.sampled_from([("complete",), ("revoke",), ("revoke", "--force", "--yes", "--reason", "it is played")])
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
        self.play = Play(self.stage, self.mortal, own, ("low", "low", "medium"))

    @initialize()
    def begin(self) -> None:
        """Most of what can go wrong begins where something is held: two leases, one, and a third task."""
        self.play.use(0)
        self.play.use(0)
        self.play.use(1)

    @rule(n=TASK, who=st.sampled_from(["approver-1", "approver-2"]))
    def decide(self, n: int, who: str) -> None:
        self.play.command(n, "submit")
        self.play.command(n, "approve", "--yes", who=who)

    @rule(n=TASK, leases=st.integers(1, 2))
    def use(self, n: int, leases: int) -> None:
        for _ in range(leases):
            self.play.use(n)

    @rule(n=TASK, how=ENDS)
    def end(self, n: int, how: tuple[str, ...]) -> None:
        self.play.command(n, *how)

    @rule(n=TASK, what=ANYTHING, point=st.integers(1, 90))
    def die(self, n: int, what: tuple[str, ...], point: int) -> None:
        self.play.dies(n, what, point)

    @rule(n=TASK, what=ANYTHING, trouble=TROUBLE)
    def have_an_outage(self, n: int, what: tuple[str, ...], trouble: Trouble) -> None:
        self.play.troubled(trouble, lambda: self.play.command(n, *what))

    @rule(n=TASK, how=ENDS, trouble=TROUBLE)
    def end_in_an_outage(self, n: int, how: tuple[str, ...], trouble: Trouble) -> None:
        self.play.troubled(trouble, lambda: self.play.command(n, *how))

    @rule(n=TASK, how=ENDS, trouble=TROUBLE, point=st.integers(1, 90))
    def die_in_an_outage(self, n: int, how: tuple[str, ...], trouble: Trouble, point: int) -> None:
        self.play.troubled(trouble, lambda: self.play.dies(n, how, point))

    @rule(n=TASK, how=ENDS)
    def end_during_a_read(self, n: int, how: tuple[str, ...]) -> None:
        self.play.read_during(n, lambda: self.play.command(n, *how))

    @rule(n=TASK, how=ENDS, mended=st.booleans())
    def end_what_cannot_be_dropped(self, n: int, how: tuple[str, ...], mended: bool) -> None:
        self.play.obstruct(n)
        self.play.command(n, *how)
        if mended:
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


def play(directory: Path, staging: Staging, how: settings, seed: int | None = None) -> None:
    """One round on servers of its own."""
    with ExitStack() as stack:
        stage = stack.enter_context(staging())
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


@pytest.mark.usefixtures("hurried")
@pytest.mark.timeout(600)
def test_whatever_happens_in_whatever_order(staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty(monkeypatch, 0.8)
    monkeypatch.setattr(client, "CONNECT_S", 1)
    if not SOAK_S and SEED is None and not BLOB:
        play(tmp_path, staging, QUICK, RICH)
        return
    for seed in seeds():
        print(f"SOAK_SEED={seed} make soak-state", flush=True)  # noqa: T201 - so that it can be played again
        play(tmp_path, staging, settings(LONG, verbosity=Verbosity.normal), seed)
