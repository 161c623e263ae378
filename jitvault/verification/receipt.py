"""Read the statement of a receipt strictly; its fields are those of `jitvault.documents.receipt`.

Only what the key signed is read here, but a thief of the worker's token can have anything signed: so every type is
checked, and there is one form in which a value can be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from jitvault.documents.proof import CredentialProof
from jitvault.documents.receipt import Receipt, StatedGrant, Statement
from jitvault.errors import SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.formats.conversion import as_json, place_of
from jitvault.formats.shorten import one_line
from jitvault.model.evidence import Evidence
from jitvault.model.proof_check import Check
from jitvault.verification.evidence import evidence_of

PREDICATE = "/predicate"
_HINT = "Whoever has the worker's token can have anything signed. Keep the file, and ask who has the ledger."


@dataclass(frozen=True, slots=True)
class Credential:
    """A token or lease of the receipt, with its name in messages and its place in the statement.

    `lease_id` is empty for a token; `grant` and `grant_place` are None and empty for a lease.
    """

    name: str
    place: str
    proof: CredentialProof
    lease_id: str = ""
    grant: StatedGrant | None = None
    grant_place: str = ""

    @property
    def is_token(self) -> bool:
        return not self.lease_id

    @property
    def accessor(self) -> str:
        """The HMAC of a token's accessor; empty for a lease."""
        return (self.grant.accessor_hmac or "") if self.grant else ""

    @property
    def identity(self) -> tuple[str, ...]:
        """The places that say which credential it is."""
        if self.lease_id:
            return (f"{self.place}/lease_id",)
        return (f"{self.grant_place}/accessor_hmac", f"{self.grant_place}/role") if self.grant else (self.place,)

    def check(self, n: int) -> Check | None:
        """Return the check with this number, None where it is not there."""
        return self.proof.check(n)

    def evidence(self, n: int) -> Evidence | None:
        """Return the evidence of a check that holds and shows something, else None."""
        return evidence_of(self.check(n))

    @property
    def verdict_place(self) -> str:
        return f"{self.place}/verdict"

    def at(self, n: int, *fields: str) -> str:
        """Return the place of a check, or of a field in it; that of all checks where the check is not there."""
        numbers = [check.n for check in self.proof.checks]
        if n not in numbers:
            return f"{self.place}/checks"
        return "/".join((self.place, "checks", str(numbers.index(n)), *fields))


def read_content(payload: bytes) -> Statement:
    """Return a receipt's statement from its signed bytes.

    Raises SecurityFinding for bytes that are no receipt, or not in the one form in which jitvault signs.
    """
    try:
        plain = msgspec.json.decode(payload, type=dict[str, Any])
        content = msgspec.json.decode(payload, type=Statement)
        expected = as_json(content)
        canonical = canonical_bytes(expected)
    except msgspec.ValidationError as error:
        place, why = one_line(place_of(error)), one_line(str(error))
        raise SecurityFinding(f"what was signed is no receipt, at {place or 'its root'}: {why}", hint=_HINT) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SecurityFinding(f"what was signed is no receipt: {type(error).__name__}", hint=_HINT) from None
    # a time or a number can be written in several ways, and then two programs could read two receipts
    for place in differences(plain, expected):
        raise SecurityFinding(f"what was signed is not in canonical form, at {one_line(place)}", hint=_HINT)
    if canonical != payload:
        # one key twice, for example
        raise SecurityFinding("what was signed is not in canonical form, so two readers can differ", hint=_HINT)
    return content


def differences(value: Any, expected: Any, place: str = "") -> Iterator[str]:
    """Yield the JSON pointer of each part of a value that is not as expected."""
    if isinstance(value, dict) and isinstance(expected, dict) and value.keys() == expected.keys():
        for key, part in value.items():
            yield from differences(part, expected[key], f"{place}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list) and isinstance(expected, list) and len(value) == len(expected):
        for number, (part, other) in enumerate(zip(value, expected, strict=True)):
            yield from differences(part, other, f"{place}/{number}")
    elif value != expected or type(value) is not type(expected):
        yield place


def accessors_of(receipt: Receipt) -> set[str]:
    """Return the HMAC of each of the task's tokens' accessors."""
    return {grant.accessor_hmac for grant in receipt.grants if grant.accessor_hmac}


def credentials(receipt: Receipt) -> Iterator[Credential]:
    """Yield each token and lease, the task's last token first."""
    proof, grants = f"{PREDICATE}/proof", f"{PREDICATE}/grants"
    made = [(number, grant) for number, grant in enumerate(receipt.grants[:-1]) if grant.accessor_hmac]
    if receipt.grants:
        last = len(receipt.grants) - 1
        place = f"{grants}/{last}"
        yield Credential("the task's token", f"{proof}/token", receipt.proof.token, "", receipt.grants[last], place)
    else:
        yield Credential("the task's token", f"{proof}/token", receipt.proof.token)
    for n, ((number, grant), earlier) in enumerate(zip(made, receipt.proof.earlier_tokens, strict=False)):
        place = f"{grants}/{number}"
        yield Credential(f"earlier token {n + 1}", f"{proof}/earlier_tokens/{n}", earlier, "", grant, place)
    for n, lease in enumerate(receipt.proof.leases):
        yield Credential(f"lease {one_line(lease.lease_id)}", f"{proof}/leases/{n}", lease, lease.lease_id)
