"""Where an agent uses a credential: host, port, database and TLS.

A template says where in its `connection`. The result is part of the signed revision, so that approvers see where the
agent connects, and of the task token's metadata, so that the agent's host needs no template.

Nothing in Vault depends on the connection, and no check proves it: a wrong host gives the agent a login that nobody
there knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address
from typing import Annotated, Literal, Self
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct
from pydantic import Field, model_validator

from jitvault.formats.fields import Name, Strict, problem

DATABASE_ENGINE = "database"
"""The engine whose credentials are logins to a database."""

Tls = Literal["disable", "require", "verify-ca", "verify-full"]
VERIFYING: tuple[Tls, ...] = ("verify-ca", "verify-full")

# names that nobody can have (RFC 2606): the shipped templates have one where the administrator's server belongs
_RESERVED = ("example", "example.com", "example.net", "example.org")
_PARAMETER = r"\{[a-z][a-z0-9_]{0,31}\}"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_DATABASE = r"[A-Za-z0-9_](?:[A-Za-z0-9_.$-]{0,62})"
_CA_FILE = r"/[A-Za-z0-9._/@+-]{1,199}"
_LONGEST = 64 * 1024

HostPattern = Annotated[
    str,
    Name(
        rf"^(?=.{{1,253}}$)(?:[A-Za-z0-9.:-]|{_PARAMETER})+$",
        "a host by its name or its address, with {parameter} for what a task chooses",
    ),
]
DatabasePattern = Annotated[
    str,
    Name(
        rf"^(?=.{{1,128}}$)(?:[A-Za-z0-9_.$-]|{_PARAMETER})+$",
        "the name of a database: A-Z a-z 0-9 _ . $ - and {parameter}",
    ),
]
CaFile = Annotated[
    str,
    Name(rf"^{_CA_FILE}$", "the absolute path of a file on the agent's host: A-Z a-z 0-9 . _ / @ + -, without spaces"),
]


class Connection(Strict):
    """The connection of a template, with {parameter} as in its path."""

    host: HostPattern = Field(description="The server's name or address, as the agent reaches it.")
    port: int = Field(ge=1, le=65535, description="The server's port.")
    database: DatabasePattern | None = Field(
        default=None, description="The database; required for engine database, and for no other."
    )
    tls: Tls = Field(
        description="Whether the agent uses TLS, in PostgreSQL's words: disable, require (it checks no certificate), "
        "verify-ca, or verify-full (checks the server's certificate and name)."
    )
    ca_file: CaFile | None = Field(
        default=None, description="The CA of the server's certificate, as a file on the agent's host."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ca_file is not None and self.tls not in VERIFYING:
            raise problem(f"expected no ca_file, because tls {self.tls} checks no certificate", complete=True)
        return self

    def mismatch(self, engine: str) -> str | None:
        """Return what is wrong with the connection for an engine, or None."""
        if engine == DATABASE_ENGINE and self.database is None:
            return f"expected connection.database: credentials of engine {engine} are logins to one"
        if engine != DATABASE_ENGINE and self.database is not None:
            return f"expected no connection.database: credentials of engine {engine} are no logins to one"
        return None

    def texts(self) -> tuple[str, ...]:
        """Return the texts that parameters may be in."""
        return tuple(filter(None, (self.host, self.database)))

    def filled(self, fill: Callable[[str], str]) -> ConnectionFacts:
        """Return the connection with each parameter replaced by `fill`."""
        return ConnectionFacts(
            host=fill(self.host),
            port=self.port,
            tls=self.tls,
            database=None if self.database is None else fill(self.database),
            ca_file=self.ca_file,
        )


class ConnectionFacts(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where one credential of a task is used, without parameters."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65535)]
    tls: Tls
    database: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    ca_file: Annotated[str, Meta(min_length=1, max_length=200)] | None = None

    def problem(self) -> str | None:
        """Return which text could not be used as it is, or None."""
        if not re.fullmatch(_HOST, self.host) and not _is_ipv6(self.host):
            return f"connection.host {self.host!a:.80} is neither a name nor an address"
        if self.database is not None and not re.fullmatch(_DATABASE, self.database):
            return f"connection.database {self.database!a:.80} is no name of 1 to 63 characters"
        if self.ca_file is not None and not re.fullmatch(_CA_FILE, self.ca_file):
            return f"connection.ca_file {self.ca_file!a:.80} is no absolute path"
        return None

    @property
    def address(self) -> str:
        """Host and port, as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_placeholder(self) -> bool:
        """Whether the host is one of the names that are reserved for examples."""
        return any(self.host == name or self.host.endswith(f".{name}") for name in _RESERVED)

    def in_words(self) -> str:
        """Return the connection for people, in one line."""
        database = f", database {self.database}" if self.database else ""
        tls = ", without TLS" if self.tls == "disable" else f", TLS {self.tls}"
        return f"{self.address}{database}{tls}" + (f" by {self.ca_file}" if self.ca_file else "")

    def dsn(self, user: str, password: str) -> str:
        """Return the URL of a login to the database.

        Every value in it is percent-encoded. Only a connection with a database has a URL.
        """
        query = [("sslmode", self.tls), *([("sslrootcert", self.ca_file)] if self.ca_file else [])]
        more = "&".join(f"{key}={quote(value, safe='')}" for key, value in query)
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{login}@{self.address}/{quote(self.database or '', safe='')}?{more}"


class CredentialUse(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a task token's metadata say of the use of one credential.

    `choices` are the parameters that the task chose.
    """

    template: Annotated[str, Meta(min_length=1, max_length=63)]
    path: Annotated[str, Meta(min_length=1, max_length=512)]
    choices: dict[str, str] = msgspec.field(name="with", default_factory=dict)
    connection: ConnectionFacts | None = None


_uses = msgspec.json.Decoder(list[CredentialUse])


def uses_as_word(uses: Iterable[CredentialUse]) -> str:
    """Return the text for a task token's metadata."""
    found = sorted((msgspec.to_builtins(use) for use in uses), key=lambda use: (use["template"], use["path"]))
    return json.dumps(found, separators=(",", ":"))


def uses_of_word(word: str) -> tuple[CredentialUse, ...]:
    """Parse what `uses_as_word` wrote.

    Nothing is returned for any other text, or where one of the connections is none that a template can have.
    """
    if not word or len(word) > _LONGEST:
        return ()
    try:
        uses = _uses.decode(word)
    except (msgspec.MsgspecError, RecursionError):
        return ()
    connections = [use.connection for use in uses if use.connection is not None]
    return () if any(connection.problem() for connection in connections) else tuple(uses)


def _is_ipv6(host: str) -> bool:
    try:
        return "%" not in host and bool(IPv6Address(host))
    except ValueError:
        return False
