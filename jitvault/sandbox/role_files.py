"""Files of environment variables for a shell that uses the sandbox.

There is one for each role, or one with everybody's tokens.

A shell that sources a role's file is that role and no other: the file unsets whatever the file of another role sets,
and whatever the shell has for other servers.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jitvault import settings
from jitvault.errors import UsageError
from jitvault.sandbox.accounts import write_private
from jitvault.sandbox.placement import find_programs

MCP_FILE = ".mcp.json"
"""The file that many MCP clients read in the directory where they are started."""
_RECORDS = ("JITVAULT_LEDGER", "JITVAULT_AUDIT_FILE", "JITVAULT_SETTLE_WINDOW")
# what every role may know: where Vault is, the files that are not the shipped ones, and where agents connect
_EVERYBODYS = ("VAULT_ADDR", "JITVAULT_TEMPLATES", "JITVAULT_POLICIES", "JITVAULT_SANDBOX_TARGET")


@dataclass(frozen=True, slots=True)
class Role:
    """A role of the sandbox.

    `token` is the variable that has its token among everybody's. The role's file sets VAULT_TOKEN to that token, so
    that none is used that `bao login` left. `more` are the other variables that its commands need.
    """

    name: str
    token: str
    more: tuple[str, ...] = ()


ROLES = (
    Role("operator", "JITVAULT_OPERATOR_TOKEN", more=("JITVAULT_EXAMPLE_SPEC",)),
    Role("agent", "JITVAULT_AGENT_TOKEN"),
    Role("approver-1", "JITVAULT_APPROVER_1_TOKEN"),
    Role("approver-2", "JITVAULT_APPROVER_2_TOKEN"),
    Role("auditor", "JITVAULT_AUDITOR_TOKEN", more=_RECORDS),
    Role(
        "worker",
        "JITVAULT_WORKER_TOKEN",
        more=(*_RECORDS, "JITVAULT_SHARED_HOSTS", "JITVAULT_WORKER_TOKEN"),
    ),
    Role("admin", "JITVAULT_ADMIN_TOKEN", more=(*_RECORDS, "JITVAULT_TASKS_PER_SECOND", "JITVAULT_TARGET_DSN")),
)


def write_role_files(directory: Path, variables: Mapping[str, str], server: Path | None = None) -> None:
    """Write one file for each role into a new directory.

    One more is for an MCP client, whose model is the agent.

    The directory is complete from the moment it exists. Only its owner can enter it (0700) and read the files (0600).
    `variables` are everybody's, and `server` is the server's program. Raises UsageError.
    """
    # psql, jitvault and the server's program: behind any other psql
    programs = [find_programs() / "bin", Path(sys.executable).parent, *([server.parent] if server else [])]
    part = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        part.mkdir(mode=0o700)
        for role in ROLES:
            script = _script(_of_role(role, variables), variables)
            write_private(part / file_name(role), script + "".join(map(_with_programs, programs)))
        write_private(part / MCP_FILE, _mcp_configuration(variables))
        part.rename(directory)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise UsageError(f"{directory} cannot be written: {error.strerror}") from None


def remove_role_files(directory: Path) -> None:
    """Remove the files, and the directory where nothing else is in it."""
    for name in (*map(file_name, ROLES), MCP_FILE):
        with suppress(OSError):
            (directory / name).unlink()
    with suppress(OSError):
        directory.rmdir()


def write_env_file(path: Path, variables: Mapping[str, str]) -> None:
    """Write a file with everybody's tokens.

    The file is complete from the moment it exists. Only its owner can read it. Raises UsageError.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    warning = "# everybody's tokens, for scripts: who sources it can act as anybody\n"
    try:
        write_private(part, warning + _script(variables, ()))
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def file_name(role: Role) -> str:
    """Return the name of a role's file."""
    return f"{role.name}.env"


def _mcp_configuration(variables: Mapping[str, str]) -> str:
    """Return the configuration of an MCP client whose model is the agent.

    A client passes few of its own variables on, so the server gets all that it needs.
    """
    agent = next(role for role in ROLES if role.name == "agent")
    path = f"{find_programs() / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    server = {
        "command": sys.executable,
        "args": ["-P", "-m", "jitvault", "mcp", "--tool", "psql"],
        "env": {**_of_role(agent, variables), "PATH": path},
    }
    return json.dumps({"mcpServers": {"jitvault": server}}, indent=2) + "\n"


def _of_role(role: Role, variables: Mapping[str, str]) -> dict[str, str]:
    found = {name: variables[name] for name in (*_EVERYBODYS, *role.more) if name in variables}
    return {**found, "VAULT_TOKEN": variables[role.token]}


def _script(exported: Mapping[str, str], others: Collection[str]) -> str:
    """Return lines for a shell that set `exported` and nothing else.

    They unset all settings and all `others` that are not in `exported`.
    """
    return "".join(f"{line}\n" for line in _lines(exported, others))


def _lines(exported: Mapping[str, str], others: Collection[str]) -> Iterator[str]:
    # what is set for other servers, or by another role's file, must not be mixed with this
    unset = sorted({*settings.variables(), *others} - exported.keys())
    yield f"unset {' '.join(unset)}"
    for name, value in sorted(exported.items()):
        yield f"export {name}={shlex.quote(value)}"


def _with_programs(directory: Path) -> str:
    """Return a line that adds a directory of programs to PATH.

    It comes behind all others. A new shell has neither `jitvault` nor `bao`. Sourced again, the line adds nothing.
    """
    programs = shlex.quote(str(directory))
    return f'jv={programs}; case ":$PATH:" in *":$jv:"*) ;; *) export PATH="$PATH:$jv" ;; esac; unset jv\n'
