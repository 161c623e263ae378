"""The paths of acts that can make a revocation look done that was not.

docs/vault-facts.md, "Revocation", has what was measured of each.
"""

from __future__ import annotations

import re

from jitvault.audit.entry import Entry, Request

READING = frozenset({"read", "list", "help"})
AUDIT_DEVICES = "sys/audit/"
# The expressions are applied to at most so much of a path and of an error. Clients choose both; a longer error is no
# plain refusal.
MAX_PATH = 4096
PATH_END = 256
_GLOBAL_HAZARDS = re.compile(
    r"sys/(leases/tidy|(leases/)?revoke-(force|prefix)/|mounts/|remount|audit/|storage/raft/snapshot)|auth/token/tidy"
)
# Paths of PKI that take an issuer away or make another one the default: Vault then answers a revocation with 204, and
# no CRL that anybody reads has the serial number (docs/vault-facts.md, "Certificates"). A role may have any name, so
# issuing through a role is no such path, `issue/config` included.
_ISSUER = (
    r"root/?$|root/(generate|rotate|replace)(/|$)|issuer/[^/]+/?$|issuers/(generate|import)/|intermediate/set-signed"
)
# Requests to an ACME server need no token: the server of a mount, of an issuer or of a role, whatever their names. No
# template's mount has a part `acme` in its name, so a path below such a part is nothing else.
_ACME = (
    r"acme/(directory|new-(nonce|account|order|eab)|revoke-cert|key-change|(account|authorization|challenge|order)s?/)"
)
_OF_ACME = re.compile(rf"/{_ACME}")
# PKI answers these paths to every token, whatever its policies: certificates, their status, an issuer's certificate and
# CRLs. Nothing below these paths changes anything, and a name in them may be any. No part before them begins a change,
# and no template's mount has a part `cert`, `ocsp` or `issuer`.
_OPEN_TO_ALL = re.compile(
    r"(?:(?!(?:config|roles|reset|rotate-[a-z]+|root|issuers?|intermediate)/)[^/]+/)+"
    r"(?:(?:cert|(?:unified-)?ocsp)/.|issuer/[^/]+/(?:json|der|pem|(?:unified-)?crl)(?:/|$))",
    re.DOTALL,
)
_OF_AN_ENGINE = re.compile(r"(?!sys/|auth/|identity/|cubbyhole/|jitvault(?:-inbox|-transit)?/)")
_ENGINE_HAZARDS = re.compile(
    rf"{_OF_AN_ENGINE.pattern}(?!.+/issue/[^/]+$).+?/((config|roles|reset|rotate-[a-z]+)(/|$)|{_ISSUER})"
)


def is_hazard(request: Request) -> bool:
    """Return whether the act can make a revocation look done that was not.

    See docs/vault-facts.md, "Revocation".
    """
    if request.operation in READING:
        return False
    return bool(_GLOBAL_HAZARDS.match(request.path)) or is_engine_hazard(request.path)


def enables_device(request: Request) -> bool:
    """Return whether the request enables an audit device.

    Disabling one has another operation.
    """
    return request.path.startswith(AUDIT_DEVICES) and request.operation in ("create", "update")


def is_unprivileged(entry: Entry) -> bool:
    """Return whether an engine was asked without rights.

    Some paths take callers without a token, and none of those changes what a revocation does. A batch token has no
    accessor, but has policies. Vault's own line for a new audit device has neither.
    """
    has_rights = entry.auth is not None and bool(entry.auth.accessor or entry.auth.policies)
    return not has_rights and not _GLOBAL_HAZARDS.match(entry.request.path)


def is_engine_hazard(path: str) -> bool:
    """Return whether a write to the path changes an engine's revocation.

    The path beyond the limit is not read, so a path of that length counts as a hazard wherever it could be one.
    """
    if len(path) >= MAX_PATH:
        found, acme = _OF_AN_ENGINE.match(path), _OF_ACME.search(path[-PATH_END:])
    else:
        found, acme = _ENGINE_HAZARDS.match(path), _OF_ACME.search(path)
    return found is not None and not acme and not _OPEN_TO_ALL.match(path)
