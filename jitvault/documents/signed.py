"""The documents that people sign, in the form that the worker accepts.

A signed document is a DSSE envelope. The signing key of an entity is `jitvault-signer-<entity id>` in Vault's Transit
engine; the public half is read from Vault for each check. DSSE: https://github.com/secure-systems-lab/dsse

A signature says who wrote a document, not that it makes sense: whoever may sign can sign anything. A payload that
is not exactly one of these models counts as absent, so that nobody can stop a task from being ended by signing
garbage.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import AwareDatetime, BeforeValidator, Field, TypeAdapter, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Signature, SSlibKey  # type: ignore[attr-defined]

from jitvault.errors import InvalidInput, SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.formats.conversion import converter
from jitvault.formats.fields import Identifier, Prose, Strict
from jitvault.formats.shorten import one_line
from jitvault.formats.time_window import MAX_DURATION
from jitvault.model.signed_document import SignedByPerson

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
# Notes are printed on other people's terminals.
Note = Annotated[str, Prose(500)] | Literal[""]
Called = Annotated[str, Prose(255)] | Literal[""]
_TIME = re.compile(
    "[0-9]{4}-[0-9]{2}-[0-9]{2}T(?!24)[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def _in_utc(text: object) -> datetime:
    """Return a signed time in UTC.

    Only a form that every reader takes for the same time is one. Raises ValueError.
    """
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ValueError("expected a time of RFC 3339 with at most six digits after the second")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC there is no such time") from None


SignedTime = Annotated[AwareDatetime, BeforeValidator(_in_utc)]
_NOTE: TypeAdapter[str] = TypeAdapter(Note)
_CALLED: TypeAdapter[str] = TypeAdapter(Called)
_signed = converter(SignedByPerson)


class SignedDocument(Strict):
    """The fields of every signed document: kind, task, author, nonce, time."""

    kind: str
    task: Identifier
    entity: str = Field(max_length=64)
    nonce: str = Field(max_length=64)
    at: SignedTime


class SubmitDocument(SignedDocument):
    """Request a task by its spec. `revise` replaces an earlier request."""

    kind: Literal["submit"]
    spec: dict[str, Any]
    revise: bool


class GrantDocument(SignedDocument):
    """Issue exactly this spec now.

    With `queued_until`, a request that cannot be granted now waits until then at most, and is not refused.
    """

    kind: Literal["grant"]
    spec_digest: Digest
    queued_until: SignedTime | None = None


class EndDocument(SignedDocument):
    """End the task.

    `cancelled` withdraws it before it is granted; `forced` closes it even if its end cannot be proven. `intercepted` is
    an alarm: what the agent was to unwrap is not what jitvault delivered.
    """

    kind: Literal["end"]
    reason: Literal["completed", "operator", "cancelled", "forced", "intercepted"]
    note: Note


class ExtendDocument(SignedDocument):
    """Move the deadline `ends_at` of the granted revision `digest`.

    It is moved by `seconds`, and no other deadline is moved. With `cancels` the document takes back the request for
    that, which it replaces; `cancels` is the nonce of the request.
    """

    kind: Literal["extend"]
    digest: Digest
    ends_at: SignedTime
    seconds: int = Field(ge=1, le=MAX_DURATION // timedelta(seconds=1))
    reason: Annotated[str, Prose(500)]
    cancels: str | None = Field(default=None, max_length=64)


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
    expires_at: SignedTime


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
        raise InvalidInput(f"--reason: {reason}", hint="Write the reason as one line of plain text.") from None


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False, include_url=False)[0]
        return one_line(f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}")
    return type(error).__name__


DOCUMENT_TYPE = "application/vnd.jitvault.document+json"
RECEIPT_TYPE = "application/vnd.in-toto+json"
"""A receipt is an in-toto Statement (https://in-toto.io/Statement/v1), which other tools verify as well."""
RECEIPT_KEY = "jitvault-receipts"


def signer_key(entity_id: str) -> str:
    """Return the name of the Transit key that only this entity can use."""
    return f"jitvault-signer-{entity_id}"


def to_sign(payload: Mapping[str, Any], payload_type: str) -> str:
    """Return the base64 input that is sent to Transit for signing."""
    return input_of(unsigned(payload, payload_type))


def input_of(envelope: Envelope) -> str:
    return base64.b64encode(envelope.pae()).decode()


def unsigned(payload: Mapping[str, Any], payload_type: str) -> Envelope:
    """Return an unsigned envelope around the canonical bytes of `payload`."""
    return Envelope(canonical_bytes(payload), payload_type, {})


def signed(envelope: Envelope, *, key: str, version: int, signature: bytes) -> dict[str, Any]:
    """Return `envelope` as JSON data, with one signature.

    The signature was made by version `version` of the Transit key `key`.
    """
    keyid = f"{key}:v{version}"
    envelope.signatures[keyid] = Signature(keyid, signature.hex())
    return dict(envelope.to_dict())


def opened(document: object, *, key: str, public_keys: Mapping[int, str], payload_type: str) -> dict[str, Any]:
    """Return the payload of a document whose signature by `key` is valid.

    `public_keys` maps the versions of the Transit key to their base64 Ed25519 public keys, as Vault gives them.
    Raises SecurityFinding if the document is malformed, of another type, or not signed by that key.
    """
    return opened_whole(document, key=key, public_keys=public_keys, payload_type=payload_type)[0]


def opened_whole(
    document: object, *, key: str, public_keys: Mapping[int, str], payload_type: str
) -> tuple[dict[str, Any], SignedByPerson]:
    """Return the payload as `opened` does, and the envelope with nothing but the signature that is valid.

    A receipt embeds that envelope: what an author wrote beside it would make the receipt one that nobody accepts.
    """
    try:
        envelope = Envelope.from_dict(msgspec.json.decode(msgspec.json.encode(document)))
        # Without any key this raises as well: securesystemslib refuses a threshold that cannot be met.
        valid = envelope.verify([_ed25519(f"{key}:v{v}", public) for v, public in public_keys.items()], 1)
        payload = msgspec.json.decode(envelope.payload)
    except (VerificationError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SecurityFinding(f"a document is not signed by {key}: {type(error).__name__}") from error
    if envelope.payload_type != payload_type or not isinstance(payload, dict):
        raise SecurityFinding(f"a document signed by {key} is of type {envelope.payload_type!r:.80}")
    signatures = {keyid: one for keyid, one in envelope.signatures.items() if keyid in valid}
    return payload, _signed(Envelope(envelope.payload, envelope.payload_type, signatures).to_dict())


def payload_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of one's own document, signature unchecked.

    Raises SecurityFinding if the document is not an envelope.
    """
    try:
        payload: dict[str, Any] = msgspec.json.decode(base64.b64decode(document["payload"]), type=dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SecurityFinding("a document in Vault is not a signed envelope") from error
    return payload


def _ed25519(keyid: str, public_base64: str) -> SSlibKey:
    public = base64.b64decode(public_base64, validate=True).hex()
    return SSlibKey(keyid, "ed25519", "ed25519", {"public": public})
