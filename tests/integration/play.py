"""A few tasks that are played at random against servers that break: what the state machine's rules do.

Nothing here decides by chance: all choices are the caller's. Every act is one that its person may do, so that no
finding may come of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
from commands import SPEC, Result
from go_between import Fate, Moment
from invariants import check, check_over, files, reasons
from mortal import Mortal, live_wrappings, time_passes
from psycopg import sql
from rig import Held
from stage import Stage

from jitvault.agent.unwrap import read_all
from jitvault.errors import JitvaultError
from jitvault.model.states import OVER, PROVEN, State

FINAL = OVER - {State.DENIED, State.LAPSED}
SETTLE_S = 2.2
_MOST_LEASES = 3
# what an operator can wait for by running the command again
_AGAIN = (5, 6, 7)


@dataclass(frozen=True)
class Trouble:
    """What goes wrong at the `skip`-th request of a command."""

    what: str
    moment: Moment
    skip: int
    times: int = 1


@dataclass
class Played:
    """One task: what its agent holds, and what was printed of it."""

    file: Path
    printed: list[str] = field(default_factory=list)
    held: Held | None = None
    leases: list[dict[str, Any]] = field(default_factory=list)
    owned: list[str] = field(default_factory=list)
    last: State | None = None

    @property
    def name(self) -> str:
        return self.file.stem


class Play:
    """One ledger, its tasks, and the hands that work with them and break things."""

    def __init__(self, stage: Stage, mortal: Mortal, directory: Path, criticalities: tuple[str, ...]) -> None:
        self.stage, self.mortal = stage, mortal
        self.rig = stage.rig(directory)
        self.story: list[str] = []
        self.last: list[Result] = []
        self.killed, self.about = False, ""
        self.tasks = [self._task(n, how) for n, how in enumerate(criticalities)]

    def _task(self, n: int, criticality: str) -> Played:
        name = f"p{time.time_ns()}-{n}"
        file = self.rig.cli.home / f"{name}.yaml"
        fields = {"intent": "Count.", "template": "postgres-readonly", "window": "15m", "more": ""}
        file.write_text(SPEC.format(id=name, criticality=criticality, **fields))
        return Played(file)

    # -- commands ------------------------------------------------------------------------------------------------

    def command(self, n: int, what: str, *more: str, who: str = "operator") -> Result:
        """Run a command about task `n`; what it prints to deliver is kept."""
        task = self.tasks[n]
        known = what in ("grant", "submit")
        result = self.rig(who, what, task.file if known else task.name, *more, code=None)
        self.story.append(f"{what} {n}{' as ' + who if who != 'operator' else ''}: {result.code}")
        if what == "grant" and result.code == 0:
            task.printed.append(result.stdout)
        self.last, self.killed, self.about = [result], False, task.name
        return result

    def troubled(self, trouble: Trouble, act: Callable[[], object]) -> None:
        """Do something while something breaks; everything runs again afterwards."""
        self.story.append(str(trouble))
        fate = {"lose": Fate.LOSE, "hold": Fate.HOLD}.get(trouble.what, Fate.PASS)
        acts: dict[str, Callable[[], object]] = {
            "kill": self.stage.kill,
            "seal": self.stage.seal,
            "target": self.stage.postgres.kill,
        }
        strike = acts.get(trouble.what, lambda: None)
        self.stage.between.when(".", trouble.moment, strike, fate, skip=trouble.skip, times=trouble.times)
        try:
            act()
        finally:
            self.stage.mend()
            time_passes(self.rig)

    def dies(self, n: int, arguments: tuple[str, ...], point: int) -> None:
        """A command that ends by SIGKILL at a point, if it gets so far."""
        task = self.tasks[n]
        about = str(task.file) if arguments[0] in ("grant", "submit") else task.name
        died = self.mortal(self.rig, arguments[0], about, *arguments[1:], point=point)
        self.story.append(f"{arguments[0]} {n} dies at {point}: {died['signal'] or died['code']}")
        if arguments[0] == "grant" and died["out"].strip():
            with suppress(json.JSONDecodeError):
                json.loads(died["out"])
                task.printed.append(died["out"])
        self.last, self.killed, self.about = [], bool(died["signal"]), task.name
        time_passes(self.rig)

    # -- the agent -----------------------------------------------------------------------------------------------

    def use(self, n: int) -> None:
        """Unwrap the newest token, or have one granted, and read one more lease with it.

        Not what is spent or dead already: that is a finding, rightly.
        """
        task = self.tasks[n]
        if not self._holds(task) and self._wrapped(task) is None:
            self.command(n, "grant")
        if wrapped := self._wrapped(task):
            task.held = self.rig.use(wrapped, read=False)
            self.story.append(f"unwrap {n}")
        if task.held and self._holds(task) and len(task.leases) < _MOST_LEASES:
            task.leases += [each.as_json() for each in read_all(self.rig.vault(task.held.token), task.held.task)]
            self.story.append(f"read {n}: {task.leases[-1]['lease_id']}")

    def _holds(self, task: Played) -> bool:
        return task.held is not None and self.rig.is_live(task.held.token)

    def _wrapped(self, task: Played) -> dict[str, Any] | None:
        alive = task.printed and live_wrappings(self.rig, task.printed[-1])
        return dict(json.loads(task.printed[-1])) if alive else None

    def read_during(self, n: int, act: Callable[[], object]) -> None:
        """A read that hangs at the target while its token is revoked: its lease comes late."""
        task = self.tasks[n]
        if not self._holds(task) or len(task.leases) >= _MOST_LEASES:
            act()
            return
        late = Thread(target=self._read_somehow, args=[task])
        self.stage.pause_target()
        try:
            late.start()
            time.sleep(0.1)
            act()
        finally:
            self.stage.mend()
            late.join()
        self.story.append(f"a read of {n} went on meanwhile: {len(task.leases)} leases")

    def _read_somehow(self, task: Played) -> None:
        assert task.held
        with suppress(JitvaultError):
            task.leases += [each.as_json() for each in read_all(self.rig.vault(task.held.token), task.held.task)]

    def obstruct(self, n: int) -> None:
        """Let the newest login own something, so that Vault cannot drop it."""
        task = self.tasks[n]
        user = task.leases[-1]["fields"]["username"] if task.leases else ""
        if user in self.rig.database_roles() and user not in task.owned:
            self._at_target("CREATE SCHEMA {name} AUTHORIZATION {name}", user)
            task.owned.append(user)
            self.story.append(f"obstruct {n}")

    def release(self, n: int) -> None:
        for user in self.tasks[n].owned:
            self._at_target("DROP SCHEMA IF EXISTS {name}", user)
        self.tasks[n].owned.clear()

    def _at_target(self, statement: str, name: str) -> None:
        with psycopg.connect(self.rig.elsewhere, autocommit=True) as target:
            target.execute(sql.SQL(statement).format(name=sql.Identifier(name)))  # type: ignore[arg-type]

    # -- what has to hold ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert the invariants, and those of a play in which everybody does what they may."""
        check(self.rig, *self.last, about=self.about, killed=self.killed)
        wrong = []
        for file in files(self.rig):
            task = next(one for one in self.tasks if one.name == file.task.task_id)
            wrong += [f"{task.name}: a finding of nothing: {finding}" for finding in file.findings]
            if task.last in FINAL and file.task.state is not task.last:
                wrong.append(f"{task.name} was {task.last} and is {file.task.state}")
            task.last = file.task.state
        for task in self.tasks:
            if len(alive := live_wrappings(self.rig, *task.printed)) > 1:
                wrong.append(f"{task.name}: {len(alive)} wrapping tokens that were printed can be unwrapped")
        if self.rig.has_table("freezes"):
            wrong += [f"frozen: {row}" for row in self.rig.rows("SELECT * FROM freezes")]
        assert not wrong, wrong

    def over(self) -> None:
        """Everything works again: each task that was granted comes to its end, and stays there."""
        self.stage.mend()
        time_passes(self.rig)
        for n in range(len(self.tasks)):
            self.release(n)
        for n in range(len(self.tasks)):
            self._ends(n)
        confirmed = [n for n in range(len(self.tasks)) if self._state(n) is State.CONFIRMED]
        if confirmed:
            time.sleep(SETTLE_S)
        for n in confirmed:
            self.command(n, "status")
            if self._state(n) is State.CONFIRMED:
                time.sleep(1.1)
                self.command(n, "status")
            assert self._state(n) is State.SEALED, (n, self._state(n))
        self.check()
        for n, task in enumerate(self.tasks):
            if self._state(n) in PROVEN:
                check_over(self.rig, task.name)

    def _ends(self, n: int) -> None:
        for _ in range(5):
            if self._state(n) in (None, State.PENDING_APPROVAL, State.APPROVED, *FINAL):
                return
            result = self.command(n, "complete")
            if result.code == 0:
                return
            assert result.code in _AGAIN, result
            if "is known in" in result.stderr:
                time.sleep(3.1)
        raise AssertionError(f"task {n} is stuck in {self._state(n)}")

    def _state(self, n: int) -> State | None:
        if not self.rig.has_table("tasks"):
            return None
        (row,) = self.rig.rows("SELECT max(state) FROM tasks WHERE task_id = ?", self.tasks[n].name)
        return State(row[0]) if row[0] else None

    def told(self) -> str:
        """The story, and why what is not proven is not."""
        lines = [*self.story, *(f"{file.task.task_id} {file.task.state}: {reasons(file)}" for file in files(self.rig))]
        return "\n".join(lines)

    def clear_away(self) -> None:
        """Leave nothing behind for the next play, whatever happened in this one."""
        self.stage.mend()
        for n, task in enumerate(self.tasks):
            self.release(n)
            for facts in self.rig.task_tokens(task.name):
                self.rig.admin.write("auth/token/revoke-accessor", {"accessor": facts["accessor"]})
            for lease in task.leases:
                with suppress(JitvaultError):
                    self.rig.admin.write("sys/leases/revoke", {"lease_id": lease["lease_id"], "sync": True})
                user = lease["fields"]["username"]
                if user in self.rig.database_roles():
                    self._at_target("DROP OWNED BY {name}", user)
                    self._at_target("DROP ROLE {name}", user)
