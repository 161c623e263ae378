"""A spec that is not for this agent asks for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from jitvault.agent.execution.allowed_program import check_spec_agent
from jitvault.errors import Denied
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
    ("deliver", "me"), [("agent", "research-agent"), ("agent", ""), ("requester", "operator")], ids=str
)
def test_the_agent_and_whoever_gets_the_access_may_ask(deliver: str, me: str) -> None:
    check_spec_agent(spec(deliver=deliver), me)
