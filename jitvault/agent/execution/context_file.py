"""The file that tells a model what the program that runs it may do. Pure.

`JITVAULT_CONTEXT_FILE` names it in the program's environment. It is Markdown, to be put into a prompt as it is. It has
no secret: it names the variables that have them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from jitvault.formats.shorten import one_line
from jitvault.model.revision import Revision

VARIABLE = "JITVAULT_CONTEXT_FILE"
_RULES = """\
Rules:

- The variables above hold secrets, or paths of files with secrets. Give them to the programs that need them. Never
  print, save or send their values.
- This access is for the purpose above alone, and everything that is done with it is recorded.
- When a login is refused or a connection is closed, the access is over. Do not try again: stop, and say so.
- Do not log in to Vault, and renew or revoke nothing there. More time or other access is asked for by whoever started
  this program.
"""


def context_text(revision: Revision, ends_at: datetime | None, variables: Collection[str]) -> str:
    """Return the text about a task with this revision.

    `ends_at` is its deadline, where that is known, and `variables` are the names of what the program was given.
    """
    spec = revision.spec
    until = f" until {ends_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if ends_at else ""
    return "\n".join(
        [
            "# Your access",
            "",
            f"Task {spec.id} gives this program access{until}. It ends earlier when the program ends.",
            "",
            f"Purpose: {one_line(spec.spec.intent)}",
            "",
            *_accesses(revision),
            "",
            f"Variables: {', '.join(sorted(variables)) or 'none'}",
            f"Programs that may be run: {', '.join(spec.spec.tools) or 'any'}",
            "",
            _RULES,
        ]
    )


def _accesses(revision: Revision) -> Iterator[str]:
    for entry, use in zip(revision.access, revision.uses, strict=True):
        choices = "".join(f", {name} {value}" for name, value in sorted(entry.with_.items()))
        facts = use.connection
        where = ""
        if facts is not None:
            where = f" At {facts.host}:{facts.port}" + (f", database {facts.database}." if facts.database else ".")
        yield f"- {entry.template}{choices}: {one_line(entry.description)}{where}"
