"""`jitvault mcp` before it serves: what is missing is said, and by which command it comes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
import mcp_types as types
import pytest
from commands import Cli, Quick
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client


@pytest.mark.parametrize("package", ["mcp_types", "mcp.server.lowlevel"])
def test_without_the_package_the_command_says_how_to_install_it(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.delitem(sys.modules, "jitvault.mcp.server", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    told = quick("agent", "mcp", "--agent", "research-agent", code=2)
    assert "its extra `mcp`" in told.stderr and told.stdout == ""


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, ("no login is set", "VAULT_ADDR", "JITVAULT_AGENT_LOGIN and", "few variables", "`env`")),
        ({"VAULT_ADDR": "nowhere"}, ("VAULT_ADDR: expected", "http://")),
    ],
    ids=["no login", "wrong settings"],
)
def test_what_a_server_lacks_is_said_by_its_tools_and_on_stderr(
    tmp_path: Path, variables: dict[str, str], said: tuple[str, ...]
) -> None:
    async def asked() -> types.CallToolResult:
        # as a client starts it that passes no variable on
        own = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
        server = StdioServerParameters(command=sys.executable, args=["-m", "jitvault", "mcp"], env=own)
        with (tmp_path / "stderr").open("w") as stderr:
            async with stdio_client(server, stderr) as streams, ClientSession(*streams) as session:
                await session.initialize()
                return await session.call_tool("list_access", {})

    answer = anyio.run(asked)
    (content,) = answer.content
    told = json.loads(content.text)
    assert answer.is_error and told["hint"].startswith("Tell your user: ")
    for shown in ("".join(told.values()), (tmp_path / "stderr").read_text()):
        assert all(words in shown for words in said), shown


def test_a_program_that_is_not_there_is_warned_of_at_the_start(cli: Cli) -> None:
    told = cli("agent", "mcp", "--agent", "research-agent", "--tool", "sh", "--tool", "psqll")
    assert "--tool 'psqll': there is no such program" in told.stderr and "'sh'" not in told.stderr
    assert told.stdout == ""
