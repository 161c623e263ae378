"""What every item that `init` provides in Vault has in common.

A kind of item is one class: what is desired is its fields; `step` reads Vault, compares and says the difference;
`carry_out` makes it. A new kind is a new class, which `desired` names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jitvault.errors import WrongState
from jitvault.provision.live import Live
from jitvault.vault.client import Vault

Action = Literal["create", "update", "keep", "delete"]
_NOT_OURS = "Rename or remove it, then run `jitvault init` again. Nothing was changed."


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to create, to change, to keep or to delete.

    The lines of `detail` say what it will be, or what changes.
    """

    action: Action
    kind: str
    name: str
    detail: tuple[str, ...] = ()
    item: Item = field(kw_only=True, repr=False)


class Item(ABC):
    """One thing that Vault shall have."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    @abstractmethod
    def label(self) -> str:
        """The name by which people are shown the item."""

    @abstractmethod
    def step(self, live: Live) -> Step | None:
        """Return what has to be done; None for nothing, which `notes` of the plan explain.

        Nothing is written. Raises WrongState for what has a name of jitvault's and is not jitvault's.
        """

    @abstractmethod
    def carry_out(self, vault: Vault, action: Action) -> None:
        """Carry out the action of a step. Raises what `Vault.write` raises."""

    def create(self, *detail: str) -> Step:
        """Return the step that creates the item, with lines that say what it will be."""
        return Step("create", self.kind, self.label, detail, item=self)

    def update(self, changes: Iterable[str] = ()) -> Step:
        """Return the step that makes the changes, and keeps the item if there are none."""
        detail = tuple(changes)
        return Step("update" if detail else "keep", self.kind, self.label, detail, item=self)

    def foreign(self, why: str) -> WrongState:
        """Return the error for something with the item's name that is not jitvault's."""
        return WrongState(f"the {self.kind} {self.label} is not jitvault's: {why}", hint=_NOT_OURS)


def changed(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each field of `found` that differs: present → wanted."""
    for name, value in wanted.items():
        if found[name] != value:
            yield f"{name}: {shown(found[name])} → {shown(value)}"


def shown(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
