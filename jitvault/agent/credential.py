"""Write the credentials of a task as shell variables, or as URLs.

Values come from Vault, from whoever set the target up, and from the token's metadata: nothing in them may become shell
code, or another part of a URL. Names are made of the template's name, never of a value.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.connection import ConnectionFacts, CredentialUse

# what an engine answers beside its secrets
_NO_SECRETS = frozenset(
    {"username", "certificate", "issuing_ca", "ca_chain", "serial_number", "expiration", "private_key_type"}
)
# the variables that PostgreSQL's own programs read, by the name of a field
_LOGIN_VARIABLES = {"username": "PGUSER", "password": "PGPASSWORD"}


@dataclass(frozen=True, slots=True)
class Credential:
    """One credential that a task token gave.

    It ends at `expires_at` if nobody renews it.
    """

    use: CredentialUse
    lease_id: str
    fields: Mapping[str, Any]
    expires_at: datetime

    @property
    def connection(self) -> ConnectionFacts | None:
        return self.use.connection

    @property
    def is_login(self) -> bool:
        """Whether this is a login to a database whose address is known."""
        return self.connection is not None and self.connection.database is not None

    def as_json(self) -> dict[str, Any]:
        return {
            "template": self.use.template,
            "with": self.use.choices,
            "path": self.use.path,
            "lease_id": self.lease_id,
            "expires_at": rfc3339(self.expires_at),
            "connection": msgspec.to_builtins(self.connection),
            "fields": dict(self.fields),
        }

    def libpq(self) -> Iterator[tuple[str, str]]:
        """Yield the variables by which libpq finds the database of a login, without who logs in."""
        facts = self.connection
        if facts is not None:
            yield "PGHOST", facts.host
            yield "PGPORT", str(facts.port)
            yield "PGDATABASE", facts.database or ""
            yield "PGSSLMODE", facts.tls
            if facts.ca_file:
                yield "PGSSLROOTCERT", facts.ca_file
            yield "DATABASE_URL", self.dsn()

    def dsn(self) -> str:
        """Return the URL of a login to a database."""
        if self.connection is None:
            raise TypeError("a credential without a connection has no URL")
        return self.connection.dsn(as_text(self.fields.get("username")), as_text(self.fields.get("password")))


def names(uses: Sequence[CredentialUse]) -> list[str]:
    """Return a name for each credential, no two alike.

    It is the template's, followed by the choices where the task has the template twice.
    """
    often = Counter(use.template for use in uses)
    found: list[str] = []
    for use in uses:
        choices = [value for _, value in sorted(use.choices.items())] if often[use.template] > 1 else []
        name = re.sub(r"[^A-Za-z0-9]+", "-", "-".join([use.template, *choices])).strip("-").lower()
        number = 1
        while (unique := name if number == 1 else f"{name}-{number}") in found:
            number += 1
        found.append(unique)
    return found


def as_env(credentials: Sequence[Credential], facts: Mapping[str, str]) -> str:
    """Return lines of a POSIX shell that export all credentials, and `facts`.

    A task's only login to a database gets the variables that PostgreSQL's own programs read. Of several logins each
    has its name before them, and so has every other field.
    """
    logins = [each for each in credentials if each.is_login]
    variables: dict[str, str] = dict(facts)
    for name, each in zip(names([each.use for each in credentials]), credentials, strict=True):
        own = f"{_variable(name)}_"
        variables |= _variables(each, own, "" if [each] == logins else own)
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def as_dsn(credentials: Sequence[Credential]) -> str:
    """Return the URL of the only login, or a line `NAME URL` for each."""
    if len(credentials) == 1:
        return f"{credentials[0].dsn()}\n"
    named = zip(names([each.use for each in credentials]), credentials, strict=True)
    return "".join(f"{name} {each.dsn()}\n" for name, each in named)


def as_text(value: object) -> str:
    """Return a field's value as text.

    That is the lines of a list, and JSON for what is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(map(as_text, value))
    return json.dumps(value)


def secrets_of(credentials: Sequence[Credential]) -> list[tuple[str, str, str]]:
    """Return what of the credentials is masked: template, field and value."""
    return [
        (each.use.template, name, as_text(value))
        for each in credentials
        for name, value in each.fields.items()
        if name not in _NO_SECRETS
    ]


def _variables(credential: Credential, own: str, login: str) -> Iterator[tuple[str, str]]:
    """Yield names and values; `own` and `login` are the prefixes of the names."""
    facts = credential.connection
    if facts is not None and credential.is_login:
        yield from ((f"{login}{name}", value) for name, value in credential.libpq())
    elif facts is not None:
        yield f"{own}HOST", facts.host
        yield f"{own}PORT", str(facts.port)
        yield f"{own}TLS", facts.tls
        if facts.ca_file:
            yield f"{own}CA_FILE", facts.ca_file
    for field, value in sorted(credential.fields.items()):
        is_libpqs = credential.is_login and field in _LOGIN_VARIABLES
        yield f"{login}{_LOGIN_VARIABLES[field]}" if is_libpqs else f"{own}{_variable(field)}", as_text(value)


def _variable(name: str) -> str:
    """Return the name of a shell variable.

    It begins with a letter or _, and has letters of ASCII, digits and _ alone.
    """
    found = re.sub(r"[^A-Za-z0-9]+", "_", name).upper()
    return f"_{found}" if not found[:1].isalpha() else found
