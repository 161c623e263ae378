"""Read the content of a receipt strictly; its fields are those of `jitvault.documents.receipt`.

Only a content whose signature holds is read here, but a thief of the worker's token can have anything signed: so every
type is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from jitvault.documents.proof import CredentialProof
from jitvault.documents.receipt import Receipt, StatedGrant
from jitvault.errors import SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.formats.conversion import place_of
from jitvault.formats.shorten import one_line
from jitvault.model.proof_check import Check

_HINT = "Whoever has the worker's token can have anything signed. Keep the file, and ask who has the ledger."


@dataclass(frozen=True, slots=True)
class Credential:
    """A token or lease of the receipt, with its name in messages.

    `lease_id` is empty for a token, `grant` is None for a lease.
    """

    name: str
    said: CredentialProof
    lease_id: str = ""
    grant: StatedGrant | None = None

    @property
    def accessor(self) -> str:
        """The HMAC of a token's accessor; empty for a lease."""
        return (self.grant.accessor_hmac or "") if self.grant else ""

    def check(self, n: int) -> Check | None:
        """Return the check with this number, None where it is not there."""
        return self.said.check(n)


def read_content(payload: bytes) -> Receipt:
    """Return a receipt's content from its signed bytes.

    Raises SecurityFinding for bytes that are no receipt, or not in the one form in which jitvault signs.
    """
    try:
        plain = msgspec.json.decode(payload, type=dict[str, Any])
        is_canonical = canonical_bytes(plain) == payload
        content = msgspec.json.decode(payload, type=Receipt)
    except msgspec.ValidationError as error:
        place, why = one_line(place_of(error)), one_line(str(error))
        raise SecurityFinding(f"what was signed is no receipt, at {place or 'its root'}: {why}", hint=_HINT) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SecurityFinding(f"what was signed is no receipt: {type(error).__name__}", hint=_HINT) from None
    if not is_canonical:
        # one key twice, for example: two programs could read two different receipts
        raise SecurityFinding("what was signed is not in canonical form, so two readers can differ", hint=_HINT)
    return content


def credentials(receipt: Receipt) -> Iterator[Credential]:
    """Yield each token and lease, the task's last token first."""
    made = [grant for grant in receipt.grants[:-1] if grant.accessor_hmac]
    last = receipt.grants[-1] if receipt.grants else None
    yield Credential("the task's token", receipt.proof.token, grant=last)
    for number, (grant, said) in enumerate(zip(made, receipt.proof.earlier_tokens, strict=False), 1):
        yield Credential(f"earlier token {number}", said, grant=grant)
    for lease in receipt.proof.leases:
        yield Credential(f"lease {lease.lease_id}", lease, lease_id=lease.lease_id)
