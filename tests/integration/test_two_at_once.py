"""Several processes at once: one token a task, one proof, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import Cli, Result
from rig import Rig

from jitvault.domain.chain import breaks

Spec = Callable[..., Path]


def at_once(cli: Cli, *commands: tuple[str, ...], processes: int) -> list[Result]:
    """Each command as an operator, in a process of its own."""
    with ThreadPoolExecutor(max_workers=processes) as pool:
        jobs = [pool.submit(cli, "operator", *command, "--json", code=None) for command in commands]
        return [job.result() for job in jobs]


def whole(rig: Rig, task: str) -> bool:
    file = rig.file(task)
    return breaks(file.events, head=file.task.head) == [] and not file.findings


@pytest.mark.parametrize("known", [True, False])
def test_two_that_grant_the_same_task_make_one_token(rig: Rig, spec: Spec, known: bool) -> None:
    file = spec()
    rig("operator", "submit", file if known else spec())
    results = at_once(rig.cli, *[("grant", str(file))] * 2, processes=2)
    assert [result.code for result in results] == [0, 0], [result.stderr for result in results]
    answers = [result.json for result in results]
    assert len({answer["grant_id"] for answer in answers}) == 1
    printed = {w["token"] for answer in answers for w in answer["wrapping"]}
    assert len(printed) == 1
    assert len(rig.task_tokens(file.stem)) == 1
    assert whole(rig, file.stem)


def test_two_that_complete_the_same_task_say_the_same(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    first, second = at_once(rig.cli, *[("complete", file.stem)] * 2, processes=2)
    assert (first.code, second.code) == (0, 0), (first, second)
    assert first.json == second.json
    assert first.json["confirmed"]
    assert not rig.is_live(held.token)
    assert whole(rig, file.stem)


def test_four_processes_grant_ten_tasks_on_one_ledger(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", spec())
    files = [spec() for _ in range(10)]
    results = at_once(rig.cli, *[("grant", str(file)) for file in files], processes=4)
    assert [result.code for result in results] == [0] * 10, [r.stderr for r in results if r.code]
    assert len({result.json["wrapping"][0]["token"] for result in results}) == 10
    for file in files:
        (token,) = rig.task_tokens(file.stem)
        assert token["meta"]["jitvault_grant"] == rig.file(file.stem).grants[-1].grant_id
        assert whole(rig, file.stem)


def test_two_processes_that_find_no_ledger_both_do_their_work(
    cli: Cli, spec: Callable[..., Path], tmp_path: Path
) -> None:
    new = {"JITVAULT_LEDGER": f"sqlite:///{tmp_path / 'new' / 'ledger.db'}"}
    files = [spec(), spec()]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda file: cli("operator", "grant", file, "--json", extra=new), files))
    assert [result.json["state"] for result in done] == ["issued", "issued"]
