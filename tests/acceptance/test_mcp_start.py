"""`jitvault mcp` before it serves: what is missing is said, and by which command it comes."""

from __future__ import annotations

import sys

import pytest
from commands import Cli, Quick


@pytest.mark.parametrize("package", ["mcp_types", "mcp.server.lowlevel"])
def test_without_the_package_the_command_says_how_to_install_it(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.delitem(sys.modules, "jitvault.mcp.server", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    told = quick("agent", "mcp", "--agent", "research-agent", code=2)
    assert "its extra `mcp`" in told.stderr and told.stdout == ""


def test_who_the_agent_is_has_to_be_known(quick: Quick) -> None:
    told = quick("agent", "mcp", code=2)
    assert "it is not known who the agent is" in told.stderr and "JITVAULT_AGENT_LOGIN_ROLE" in told.stderr
    assert told.stdout == ""


def test_without_a_login_the_error_says_which_variables_set_one_and_where(quick: Quick) -> None:
    told = quick(None, "mcp", code=2)
    assert "no login is set" in told.stderr
    assert all(words in told.stderr for words in ("VAULT_ADDR", "JITVAULT_AGENT_LOGIN and", "few variables", "`env`"))


def test_a_program_that_is_not_there_is_warned_of_at_the_start(cli: Cli) -> None:
    told = cli("agent", "mcp", "--agent", "research-agent", "--tool", "sh", "--tool", "psqll")
    assert "--tool 'psqll': there is no such program" in told.stderr and "'sh'" not in told.stderr
    assert told.stdout == ""
