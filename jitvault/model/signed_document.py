"""A document as a person or an agent signed it, in the form that the chain and the receipt keep."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field


class EnvelopeSignature(Struct, frozen=True, forbid_unknown_fields=True):
    """A signature, base64, and the key that made it: `jitvault-signer-<entity>:v<version>`."""

    keyid: str
    sig: str


class SignedByPerson(Struct, frozen=True, forbid_unknown_fields=True):
    """A DSSE envelope with the one signature of its author."""

    payload: str
    payload_type: str = field(name="payloadType")
    signatures: Annotated[list[EnvelopeSignature], Meta(min_length=1, max_length=1)]
