"""An administrator renames entities: an agent that was frozen, or somebody with a part in a task that is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rig import Rig

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
AGENT, RENAMED = "research-agent", "analysis-agent"
WHY = ("--reason", "it reads what it should not")


@contextmanager
def renamed(rig: Rig, name: str, to: str) -> Iterator[None]:
    """An entity under another name, with its id, aliases and groups."""
    path = f"identity/entity/id/{rig.entity(name)}"
    rig.admin.write(path, {"name": to})
    try:
        yield
    finally:
        rig.admin.write(path, {"name": name})


def with_agent(spec: Spec, name: str) -> Path:
    file = spec()
    text = file.read_text()
    assert text.count(AGENT) == 1
    file.write_text(text.replace(AGENT, name))
    return file


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    yield rig
    # freezes are Vault's, and each test has a ledger of its own
    rig("operator", "unfreeze", "--all", "--unseen", "--reason", "the test is over")


def test_a_freeze_follows_its_agent_to_another_name(rig: Rig, spec: Spec) -> None:
    rig("operator", "freeze", "--agent", AGENT, *WHY)
    with renamed(rig, AGENT, RENAMED):
        rig("operator", "grant", file := with_agent(spec, RENAMED), code=3)
        # who has the old name now has nothing to do with it, and the freeze is not about them
        with renamed(rig, "auditor", AGENT):
            # all documents are listed and read again
            Path(rig.world.audit_file).write_bytes(b"")
            rig("operator", "grant", file, code=3)
        rig("operator", "unfreeze", "--agent", AGENT, "--reason", "it was right")
        rig("operator", "grant", file)
        rig("operator", "complete", file.stem, code=None)


@pytest.mark.parametrize("how", ["freeze", "revoke"])
def test_freeze_and_revoke_by_a_new_name_end_what_was_granted_under_the_old(rig: Rig, spec: Spec, how: str) -> None:
    held = rig.active(file := spec())
    with renamed(rig, AGENT, RENAMED):
        sure = ("--yes",) if how == "revoke" else ()
        rig("operator", how, "--agent", RENAMED, *WHY, *sure)
        assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)
    ended = rig.record(file.stem)
    assert ended.task.end_reason == {"freeze": "frozen", "revoke": "operator"}[how]
    (ending,) = (event.body for event in ended.events if event.kind == "ending")
    # what names another agent than the receipt is nothing that a reader of the receipt could check
    assert ending.get("signed") is None and ending["by"] == rig.entity("operator")


@pytest.mark.parametrize("who", [AGENT, "operator", "data-owner"])
def test_a_task_that_is_held_ends_in_proof_when_somebody_with_a_part_in_it_is_renamed(
    rig: Rig, spec: Spec, who: str
) -> None:
    """What was approved names them. The end is drift, and nobody is blamed."""
    held = rig.active(file := spec())
    with renamed(rig, who, "somebody-new"):
        status = rig("operator", "status", file.stem, code=None).json
        assert (status["state"], status["end_reason"]) == ("confirmed", "drift")
        assert not rig.is_live(held.token)
    assert rig.findings(file.stem) == []
