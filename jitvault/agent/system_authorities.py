"""Name the system's authorities where a template names none.

A client of PostgreSQL that checks a certificate looks for authorities in a file in the user's home, and fails without
it. It does not look where every other program does. Which file that is depends on the agent's host, so it is named
there.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

import msgspec

from jitvault.model.connection import VERIFYING, CredentialUse

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def with_authorities(use: CredentialUse, bundles: Iterable[str] = _BUNDLES) -> CredentialUse:
    """Return the use of a login with a CA file, where it needs one.

    Everything else is returned as it is, also where no bundle is on this host: then the client decides.
    """
    facts = use.connection
    if facts is None or facts.database is None or facts.ca_file is not None or facts.tls not in VERIFYING:
        return use
    # what the environment or the build of Python names comes first
    own = ssl.get_default_verify_paths().cafile
    for path in filter(None, (own, *bundles)):
        named = msgspec.structs.replace(facts, ca_file=path)
        if Path(path).is_file() and named.problem() is None:
            return msgspec.structs.replace(use, connection=named)
    return use
