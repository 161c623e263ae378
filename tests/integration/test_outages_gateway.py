"""What stands between jitvault and Vault cuts, delays, repeats, refuses and invents answers.

It lies once, at one request of a grant, a renewal, an end or a seal. Whatever it does, no token is left that nobody
records, and no task is called over while one lives. JITVAULT_TEST_ALL_OUTAGES=1 tries every lie at every kind of one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from commands import Result
from go_between import LATER_S, REFUSED, Answered, Fate, GoBetween, Moment
from invariants import at_target, live_leases, reasons
from rig import Rig
from stage import ALL, Stage, hasty

from jitvault.model.states import BEFORE_GRANT, PROVEN, State

Spec = Callable[..., Path]
_JSON, _HTML = [("Content-Type", "application/json")], [("Content-Type", "text/html")]
_TRIES = 6


@dataclass(frozen=True)
class Lie:
    """What becomes of one request, and what its sender hears."""

    fate: Fate
    moment: Moment
    answer: Answered | None = None


def says(status: int, body: bytes, headers: list[tuple[str, str]] = _JSON) -> Answered:
    return status, headers, body


_SAID = {
    "429 HTML": says(429, b"<html>slow down</html>", _HTML),
    "429": says(429, b'{"errors":["rate limit quota exceeded"]}'),
    "503": says(503, b'{"errors":["Vault is sealed"]}'),
    "403": REFUSED,
    "another's": None,
}
LIES = {
    **{f"{name} in its place": Lie(Fate.LIE, "before", said) for name, said in _SAID.items()},
    **{f"{name} when it is done": Lie(Fate.LIE, "after", said) for name, said in _SAID.items()},
    "an empty answer in its place": Lie(Fate.LIE, "before", says(200, b'{"request_id":"r","data":{}}')),
    "cut in its place": Lie(Fate.LOSE, "before"),
    "cut when it is done": Lie(Fate.LOSE, "after"),
    "held back when it is done": Lie(Fate.HOLD, "after"),
    "twice": Lie(Fate.TWICE, "before"),
    "503 and then done": Lie(Fate.LATER, "before", _SAID["503"]),
    "403 and then done": Lie(Fate.LATER, "before", _SAID["403"]),
}
# the acts of each phase; the requests of a phase are these and what is asked in between
ACTS = {
    "grant": {
        "create": "PUT auth/token/create/",
        "look-up": "PUT auth/token/lookup-accessor",
        "deliver": "PUT jitvault-inbox/data/",
        "publish": "PUT jitvault/data/tasks/",
    },
    "renewal": {
        "renew": "PUT auth/token/renew-accessor",
        "renew a lease": "PUT sys/leases/renew/",
    },
    "end": {
        "revoke": "PUT auth/token/revoke-accessor",
        "revoke a lease": "PUT sys/leases/revoke/",
        "look-up": "PUT sys/leases/lookup$",
    },
    "seal": {"sign": "PUT jitvault-transit/sign/jitvault-receipts"},
}
# what each act is tried with where not all are: a create with everything that it can meet
FEW = {
    "create": ["429 when it is done", "another's when it is done", "twice", "503 and then done"],
    "deliver": ["403 when it is done", "an empty answer in its place"],
    "renew": ["429 when it is done", "403 when it is done", "503 and then done", "another's in its place"],
    "renew a lease": ["twice"],
    "revoke": ["403 and then done", "429 in its place"],
    "revoke a lease": ["another's in its place"],
    "sign": ["429 when it is done", "an empty answer in its place"],
}
# what was done once and not answered is found out, and alarms nobody
ONLY_LOST = [f"{what} when it is done" for what in ("429 HTML", "429", "503", "cut", "held back")]
# what differs where nothing is done but asked
OF_READS = ("429 in its place", "503 in its place", "403 in its place", "another's in its place", "cut in its place")
PHASES = ("grant", "renewal", "end", "seal")
# what is another one in each life
_ID = re.compile(r"hmac-sha256:[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|t[0-9a-f]{8}-\d+|(?<=app-readonly/)\w+")


@pytest.fixture
def rig(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch, 0.7)
    rig = stage.rig(tmp_path)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_ROLLING_STEP": "60s"}
    yield rig
    stage.between.clear()


def cases() -> list[tuple[str, str, str]]:
    """Phase, act and lie."""
    return [
        (phase, act, lie) for phase, acts in ACTS.items() for act in acts for lie in (LIES if ALL else FEW.get(act, ()))
    ]


@pytest.mark.parametrize(("phase", "act", "lie"), cases())
def test_no_lie_at_an_act_leaves_a_token_that_nobody_records(
    stage: Stage, rig: Rig, spec: Spec, phase: str, act: str, lie: str
) -> None:
    other = spec()
    if lie.startswith("another's"):
        # whose answers there are
        rig.granted(other)
    assert Life(rig, stage.between, spec()).lives(phase, ACTS[phase][act], LIES[lie])
    assert len(rig.task_tokens(other.stem)) == lie.startswith("another's"), "somebody else's token was ended"
    if lie in ONLY_LOST:
        assert rig.rows("SELECT rule FROM findings") == []


@pytest.mark.skipif(not ALL, reason="every lie at every kind of request of a life")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("phase", PHASES)
def test_no_lie_at_any_other_request_does(
    stage: Stage, rig: Rig, spec: Spec, tmp_path: Path, phase: str, lie: str
) -> None:
    """Each kind of request with a ledger of its own: what a lie freezes stays frozen."""
    honest = Life(rig, stage.between, spec())
    honest.lives(phase, "never", LIES[lie])
    acts = [re.compile(act) for act in ACTS[phase].values()]
    kinds = dict.fromkeys(_ID.sub("~", what) for what in honest.seen)
    assert len(kinds) > 3
    wrong = []
    for n, kind in enumerate(kinds):
        is_read = kind.startswith(("GET", "LIST"))
        if any(act.search(kind) for act in acts) or (is_read and lie not in OF_READS):
            continue
        own = stage.rig(tmp_path / str(n))
        own.cli.variables = dict(rig.cli.variables) | {"JITVAULT_LEDGER": own.cli.variables["JITVAULT_LEDGER"]}
        where = "^" + re.escape(kind).replace("\\~", "~").replace("~", "[^/]+") + "$"
        try:
            Life(own, stage.between, spec()).lives(phase, where, LIES[lie])
        except AssertionError as error:
            wrong.append((kind, str(error)[:2000]))
    assert not wrong, "\n\n".join(map(str, wrong))


class Life:
    """One task from its grant to its seal, while a lie is told."""

    def __init__(self, rig: Rig, between: GoBetween, file: Path) -> None:
        self._rig, self._between, self._file = rig, between, file
        self._task = file.stem
        self._granted: dict[str, Any] | None = None
        self._comes_later = False
        self.seen: list[str] = []
        """What was asked in the phase of the lie."""

    def lives(self, phase: str, where: str, lie: Lie) -> bool:
        """Live through it; return whether the lie was told."""
        rule, self._comes_later = None, lie.fate is Fate.LATER
        for name, act in zip(PHASES, (self._is_granted, self._is_renewed, self._ends, self._is_sealed), strict=True):
            if name == phase:
                rule = self._between.when(where, lie.moment, fate=lie.fate, answer=lie.answer)
                self._between.seen.clear()
            act()
            if name == phase:
                self.seen = list(self._between.seen)
        assert rule is not None
        return bool(rule.struck)

    def _run(self, *arguments: str | Path) -> Result:
        """Run a command; whatever it says, nothing that lives may be called over."""
        result = self._rig("operator", *arguments, code=None)
        self._is_honest(result.stderr)
        if "audit accept" in result.stderr:
            # what was said to be done has no line: that is for an operator to accept
            self._rig("operator", "audit", "accept", "--reason", "a gateway that lies", code=None)
        if result.code and "is known in" in result.stderr:
            # whether a token was made is known after Vault's longest request
            time.sleep(3.1)
        return result

    @property
    def _state(self) -> State | None:
        state = self._rig.state(self._task)
        return None if state is None else State(state)

    def _is_honest(self, said: str = "") -> None:
        if self._state in PROVEN:
            record = self._rig.record(self._task)
            assert self._rig.task_tokens(self._task) == [], (self._state, said)
            assert not live_leases(self._rig, [record]), (self._state, said)
            assert not at_target(self._rig, record), (self._state, said)

    def _is_granted(self) -> None:
        for _ in range(_TRIES):
            result = self._run("grant", self._file)
            self._granted = result.json if result.code == 0 else None
            if self._granted or self._state not in (*BEFORE_GRANT, State.ISSUING, None):
                return
        # nothing was granted, and nothing of it may be left
        assert self._state in BEFORE_GRANT

    def _is_renewed(self) -> None:
        if self._state is not State.ISSUED or self._granted is None:
            return
        if self._granted["wrapping"]:
            # else the inbox was never written, and nobody can take the token out of its wrapping
            self._rig.use(self._granted)
        self._run("status", self._task)
        self._rig.sql("UPDATE grants SET renew_at = issued_at WHERE delivered")
        self._rig.sql("UPDATE tasks SET due_at = created_at")
        for _ in range(2):
            self._run("status", self._task)
            time.sleep(2 * LATER_S if self._comes_later else 0)
            ends = [datetime.fromisoformat(facts["expire_time"]) for facts in self._rig.task_tokens(self._task)]
            known = [grant.expires_at for grant in self._rig.record(self._task).grants if grant.expires_at]
            assert max(ends, default=known[-1]) <= max(known)

    def _ends(self) -> None:
        if self._state in BEFORE_GRANT:
            return
        for _ in range(_TRIES):
            self._run("complete", self._task)
            if self._state in PROVEN:
                return
        raise AssertionError((self._state, reasons(self._rig.record(self._task))))

    def _is_sealed(self) -> None:
        if self._state in BEFORE_GRANT:
            time.sleep(LATER_S)
            assert self._rig.task_tokens(self._task) == []
            return
        for _ in range(_TRIES):
            time.sleep(0.6)
            self._run("status", self._task)
            if self._state is State.SEALED:
                break
        record = self._rig.record(self._task)
        assert self._state is State.SEALED, (self._state, reasons(record), [e.body for e in record.events[-3:]])
        # what comes late came by now
        self._is_honest()
