"""A task's credentials in a Python program.

Every value is held by the task, and by nothing else: when the task is over it is forgotten there, and a secret that the
program kept reveals nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, NoReturn

from jitvault.errors import InvalidInput, TaskEnded
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.secret import Secret

_HINT = "`Task.credentials` lists what the task has."


class FieldSecret(Secret):
    """A field of a credential, which is revealed while its task lasts.

    `str`, `repr` and format do not show it; JSON, copying and pickling refuse it. The only way out is `reveal()`.
    """

    __slots__ = ("_name", "_read")

    def __init__(self, name: str, read: Callable[[], str]) -> None:
        super().__init__("")
        self._name = name
        self._read = read

    def reveal(self) -> str:
        """Return the secret itself. Raises TaskEnded after the task's end."""
        return self._read()

    def __repr__(self) -> str:
        return f"Secret({self._name})"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, eq=False)
class HeldCredential:
    """A credential of the task.

    `name` is the template's, followed by the choices where the task has the template twice. `connection` has `host`,
    `port`, `tls`, and where the template says them `database` and `ca_file`. `expires_at` is its end if nobody renews
    it, which a worker does until the task's deadline. `fields` are the names of what `secret` gives.
    """

    name: str
    template: str
    expires_at: datetime
    connection: Mapping[str, Any]
    fields: tuple[str, ...]
    _values: HeldValues = field(repr=False)

    @property
    def is_login(self) -> bool:
        """Whether this is a login to a database whose address is known."""
        return "database" in self.connection

    def secret(self, name: str) -> FieldSecret:
        """Return a field. Raises InvalidInput for one that it does not have."""
        if name not in self.fields:
            known = ", ".join(sorted(self.fields))
            raise InvalidInput(
                f"{self.name} has no field {name}{nearest(name, self.fields)}; it has {known}", hint=_HINT
            )
        return FieldSecret(f"{self.name}.{name}", lambda: self._values.of(self.name, name))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a credential is not pickled")


class HeldValues:
    """The values of all fields, until the task is over.

    `check` raises TaskEnded where they may not be used.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._values: dict[tuple[str, str], Secret] = {}

    def keep(self, credential: str, name: str, value: str) -> None:
        """Keep the value of a field."""
        self._values[credential, name] = Secret(value)

    def of(self, credential: str, name: str) -> str:
        """Return the value of a field. Raises TaskEnded after the task's end."""
        self._check()
        found = self._values.get((credential, name))
        if found is None:
            # the task ended between the check and the look
            self._check()
            raise TaskEnded("the task is over")
        return found.reveal()

    def forget(self) -> None:
        """Forget all values."""
        self._values = {}


def credentials_of(data: Iterable[Mapping[str, Any]], values: HeldValues) -> tuple[HeldCredential, ...]:
    """Return the credentials in what the holder said, and keep their values."""
    found = []
    for each in data:
        for name, value in each["fields"].items():
            values.keep(each["name"], name, value)
        found.append(
            HeldCredential(
                name=each["name"],
                template=each["template"],
                expires_at=datetime.fromisoformat(each["expires_at"]),
                connection=MappingProxyType(dict(each["connection"] or {})),
                fields=tuple(each["fields"]),
                _values=values,
            )
        )
    return tuple(found)


def secret_of(credentials: Sequence[HeldCredential], name: str) -> FieldSecret:
    """Return the field that TEMPLATE.FIELD names, or FIELD where one has it.

    Raises InvalidInput.
    """
    of, _, of_field = name.rpartition(".")
    if of:
        return named(credentials, of).secret(of_field)
    having = [each for each in credentials if name in each.fields]
    if len(having) > 1:
        raise InvalidInput(
            f"{len(having)} credentials have a field {name}: expected "
            + " or ".join(f"{each.name}.{name}" for each in having),
            hint=_HINT,
        )
    if not having:
        known = sorted({each_field for each in credentials for each_field in each.fields})
        raise InvalidInput(
            f"the task has no field {name}{nearest(name, known)}; it has {', '.join(known) or 'none'}", hint=_HINT
        )
    return having[0].secret(name)


def named(credentials: Sequence[HeldCredential], name: str) -> HeldCredential:
    """Return the credential of that name. Raises InvalidInput."""
    by_name = {each.name: each for each in credentials}
    if name not in by_name:
        known = ", ".join(by_name) or "none"
        raise InvalidInput(f"the task has no credential {name}{nearest(name, by_name)}; it has {known}", hint=_HINT)
    return by_name[name]


def the_only(
    credentials: Sequence[HeldCredential], name: str | None, what: str, is_one: Callable[[HeldCredential], bool]
) -> HeldCredential:
    """Return the credential of that name, or the only one of its kind.

    `what` names the kind. Raises InvalidInput where there is none, or where there are several.
    """
    if name is not None:
        found = named(credentials, name)
        if not is_one(found):
            raise InvalidInput(f"{name} is no {what}", hint=_HINT)
        return found
    having = [each for each in credentials if is_one(each)]
    if len(having) != 1:
        many = f"{len(having)} of the kind {what}: name one of {', '.join(each.name for each in having)}"
        raise InvalidInput(f"the task has {many if having else f'no {what}'}", hint=_HINT)
    return having[0]
