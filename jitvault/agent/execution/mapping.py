"""What a program gets of a task's credentials. Pure.

    --env NAME=TEMPLATE.FIELD        a variable
    --file NAME=TEMPLATE.FIELD       a file; the variable NAME has its path
    --env-file FILE                  lines NAME=jit://TEMPLATE/FIELD, and others as they are
    --preset postgres                what PostgreSQL's own programs read, and DATABASE_URL

A mapping that cannot be filled is an error before anything is started.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jitvault.agent.credential import Credential, as_text, names
from jitvault.errors import InvalidInput
from jitvault.formats.did_you_mean import nearest
from jitvault.model.connection import CredentialUse

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"jit://([A-Za-z0-9._-]+)/([A-Za-z0-9_.-]+)")
# never given to the program: who holds these can log in, ask, or speak to the Workload API as the agent
_WITHHELD = ("VAULT_", "BAO_", "JITVAULT_")
_WITHHELD_NAMES = ("SPIFFE_ENDPOINT_SOCKET",)
_HINT = "Nothing was started. `jitvault exec --help` shows how a credential is named."
PRESETS = ("postgres",)
# by these libpq finds a login; a service and an address take the place of the host's name, a password that of its file
_LIBPQS_LOGIN = frozenset(
    ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE")
)


@dataclass(frozen=True, slots=True)
class Source:
    """A field of a credential, as it was named: TEMPLATE.FIELD."""

    template: str
    field: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for.

    `plain` are the lines of the env file that name no credential.
    """

    variables: Mapping[str, Source] = field(default_factory=dict)
    files: Mapping[str, Source] = field(default_factory=dict)
    plain: Mapping[str, str] = field(default_factory=dict)
    presets: tuple[str, ...] = ()
    has_all: bool = False
    """Whether the program gets everything, under names that nobody chose."""

    @property
    def is_empty(self) -> bool:
        """Whether no credential is asked for at all."""
        return not (self.variables or self.files or self.presets or self.has_all)


@dataclass(frozen=True, slots=True)
class Given:
    """What the program gets.

    `files` are by the variable that has their path. `replaced` are the variables that are not inherited, since they
    would take the place of these.
    """

    variables: Mapping[str, str]
    files: Mapping[str, bytes]
    replaced: frozenset[str] = frozenset()

    def inherits(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of this process that the program gets as well."""
        return {name: value for name, value in environment.items() if name not in self.replaced}


def parse(variables: Sequence[str], files: Sequence[str], env_file: str, presets: Sequence[str]) -> Wanted:
    """Return the mapping that the options say.

    Raises InvalidInput for one that cannot be meant.
    """
    by_line, plain = _of_env_file(env_file)
    by_option = dict(_pair("--env", each) for each in variables)
    by_file = dict(_pair("--file", each) for each in files)
    if twice := {*by_option, *by_line, *plain} & by_file.keys():
        raise InvalidInput(f"{min(twice)} is named by --file and by --env", hint=_HINT)
    if len(by_option) != len(variables) or len(by_file) != len(files):
        raise InvalidInput("a variable is named twice", hint=_HINT)
    if unknown := [each for each in presets if each not in PRESETS]:
        raise InvalidInput(f"--preset {unknown[0]!r:.80}: expected {' or '.join(PRESETS)}", hint=_HINT)
    return Wanted({**by_line, **by_option}, by_file, plain, tuple(dict.fromkeys(presets)))


def check_uses(mapping: Wanted, uses: Sequence[CredentialUse]) -> None:
    """Refuse a mapping that credentials of these uses can never fill.

    It names a credential which is not asked for, or is a preset for a login which is not. This is known before anything
    is asked for, and so no approval is used up by a slip of the pen. Which fields a credential has is known once it is
    read. Raises InvalidInput.
    """
    known = names(uses)
    for source in (*mapping.variables.values(), *mapping.files.values()):
        if source.template not in known:
            raise _no_credential(source.template, known)
    if "postgres" in mapping.presets:
        _check_one_login(sum(each.connection is not None and each.connection.database is not None for each in uses))


def _check_one_login(logins: int) -> None:
    """Raise InvalidInput for a preset where there is no login, or several."""
    if logins != 1:
        what = f"{logins} logins to databases" if logins else "no login to a database whose address is known"
        raise InvalidInput(
            f"--preset postgres: the task has {what}",
            hint="Name what the program needs with --env NAME=TEMPLATE.FIELD. Nothing was started.",
        )


def filled(mapping: Wanted, credentials: Sequence[Credential]) -> Given:
    """Return the variables and files of a program.

    Raises InvalidInput for a credential or field that the task does not have, and for a value that cannot be a
    variable.
    """
    if mapping.has_all:
        mapping = _everything(credentials)
    variables = dict(mapping.plain)
    for preset in mapping.presets:
        variables |= dict(_postgres(credentials)) if preset == "postgres" else {}
    for name, source in mapping.variables.items():
        variables[name] = _value(source, credentials)
    for name, value in variables.items():
        if "\0" in value:
            raise InvalidInput(f"the value of {name} has a NUL byte, which no variable can have", hint=f"{_HINT}")
    files = {name: _value(source, credentials).encode() for name, source in mapping.files.items()}
    if "postgres" not in mapping.presets:
        return Given(variables, files)
    return Given(variables, {**files, "PGPASSFILE": _password_file(credentials)}, replaced=_LIBPQS_LOGIN)


def _everything(credentials: Sequence[Credential]) -> Wanted:
    """Return the mapping of a program that gets all there is.

    The task's only login to a database has the variables of `--preset postgres`. Every field of another credential is
    the variable TEMPLATE_FIELD.
    """
    logins = [each for each in credentials if each.is_login]
    variables = {
        _variable(f"{name}_{field}"): Source(name, field)
        for name, each in zip(names([each.use for each in credentials]), credentials, strict=True)
        if [each] != logins
        for field, _ in fields_of(each)
    }
    return Wanted(variables, presets=PRESETS if len(logins) == 1 else ())


def _variable(name: str) -> str:
    """Return a variable's name that a program may have."""
    found = "".join(c if c.isascii() and c.isalnum() else "_" for c in name).upper()
    return f"TASK_{found}" if found.startswith(_WITHHELD) or not found[0].isalpha() else found


def without_our_own(environment: Mapping[str, str], *, pristine: bool) -> dict[str, str]:
    """Return the variables of this process that the program may have.

    With `pristine` these are only what a program needs to run at all.
    """
    if pristine:
        kept = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "TZ", "TMPDIR")
        return {name: environment[name] for name in kept if name in environment}
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_WITHHELD) and name not in _WITHHELD_NAMES
    }


def _pair(option: str, text: str) -> tuple[str, Source]:
    """Return NAME and the source of `NAME=TEMPLATE.FIELD`.

    Raises InvalidInput.
    """
    name, _, wanted = text.partition("=")
    template, _, of_template = wanted.rpartition(".")
    if not _VARIABLE.fullmatch(name) or not template or not of_template:
        raise InvalidInput(f"{option} {text!r:.200}: expected NAME=TEMPLATE.FIELD", hint=_HINT)
    _check_name(option, name)
    return name, Source(template, of_template)


def _check_name(option: str, name: str) -> None:
    if name.startswith(_WITHHELD) or name in _WITHHELD_NAMES:
        raise InvalidInput(f"{option} {name}: the program never gets a variable of that name", hint=_HINT)


def _of_env_file(text: str) -> tuple[dict[str, Source], dict[str, str]]:
    """Return the lines of an env file that name a credential, and the others."""
    named: dict[str, Source] = {}
    plain: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        name, found, value = bare.removeprefix("export ").partition("=")
        if not found or not _VARIABLE.fullmatch(name.strip()):
            raise InvalidInput(f"--env-file: line {number} is not NAME=VALUE", hint=_HINT)
        name, value = name.strip(), _unquoted(value.strip())
        _check_name(f"--env-file: line {number}:", name)
        if value.startswith("jit://"):
            reference = _REFERENCE.fullmatch(value)
            if reference is None:
                raise InvalidInput(f"--env-file: line {number}: expected jit://TEMPLATE/FIELD", hint=_HINT)
            named[name] = Source(reference[1], reference[2])
        else:
            plain[name] = value
    return named, plain


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _value(source: Source, credentials: Sequence[Credential]) -> str:
    """Return the text of a field.

    Raises InvalidInput where the task has no such credential or field.
    """
    by_name = dict(zip(names([each.use for each in credentials]), credentials, strict=True))
    credential = by_name.get(source.template)
    if credential is None:
        raise _no_credential(source.template, list(by_name))
    fields = dict(fields_of(credential))
    if source.field not in fields:
        known = ", ".join(sorted(fields))
        raise InvalidInput(
            f"{source.template} has no field {source.field}{nearest(source.field, fields)}; it has {known}", hint=_HINT
        )
    return fields[source.field]


def _no_credential(name: str, known: Sequence[str]) -> InvalidInput:
    has = ", ".join(known) or "none"
    return InvalidInput(f"the task has no credential {name}{nearest(name, known)}; it has {has}", hint=_HINT)


def fields_of(credential: Credential) -> Iterator[tuple[str, str]]:
    """Yield what of a credential can be named: fields, and where it is used."""
    for name, value in credential.fields.items():
        yield name, as_text(value)
    facts = credential.connection
    if facts is None:
        return
    yield from (("host", facts.host), ("port", str(facts.port)), ("tls", facts.tls))
    if facts.ca_file:
        yield "ca_file", facts.ca_file
    if credential.is_login:
        yield "database", facts.database or ""
        yield "url", credential.dsn()


def _postgres(credentials: Sequence[Credential]) -> Iterator[tuple[str, str]]:
    """Yield the variables of the task's only login to a database.

    Raises InvalidInput where it has none, or several.
    """
    logins = [each for each in credentials if each.is_login]
    _check_one_login(len(logins))
    yield from logins[0].libpq()
    yield "PGUSER", as_text(logins[0].fields.get("username"))


def _password_file(credentials: Sequence[Credential]) -> bytes:
    """Return the PGPASSFILE of the task's only login.

    It is for any host and database.
    """
    login = next(each for each in credentials if each.is_login)
    return f"*:*:*:*:{_escaped(as_text(login.fields.get('password')))}\n".encode()


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace(":", "\\:")
