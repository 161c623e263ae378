"""What a signature of a DSSE envelope covers, written without the library that jitvault uses.

https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, "PAE": the pre-authentication encoding.
"""

from __future__ import annotations


def pae(payload: bytes, payload_type: str) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
