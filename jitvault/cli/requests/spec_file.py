"""Read a task spec from a file or from standard input, and check it."""

from __future__ import annotations

import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from jitvault.cli.quiet import note
from jitvault.errors import InvalidInput
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.strict_yaml import MAX_BYTES, Document, place, read_document
from jitvault.model.spec import AccessEntry, TaskSpec
from jitvault.model.spec_file import SUFFIX_ALPHABET, SUFFIX_LENGTH, generated_id, parse_task_file
from jitvault.model.vault_access import CAPS
from jitvault.wiring import Wiring

STANDARD_INPUT = "-"
_INPUT_NAME = "standard input"
_CORRECT_INPUT = "Correct what is written to standard input, and run the command again. Nothing was written."


@dataclass(frozen=True, slots=True)
class ReadSpec:
    """A spec that was read.

    `source` is where from, for messages. `prefix` is the `generateName` from which the spec's id was made, None for an
    id that somebody wrote.
    """

    spec: TaskSpec
    source: str
    prefix: str | None

    @property
    def name(self) -> str:
        """The task's id, or the pattern that the ids of its tasks have."""
        return self.spec.id if self.prefix is None else f"{self.prefix}*"

    def canonical(self) -> dict[str, Any]:
        """Return plain JSON data, with `generateName` where no id is given."""
        found = self.spec.canonical()
        if self.prefix is not None:
            found["metadata"] = {"generateName": self.prefix, "labels": found["metadata"]["labels"]}
        return found


def read_spec(wiring: Wiring, name: str, task_id: str | None) -> ReadSpec:
    """Return the spec in the file `name`, or in standard input for `-`.

    `task_id` is the task's id, in place of the one in the file. The spec is checked against its schema, the templates
    and the clock. Raises InvalidInput.
    """
    data, source = _contents(name)
    try:
        file = parse_task_file(data, source, has_id=task_id is not None)
        prefix = file.metadata.generate_name if task_id is None else None
        given = task_id or file.metadata.id
        if given is None:
            suffix = "".join(secrets.choice(SUFFIX_ALPHABET) for _ in range(SUFFIX_LENGTH))
            given = generated_id(str(prefix), suffix)
        read = file.named(given)
        _check(wiring, read, data, source)
    except InvalidInput as error:
        if name == STANDARD_INPUT and not error.has_own_hint:
            raise InvalidInput(str(error), hint=_CORRECT_INPUT) from None
        raise
    return ReadSpec(read, source, prefix)


def missing_file(path: Path) -> InvalidInput:
    """Return the error for a file that does not exist.

    It says which file beside it was most likely meant.
    """
    beside: list[str] = []
    with suppress(OSError):
        beside = [each.name for each in path.parent.iterdir() if each.suffix in (".yaml", ".yml", ".json")]
    meant = nearest(path.name, sorted(filter(str.isprintable, beside)), likeness=0.8)
    return InvalidInput(
        f"there is no file {place(str(path))}{meant}",
        hint="Name a file that exists. Nothing was written.",
    )


def _contents(name: str) -> tuple[bytes, str]:
    """Return what the file or standard input has, and its name for messages.

    At most one byte more than is allowed is read. Raises InvalidInput.
    """
    if name == STANDARD_INPUT:
        return _standard_input(MAX_BYTES + 1), _INPUT_NAME
    path = Path(name)
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1), name
    except FileNotFoundError:
        raise missing_file(path) from None
    except (OSError, ValueError) as error:
        # a name with a zero byte is a ValueError
        why = error.strerror if isinstance(error, OSError) else "no file has such a name"
        hint = "Name a file that you can read. Nothing was written."
        raise InvalidInput(f"{place(name)} cannot be read: {why}", hint=hint) from None


def _standard_input(most: int) -> bytes:
    """Return what is piped in, or typed at a terminal.

    Raises InvalidInput where there is nothing.
    """
    hint = "Write a task spec to standard input, or name a file. Nothing was written."
    if sys.stdin is None:
        raise InvalidInput(f"{_INPUT_NAME} is closed", hint=hint)
    if sys.stdin.isatty():
        note("Reading a task spec from this terminal: type or paste it, and end it with Ctrl-D in a line of its own.")
    try:
        data = sys.stdin.buffer.read(most)
    except OSError as error:
        raise InvalidInput(f"{_INPUT_NAME} cannot be read: {error.strerror}", hint=hint) from None
    if not data.strip():
        raise InvalidInput(f"{_INPUT_NAME} is empty", hint=hint)
    return data


def _check(wiring: Wiring, read: TaskSpec, data: bytes, source: str) -> None:
    """Check a spec against the templates and the clock.

    Raises InvalidInput, which names the line.
    """
    document = read_document(data, source=source)
    longest = max(CAPS.values())
    for entry in read.spec.access:
        n = _entry_number(document, entry)
        where = place(source, document.line_of(("spec", "access", n)))
        template = wiring.templates.get(entry.template)
        if template is None:
            known = ", ".join(sorted(wiring.templates)) or "none"
            raise InvalidInput(
                f"{where}: spec.access[{n}].template: unknown template {entry.template}"
                f"{nearest(entry.template, wiring.templates)}; the templates are: {known}",
                hint=f"These are the templates in {place(str(wiring.settings.templates))}. JITVAULT_TEMPLATES names "
                "another directory; the worker needs the template as well. Nothing was written.",
            )
        try:
            template.resolve(entry.with_)
        except InvalidInput as error:
            raise InvalidInput(f"{where}: spec.access[{n}].with: {error}") from None
        longest = min(longest, template.spec.max_window)
    problems = read.window.problems(wiring.clock.agreed(), longest)
    least = timedelta(seconds=10)
    if not problems and read.window.for_ is not None and read.window.for_ < least:
        problems = ["window.for: expected at least 10s, so that the agent can unwrap and work"]
    if problems:
        field = problems[0].partition(":")[0]
        where = place(source, document.line_of(("spec", *field.split("."))))
        raise InvalidInput(f"{where}: spec.{problems[0]}")


def _entry_number(document: Document, entry: AccessEntry) -> int:
    """Return which entry of the file's list it is.

    A valid spec has them sorted.
    """
    written = document.data["spec"]["access"]
    return next(
        n
        for n, each in enumerate(written)
        if (each["template"], each.get("with") or {}) == (entry.template, dict(entry.with_))
    )
