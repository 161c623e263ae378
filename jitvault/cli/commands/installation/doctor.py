"""`jitvault doctor`: check what works here, and what to repair.

That is whether access can be granted, revoked and proven.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import typer
from rich.text import Text

from jitvault.cli import session
from jitvault.cli.views import output
from jitvault.doctor.check import Ability, Check, can, counts, first_failure
from jitvault.doctor.run import all_checks
from jitvault.errors import UsageError
from jitvault.formats.rfc3339 import rfc3339

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red"), "skipped": ("-", "dim")}
_CAN = {True: ("yes", "green"), False: ("no", "red"), None: ("not known", "yellow")}


def doctor() -> None:
    """Check whether access can be granted, revoked and proven here.

    The command changes nothing and uses whatever identities there are. It exits with 0 when all three can be done, with
    the code of the first check that failed, and with 2 when nothing failed, and one of the three is not known because
    the identities that are set here cannot look at all of it.

    Example: jitvault doctor
    """
    wiring = session.open_session()
    at = wiring.clock.now()
    checks = list(all_checks(wiring))
    able = can(checks)
    shown = {
        "at": rfc3339(at),
        "vault": wiring.settings.vault_addr,
        "can": {ability.value: answer for ability, answer in able.items()},
        "counts": counts(checks),
        "checks": [check.as_json() for check in checks],
    }
    if not output.print_for_program(shown):
        _print(checks, able)
    failed = first_failure(checks)
    if failed is not None:
        raise failed.about.error(f"{failed.about.area}, {failed.about.name}: {failed.seen}", hint=failed.mend)
    if None in able.values():
        # no error: what was skipped is part of the result, and says what it needs
        raise typer.Exit(UsageError.exit_code)


def _print(checks: Sequence[Check], able: Mapping[Ability, bool | None]) -> None:
    """Print each check by area, with what to do about it; the summary last.

    Checks of an area with the same result are printed once, with all their names.
    """
    console = output.console()
    for area, group in groupby(checks, key=lambda check: check.about.area):
        console.print(area, style="bold")
        for (status, seen, mend), names in _folded(group).items():
            line = output.indented(f"{', '.join(names)}: {seen}", console.width - 4).strip()
            console.print(Text.assemble("  ", _MARKS[status], " ", line), soft_wrap=True)
            if mend:
                line = output.indented(f"→ {mend}", console.width - 4, keep_commands=True)
                console.print(f"  {line}", style="dim", soft_wrap=True)
    summary = ", ".join(f"{count} {status}" for status, count in counts(checks).items() if count)
    console.print(f"{len(checks)} checks: {summary}")
    answers = Text(", ").join(Text.assemble(f"{ability}: ", _CAN[answer]) for ability, answer in able.items())
    console.print("Can it", answers)
    if None in able.values() and first_failure(checks) is None:
        console.print("Nothing failed. What is not known could not be looked at from here.")
        console.print("Each check with a - says what it needs.")


def _folded(checks: Iterable[Check]) -> dict[tuple[str, str, str], list[str]]:
    """Return the names of the checks by their status, finding and remedy.

    They are in the order of the first check of each.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for check in checks:
        found.setdefault((check.status.value, check.seen, check.mend), []).append(check.about.name)
    return found
