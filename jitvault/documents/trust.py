"""The trust file: what an auditor took from Vault to verify receipts.

It has the public keys of receipts and of everybody who signs, the namespace in which jitvault works, the entities of
the worker, and the certificates of issuers. Namespaces and entities are compared by their ids, which Vault makes: a
name or a policy of the same name can be made by anybody who administers another namespace.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from jitvault.errors import InvalidInput
from jitvault.formats.shorten import one_line

Id = Annotated[str, Meta(min_length=1, max_length=128)]


class TrustedKey(Struct, frozen=True, forbid_unknown_fields=True):
    """One version of the receipts' public key, base64 as Vault shows it."""

    version: Annotated[int, Meta(ge=1)]
    public_key: str
    made_at: Annotated[datetime, Meta(tz=True)]


class TrustedSigner(Struct, frozen=True, forbid_unknown_fields=True):
    """One version of the public key by which an entity signs requests, decisions and ends."""

    entity: Id
    version: Annotated[int, Meta(ge=1)]
    public_key: str


class HomeNamespace(Struct, frozen=True, forbid_unknown_fields=True):
    """The namespace in which jitvault works; the root's id is `root`."""

    id: Id
    path: str


class TrustedWorker(Struct, frozen=True, forbid_unknown_fields=True):
    """An entity that a worker logs in as."""

    entity: Id
    name: str


class TrustFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything in a trust file."""

    schema: Literal["jitvault.dev/trust/v1"]
    receipt_keys: Annotated[list[TrustedKey], Meta(min_length=1)]
    signers: list[TrustedSigner]
    namespace: HomeNamespace
    workers: Annotated[list[TrustedWorker], Meta(min_length=1)]
    issuers: list[str]
    """PEM, one certificate each."""


def read_trust_file(data: bytes) -> TrustFile:
    """Return the content of a trust file. Raises InvalidInput."""
    try:
        return msgspec.json.decode(data, type=TrustFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"this is no trust file of the form jitvault.dev/trust/v1: {one_line(str(error))[:200]}",
            hint="`jitvault export-keys --out FILE` writes one.",
        ) from None
