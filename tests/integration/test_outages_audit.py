"""The audit device fails: before an act, which is then not done, and after it, which is then done and looks undone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from invariants import at_target, check, check_over, live_tokens, reasons, verdicts
from picky import Kind, PickilyAudited, Picky
from rig import Rig
from stage import ALL, Stage, hasty, staged, until_done

pytestmark = [pytest.mark.usefixtures("hurried"), pytest.mark.needs("http-device")]
Spec = Callable[..., Path]
Case = tuple[Kind, str]

CREATE = "auth/token/create/"
LOOK_AT_TOKEN = "auth/token/lookup-accessor"
DELIVER = "jitvault-inbox/data/"
PUBLISH = "jitvault/data/tasks/"
REVOKE_TOKEN = "auth/token/revoke-accessor"
REVOKE_LEASE = "sys/leases/revoke/"
LOOK_AT_LEASE = "sys/leases/lookup"
CANARY = "sys/audit-hash/"
SIGN_RECEIPT = "jitvault-transit/sign/jitvault-receipts"
ALWAYS = 10_000


@pytest.fixture(scope="module", params=["alone", "with a file beside it"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Picky]]:
    picky = Picky(tmp_path_factory.mktemp("picky") / "audit.log")
    beside = request.param != "alone"
    with staged(lambda directory: PickilyAudited(directory, picky.url, with_file=beside)) as stage:
        yield stage, picky
    picky.close()


@pytest.fixture
def rig(place: tuple[Stage, Picky], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch)
    stage, picky = place
    rig = stage.rig(tmp_path)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_AUDIT_FILE": str(picky.file)}
    yield rig
    picky.take_all()


def at_device(rig: Rig, picky: Picky, case: Case, *arguments: str | Path) -> None:
    """The command, at which the device fails once; the command again until it is done; the invariants all the time."""
    picky.refuse(*case)
    first = rig("operator", *arguments, code=None)
    assert len(picky.refused) == 1, picky.refused
    picky.take_all()
    assert first.code in (0, 5, 6), first
    check(rig, first)
    until_done(rig, *arguments, watch=lambda result: check(rig, result))


# -- the only device ---------------------------------------------------------------------------------------------------

GRANT: list[Case] = [("request", CREATE), ("response", CREATE), ("response", DELIVER)]
MORE_OF_GRANT: list[Case] = [
    ("request", LOOK_AT_TOKEN),
    ("response", LOOK_AT_TOKEN),
    ("request", DELIVER),
    ("request", CANARY),
    ("response", CANARY),
    ("request", PUBLISH),
    ("response", PUBLISH),
]
COMPLETE: list[Case] = [("response", REVOKE_TOKEN), ("request", REVOKE_LEASE), ("response", REVOKE_LEASE)]
MORE_OF_COMPLETE: list[Case] = [
    ("request", REVOKE_TOKEN),
    ("request", LOOK_AT_TOKEN),
    ("response", LOOK_AT_TOKEN),
    ("request", LOOK_AT_LEASE),
    ("response", LOOK_AT_LEASE),
    ("request", CANARY),
    ("response", CANARY),
    ("response", PUBLISH),
]
alone = pytest.mark.parametrize("place", ["alone"], indirect=True)
beside = pytest.mark.parametrize("place", ["with a file beside it"], indirect=True)


@alone
@pytest.mark.parametrize("case", [*GRANT, *(MORE_OF_GRANT if ALL else ())], ids=" ".join)
def test_the_only_device_fails_during_a_grant(place: tuple[Stage, Picky], rig: Rig, spec: Spec, case: Case) -> None:
    file = spec()
    at_device(rig, place[1], case, "grant", file)
    (token,) = live_tokens(rig)
    assert token["meta"]["jitvault_grant"] == rig.record(file.stem).grants[-1].grant_id
    if case == ("response", CREATE):
        # the one that no line shows is accounted for as well
        until_done(rig, "complete", file.stem)
        check_over(rig, file.stem)


@alone
@pytest.mark.parametrize("case", [*COMPLETE, *(MORE_OF_COMPLETE if ALL else ())], ids=" ".join)
def test_the_only_device_fails_during_a_complete(place: tuple[Stage, Picky], rig: Rig, spec: Spec, case: Case) -> None:
    file = spec()
    rig.active(file)
    at_device(rig, place[1], case, "complete", file.stem)
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed"]
    check_over(rig, file.stem)


@alone
def test_while_the_only_device_takes_nothing_nothing_happens_and_everything_is_said(
    place: tuple[Stage, Picky], rig: Rig, spec: Spec
) -> None:
    file, new = spec(), spec()
    held = rig.active(file)
    picky = place[1]
    picky.refuse("request", "", times=ALWAYS)
    results = [rig("operator", *command, code=5) for command in (("complete", file.stem), ("grant", new))]
    assert all("500" in result.error["message"] for result in results)
    picky.take_all()
    assert rig.is_live(held.token)
    check(rig, *results)
    until_done(rig, "complete", file.stem)
    check_over(rig, file.stem)


@alone
def test_the_only_device_takes_no_answers_for_a_while(place: tuple[Stage, Picky], rig: Rig, spec: Spec) -> None:
    """Everything that is asked is done, and all of it looks undone."""
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    picky = place[1]
    picky.refuse("response", REVOKE_TOKEN, REVOKE_LEASE, times=ALWAYS)
    first = rig("operator", "complete", file.stem, code=None)
    assert first.code in (5, 6), first
    assert not rig.is_live(held.token)
    assert not at_target(rig, rig.record(file.stem))
    check(rig, first)
    picky.take_all()
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


# -- several devices ---------------------------------------------------------------------------------------------------


@beside
@pytest.mark.parametrize("where", [REVOKE_TOKEN, LOOK_AT_LEASE, *((REVOKE_LEASE,) if ALL else ())])
def test_what_another_device_alone_has_is_done_and_proves_nothing(
    place: tuple[Stage, Picky], rig: Rig, spec: Spec, where: str
) -> None:
    """With a second device nothing fails; the lines that ours does not have are missed until a person has looked."""
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    picky = place[1]
    picky.refuse("response", where, times=ALWAYS)
    first = rig("operator", "complete", file.stem, code=None)
    assert picky.refused
    assert first.code in (6, 7), first
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    check(rig, first)
    picky.take_all()
    time.sleep(1.1)
    second = rig("operator", "complete", file.stem, code=7)
    assert "own acts" in second.error["message"]
    assert "audit accept" in second.error["hint"]
    check(rig, second)
    rig("auditor", "audit", "accept", "--reason", "the device failed and works again")
    last = rig("operator", "complete", file.stem, code=None)
    check(rig, last)
    assert last.code in (0, 6)
    assert reasons(rig.record(file.stem)) or last.code == 0
