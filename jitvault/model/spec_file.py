"""The file that an operator writes: a task spec whose id may be left open.

A file names its task (`id`), or says how the names of its tasks begin (`generateName`). It becomes a task spec before
anything is signed: what is signed, digested and approved has the final id, and knows nothing of `generateName`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from jitvault.errors import InvalidInput
from jitvault.formats.fields import Identifier, Name, Strict, problem_line, validated
from jitvault.formats.strict_yaml import Document, Path, read_document
from jitvault.model.spec import Labels, TaskBody, TaskMetadata, TaskSpec

SUFFIX_LENGTH = 8
# as Kubernetes' generated names: no vowel, so that no word is formed, and nothing that is read as another character
SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
LONGEST_PREFIX = 63 - SUFFIX_LENGTH

Prefix = Annotated[
    str,
    Name(
        rf"^(?!.*\.\.)[a-z0-9][a-z0-9._-]{{0,{LONGEST_PREFIX - 1}}}$",
        f"1 to {LONGEST_PREFIX} of a-z 0-9 . _ - beginning with a letter or digit, without `..`: the id has "
        f"{SUFFIX_LENGTH} more",
    ),
]

_PLACEHOLDER = re.compile(r"<([a-z][a-z0-9_]{0,31})>")
_MEANINGS = {
    "agent": "the name of the Vault entity that uses the access",
    "intent": "what the agent will do and why, in one paragraph that approvers read",
}


class TaskFileMetadata(Strict):
    """What the task is called: by its id, or by how its id begins."""

    id: Identifier | None = Field(default=None, description="The task's id, unique in this installation.")
    generate_name: Prefix | None = Field(
        default=None,
        alias="generateName",
        description=f"In place of the id: how it begins. Each submission is a task of its own, with {SUFFIX_LENGTH} "
        "random lower-case letters and digits after it.",
    )
    labels: Labels = Field(default_factory=dict, description="Free names and values, at most 16, for reports.")


class TaskFile(Strict):
    """A request for access that lives as long as one task, as a file has it."""

    api_version: Literal["jitvault.dev/v1"] = Field(alias="apiVersion", description="The version of this format.")
    kind: Literal["Task"] = Field(description="What this document is.")
    metadata: TaskFileMetadata = Field(description="The task's id, or how it begins, and labels.")
    spec: TaskBody = Field(description="Who asks for which access, why and for how long.")

    def named(self, task_id: str) -> TaskSpec:
        """Return the spec of the task `task_id`, which is a valid id."""
        metadata = TaskMetadata(id=task_id, labels=self.metadata.labels)
        return TaskSpec(apiVersion=self.api_version, kind=self.kind, metadata=metadata, spec=self.spec)


def generated_id(prefix: str, suffix: str) -> str:
    """Return the id that begins with `prefix`, a file's `generateName`.

    `suffix` is SUFFIX_LENGTH characters of SUFFIX_ALPHABET, drawn at random.
    """
    return prefix + suffix


def parse_task_file(data: bytes, source: str, *, has_id: bool = False) -> TaskFile:
    """Return the file in `data` (YAML or JSON).

    It has either an id or a `generateName`, unless `has_id` says that the task's id is given elsewhere: then neither
    matters. Raises InvalidInput, which names `source`, line and field, and each placeholder that was not filled in.
    """
    document = read_document(data, source=source)
    left = list(placeholders(document.data))
    if left:
        raise InvalidInput(
            "\n".join(
                problem_line(document, path, f"<{word}> is a placeholder: {_asked_for(word)}") for path, word in left
            ),
            hint="Write a value in place of each placeholder, or give them to `jitvault spec new` as options. "
            "Nothing was written.",
        )
    file = validated(TaskFile, document)
    if not has_id:
        _check_named(document, file.metadata)
    return file


def placeholders(data: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield what `jitvault spec new` left open, each with its path and word.

    A value is a placeholder where it is its own field's name in `<` and `>`; other data is skipped.
    """
    body = data.get("spec")
    if not isinstance(body, dict):
        return
    yield from _open_fields(body, ("spec",), tuple(_MEANINGS))
    access = body.get("access")
    for n, entry in enumerate(access if isinstance(access, list) else ()):
        choices = entry.get("with") if isinstance(entry, dict) else None
        if isinstance(choices, dict):
            yield from _open_fields(choices, ("spec", "access", n, "with"), tuple(choices))


def _open_fields(fields: dict[str, Any], path: Path, names: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    for name in names:
        value = fields.get(name)
        found = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
        if found and found[1] == name:
            yield (*path, name), name


def _asked_for(word: str) -> str:
    return f"expected {_MEANINGS.get(word, 'one of the choices of the template')}"


def _check_named(document: Document, metadata: TaskFileMetadata) -> None:
    """Refuse a file that names its task twice, or not at all."""
    if metadata.id is not None and metadata.generate_name is not None:
        wrong = "expected id or generateName, found both"
        raise InvalidInput(
            problem_line(document, ("metadata", "generateName"), wrong),
            hint="Remove one of them, or name this task with --id ID. Nothing was written.",
        )
    if metadata.id is None and metadata.generate_name is None:
        raise InvalidInput(
            problem_line(document, ("metadata", "id"), "a value is required"),
            hint="Write `id: NAME`, or `generateName: PREFIX-` for an id of its own at each submission, or name the "
            "task with --id ID. Nothing was written.",
        )
