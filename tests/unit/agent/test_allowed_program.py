"""A spec that is not for this agent asks for nothing, and Python is one program by all of its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jitvault.agent.execution.allowed_program import check_program, check_spec_agent, find_tool, names_of
from jitvault.errors import Denied, InvalidInput
from jitvault.formats.fields import API_VERSION
from jitvault.model.spec import TaskSpec


def spec(**body: Any) -> TaskSpec:
    return TaskSpec.from_data(
        {
            "apiVersion": API_VERSION,
            "kind": "Task",
            "metadata": {"id": "read-orders"},
            "spec": {
                "agent": "research-agent",
                "owner": "data-owner",
                "intent": "Count the orders.",
                "criticality": "low",
                "access": [{"template": "postgres-readonly", "with": {"database": "app"}}],
                "window": {"for": "15m"},
                **body,
            },
        },
        "read-orders",
    )


def test_whoever_is_not_the_agent_of_a_spec_is_told_whose_inbox_the_access_goes_to() -> None:
    with pytest.raises(Denied, match="goes to the inbox of its agent research-agent, and you are operator") as refused:
        check_spec_agent(spec(deliver="agent"), "operator")
    assert "Nothing was asked for" in refused.value.hint and "deliver: requester" in refused.value.hint


@pytest.mark.parametrize(
    ("deliver", "me"),
    [("agent", "research-agent"), ("agent", "Research-Agent"), ("agent", ""), ("requester", "operator")],
    ids=str,
)
def test_the_agent_and_whoever_gets_the_access_may_ask(deliver: str, me: str) -> None:
    check_spec_agent(spec(deliver=deliver), me)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of programs: one Python by two names, and one file that is two other programs."""
    for name, links in (("python3.11", ["python3"]), ("busybox", ["ls", "sh"])):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
        for link in links:
            (tmp_path / link).symlink_to(name)
    return tmp_path


@pytest.mark.parametrize("signed", ["python", "python3", "python3.11"])
def test_python_is_one_program_whether_a_host_calls_it_python_or_python3(programs: Path, signed: str) -> None:
    found = find_tool("python", str(programs))
    assert found == str(programs / "python3")
    check_program("t", [signed], names_of(found))


def test_a_file_of_many_programs_is_permitted_by_each_name_alone(programs: Path) -> None:
    check_program("t", ["ls"], names_of(str(programs / "ls")))
    with pytest.raises(InvalidInput, match="task t is for ls, and not for sh"):
        check_program("t", ["ls"], names_of(str(programs / "sh")))
    assert find_tool("python9", str(programs)) is None
