"""What a kill switch prints of the tasks that it could not end."""

from __future__ import annotations

import pytest

from jitvault.cli.views.kill_switch import print_kill_results
from jitvault.errors import NotConfirmed, NoWorkerActed
from jitvault.kill_switch.kill import Result
from jitvault.model.states import State


def test_what_keeps_many_tasks_from_their_end_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    late = NoWorkerActed("no worker has done this within 30 s")
    results = [
        *(Result(task, None, late) for task in ("t-1", "t-2")),
        Result("t-3", State.ENDING, NotConfirmed("its login owns a table")),
        Result("t-4", State.ENDING),
        Result("t-5", State.CONFIRMED, target_asked=True),
    ]
    print_kill_results(results)
    assert capsys.readouterr().out.splitlines() == [
        "  t-1, t-2: no worker has done this within 30 s",
        "  t-3: its login owns a table",
        "  t-4: is ending",
        "1 of 5 tasks are ended and proven",
    ]
