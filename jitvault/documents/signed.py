"""The documents that people sign, as the worker accepts them: nothing missing, nothing more, nothing hidden.

A signature says who wrote a document, not that it makes sense: whoever may sign can sign anything. What is not
exactly one of these counts as absent, so that nobody can stop a task from being ended by signing garbage.
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
# it is printed on other people's terminals
Note = Annotated[str, Prose(500)] | Literal[""]
Called = Annotated[str, Prose(255)] | Literal[""]
_NOTE: TypeAdapter[str] = TypeAdapter(Note)
_CALLED: TypeAdapter[str] = TypeAdapter(Called)


class SignedDocument(Strict):
    """What every signed document says: what it is, about which task, by whom, when; and a nonce."""

    kind: str
    task: Identifier
    entity: str = Field(max_length=64)
    nonce: str = Field(max_length=64)
    at: AwareDatetime


class SubmitPaper(SignedDocument):
    """A spec. `revise` replaces an earlier one."""

    kind: Literal["submit"]
    spec: dict[str, Any]
    revise: bool


class GrantPaper(SignedDocument):
    """Issue exactly this spec now."""

    kind: Literal["grant"]
    spec_digest: Digest


class EndPaper(SignedDocument):
    """End the task. `cancelled` withdraws it before it is granted; `forced` closes it even if that cannot be proven."""

    kind: Literal["end"]
    reason: Literal["completed", "operator", "cancelled", "forced"]
    note: Note


class ExtendPaper(SignedDocument):
    """Move the deadline `ends_at` of the granted revision `digest` by so many seconds, and no other deadline."""

    kind: Literal["extend"]
    digest: Digest
    ends_at: AwareDatetime
    seconds: int = Field(ge=1, le=MAX_DURATION // timedelta(seconds=1))
    reason: Annotated[str, Prose(500)]


class DecisionPaper(SignedDocument):
    """Yes or no about one digest, of a revision or of an extension, in the name of `groups`.

    Revision and requester are in what the digest is of as well: they stand here so that the signature says them.
    """

    kind: Literal["decision"]
    digest: Digest
    revision: int = Field(ge=1)
    requester: str = Field(max_length=64)
    decision: Literal["approve", "deny"]
    groups: tuple[Annotated[str, Field(max_length=64)], ...] = Field(min_length=1, max_length=32)
    reason: Note
    expires_at: AwareDatetime


class WithdrawPaper(SignedDocument):
    """An approval that was given earlier counts no more, whichever of this task it was."""

    kind: Literal["withdraw"]
    digest: Digest
    revision: int = Field(ge=1)
    requester: str = Field(max_length=64)
    reason: Note


class FreezePaper(SignedDocument):
    """Grant nothing more of a scope and end what is held of it, or lift that. `task` is the scope's key."""

    kind: Literal["freeze"]
    agent: Called
    template: Called
    owner: Called
    freezes: bool
    reason: Note


P = TypeVar("P", bound=SignedDocument)


def parse_signed(model: type[P], payload: Mapping[str, Any], *, task: str, entity: str) -> P:
    """`payload` as a paper of `entity` about `task`. Raises SecurityFinding for anything else."""
    try:
        paper = model.model_validate_json(canonical_bytes(payload))
    except (ValidationError, ValueError, RecursionError) as error:
        raise SecurityFinding(f"it is not a proper {model.__name__}: {_first(error)}") from None
    if paper.task != task or paper.entity != entity:
        raise SecurityFinding(f"it is about task {one_line(paper.task)} and by {one_line(paper.entity)}")
    return paper


def check_name(name: str) -> str:
    """`name`, if it can be one: a freeze of another would count for nothing. Raises InvalidInput."""
    try:
        return _CALLED.validate_python(name)
    except ValidationError as error:
        said = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise InvalidInput(
            f"{name!r:.80} is no name: {said}", hint="Take it from `jitvault list` or the spec."
        ) from None


def check_note(note: str) -> str:
    """`note`, if it may be signed as a reason. Raises InvalidInput."""
    try:
        return _NOTE.validate_python(note)
    except ValidationError as error:
        said = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise InvalidInput(f"--reason: {said}", hint="Say it in one line of plain text.") from None


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False, include_url=False)[0]
        return one_line(f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}")
    return type(error).__name__
