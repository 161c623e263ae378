"""`jitvault tidy`: an administrator removes old documents from Vault.

They are those of old requests and of finished tasks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from jitvault.cli import session
from jitvault.cli.options import Yes, duration
from jitvault.cli.views.remains import print_remains
from jitvault.documents.paths import REQUEST_LIFE
from jitvault.errors import UsageError
from jitvault.formats.plural import counted
from jitvault.provision import tidy as provision


def tidy(
    older_than: Annotated[float, duration("--older-than", "Keep what is younger; at least 7d.", shown="30d")] = 30
    * 86_400.0,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be removed and remove nothing.")] = False,
    yes: Yes = False,
) -> None:
    """Remove documents of old requests and finished tasks from Vault.

    These are requests that began no task, what is published of tasks that were never granted, and the requests of tasks
    of which nothing is published any more. The removal grants nothing and ends no open task: a request of that age can
    begin nothing. The ledger keeps its records.

    Example: jitvault tidy --older-than 90d --plan
    """
    age = timedelta(seconds=older_than)
    if age < REQUEST_LIFE:
        raise UsageError(
            f"--older-than: expected at least {REQUEST_LIFE.days}d: a younger request can still begin a task"
        )
    wiring = session.open_session()
    vault = session.administrator(wiring, "tidy")
    found = provision.survey(vault, older_than=age)
    removed = 0
    if found and not plan:
        if not yes:
            print_remains(found, removed=None)
            session.ask(f"Remove what is left of {counted(len(found), 'task')} from Vault?", done="nothing was removed")
        removed = provision.remove(vault, found)
    print_remains(found, removed=removed)
