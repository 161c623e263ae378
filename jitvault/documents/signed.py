"""The documents that people sign, in the form that the worker accepts.

A signature says who wrote a document, not that it makes sense: whoever may sign can sign anything. A payload that
is not exactly one of these models counts as absent, so that nobody can stop a task from being ended by signing
garbage.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from jitvault.errors import InvalidInput, SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.formats.fields import Identifier, Prose, Strict
from jitvault.formats.shorten import one_line
from jitvault.formats.time_window import MAX_DURATION

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
# Notes are printed on other people's terminals.
Note = Annotated[str, Prose(500)] | Literal[""]
Called = Annotated[str, Prose(255)] | Literal[""]
_NOTE: TypeAdapter[str] = TypeAdapter(Note)
_CALLED: TypeAdapter[str] = TypeAdapter(Called)


class SignedDocument(Strict):
    """The fields of every signed document: kind, task, author, nonce, time."""

    kind: str
    task: Identifier
    entity: str = Field(max_length=64)
    nonce: str = Field(max_length=64)
    at: AwareDatetime


class SubmitDocument(SignedDocument):
    """Request a task by its spec. `revise` replaces an earlier request."""

    kind: Literal["submit"]
    spec: dict[str, Any]
    revise: bool


class GrantDocument(SignedDocument):
    """Issue exactly this spec now."""

    kind: Literal["grant"]
    spec_digest: Digest


class EndDocument(SignedDocument):
    """End the task.

    `cancelled` withdraws it before it is granted; `forced` closes it even if its end cannot be proven.
    """

    kind: Literal["end"]
    reason: Literal["completed", "operator", "cancelled", "forced"]
    note: Note


class ExtendDocument(SignedDocument):
    """Move the deadline `ends_at` of the granted revision `digest`.

    It is moved by `seconds`, and no other deadline is moved.
    """

    kind: Literal["extend"]
    digest: Digest
    ends_at: AwareDatetime
    seconds: int = Field(ge=1, le=MAX_DURATION // timedelta(seconds=1))
    reason: Annotated[str, Prose(500)]


class DecisionDocument(SignedDocument):
    """Approve or deny one digest, in the name of `groups`.

    The digest is that of a revision or of an extension. It covers revision and requester already; they are repeated
    here so that the signature names them.
    """

    kind: Literal["decision"]
    digest: Digest
    revision: int = Field(ge=1)
    requester: str = Field(max_length=64)
    decision: Literal["approve", "deny"]
    groups: tuple[Annotated[str, Field(max_length=64)], ...] = Field(min_length=1, max_length=32)
    reason: Note
    expires_at: AwareDatetime


class WithdrawDocument(SignedDocument):
    """Withdraw an earlier approval, whichever of this task's it was."""

    kind: Literal["withdraw"]
    digest: Digest
    revision: int = Field(ge=1)
    requester: str = Field(max_length=64)
    reason: Note


class FreezeDocument(SignedDocument):
    """Freeze a scope, or lift its freeze.

    While a scope is frozen, nothing more is granted in it, and what is held is ended. `task` is the scope's key.
    """

    kind: Literal["freeze"]
    agent: Called
    template: Called
    owner: Called
    freezes: bool
    reason: Note


P = TypeVar("P", bound=SignedDocument)


def parse_signed(model: type[P], payload: Mapping[str, Any], *, task: str, entity: str) -> P:
    """Return `payload` as a document by `entity` about `task`.

    Raises SecurityFinding for anything else.
    """
    try:
        document = model.model_validate_json(canonical_bytes(payload))
    except (ValidationError, ValueError, RecursionError) as error:
        raise SecurityFinding(f"it is not a proper {model.__name__}: {_first(error)}") from None
    if document.task != task or document.entity != entity:
        raise SecurityFinding(f"it is about task {one_line(document.task)} and by {one_line(document.entity)}")
    return document


def check_name(name: str) -> str:
    """Return `name` if it can be a name.

    A freeze of any other text counts for nothing.

    Raises InvalidInput.
    """
    try:
        return _CALLED.validate_python(name)
    except ValidationError as error:
        reason = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise InvalidInput(
            f"{name!r:.80} is no name: {reason}", hint="Take it from `jitvault list` or the spec."
        ) from None


def check_note(note: str) -> str:
    """Return `note` if it may be signed as a reason. Raises InvalidInput."""
    try:
        return _NOTE.validate_python(note)
    except ValidationError as error:
        reason = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise InvalidInput(f"--reason: {reason}", hint="Say it in one line of plain text.") from None


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False, include_url=False)[0]
        return one_line(f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}")
    return type(error).__name__
