"""A task hands a part of its access on: never more than it has, and all of it ends with the task."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rig import Held, Rig

Spec = Callable[..., Path]
MORE = "  parent: {parent}\n"


@pytest.fixture
def child(spec: Spec) -> Callable[..., Path]:
    """`child(parent)` gives the file of a spec that narrows the task `parent`."""

    def write(parent: str, *, more: str = "", window: str = "5m", **changes: Any) -> Path:
        return spec(window=window, more=f"  parent: {parent}\n{more}", **changes)

    return write


def another_agent(rig: Rig) -> str:
    """The name of a new agent, which has no login: what it gets is delivered to the requester."""
    name = f"agent-{secrets.token_hex(4)}"
    rig.admin.write("identity/entity", {"name": name})
    return name


def at(file: Path, **changes: str) -> Path:
    """The spec with words replaced."""
    text = file.read_text()
    for old, new in changes.items():
        assert old.replace("_", "-") in text
        text = text.replace(old.replace("_", "-"), new)
    file.write_text(text)
    return file


def tree(rig: Rig, spec: Spec, child: Callable[..., Path]) -> tuple[list[str], list[Held]]:
    """A task, what it handed on, and what that handed on once more, each with a lease."""
    top = spec()
    held = [rig.active(top)]
    files = [top]
    for window in ("10m", "5m"):
        files.append(child(files[-1].stem, window=window))
        held.append(rig.active(files[-1]))
    for file in files:
        rig("operator", "status", file.stem)
    return [file.stem for file in files], held


def state(rig: Rig, task: str) -> tuple[str, str | None]:
    row = rig.file(task).task
    return row.state.value, row.end_reason and row.end_reason.value


def test_a_child_has_its_own_token_that_names_everybody_above_it(rig: Rig, spec: Spec, child: Any) -> None:
    names, held = tree(rig, spec, child)
    metas = [rig.task_tokens(name)[0]["meta"] for name in names]
    assert "jitvault_parent" not in metas[0]
    assert [(m["jitvault_parent"], m["jitvault_delegation"]) for m in metas[1:]] == [
        (names[0], names[0]),
        (names[1], f"{names[0]} {names[1]}"),
    ]
    assert len({one.token for one in held}) == len({one.lease_id for one in held}) == 3
    ends = [rig.file(name).grants[-1].expires_at for name in names]
    assert ends[2] < ends[1] < ends[0]
    shown = rig("operator", "status", names[1]).json
    assert (shown["parent"], shown["delegation"], shown["children"]) == (names[0], names[:1], names[2:])
    rows = {row["task_id"]: row for row in rig("auditor", "report").json["leases"]}
    assert [(rows[n]["parent"], rows[n]["delegation"]) for n in names] == [
        (None, []),
        (names[0], names[:1]),
        (names[1], names[:2]),
    ]
    assert rig.document(f"tasks/{names[2]}")["delegation"] == names[:2]


def test_the_end_of_a_parent_ends_all_below_it_from_the_leaves_up(rig: Rig, spec: Spec, child: Any) -> None:
    names, held = tree(rig, spec, child)
    done = rig("operator", "complete", names[0]).json
    assert done["confirmed"]
    assert [state(rig, name) for name in names] == [
        ("confirmed", "completed"),
        ("confirmed", "parent"),
        ("confirmed", "parent"),
    ]
    for one in held:
        assert not rig.is_live(one.token)
        assert not rig.lease_is_live(one.lease_id)
    proven = [next(e.at for e in rig.file(name).events if e.kind == "confirmed") for name in names]
    assert proven == sorted(proven, reverse=True)
    # every door before the first lease
    acts = rig.rows("SELECT kind, subject, sent_at FROM operations WHERE kind LIKE 'revoke_%' ORDER BY sent_at")
    tokens = {rig.file(name).grants[-1].accessor_hmac: name for name in names}
    first = [tokens.get(subject, "lease") for _, subject, _ in acts]
    assert set(first[:3]) == set(names), first
    rig.settle()
    for name in names:
        assert rig("operator", "status", name).json["state"] == "sealed"
    receipt = rig.file(names[2]).task.receipt
    assert receipt is not None
