"""Which of the two servers it is: OpenBao or HashiCorp Vault.

They share the API; where they differ, code asks for the product and not for a version number, which says nothing alone:
OpenBao 2.x is younger than Vault 1.x.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_SAID = re.compile(r"(OpenBao|Vault) v(\d+\.\d+\.\d+\S*)")
_NUMBERS = re.compile(r"(\d+)\.(\d+)")


class Product(StrEnum):
    """The values are what people call them."""

    OPENBAO = "OpenBao"
    VAULT = "HashiCorp Vault"

    @property
    def command(self) -> str:
        """The name of its program."""
        return "bao" if self is Product.OPENBAO else "vault"


@dataclass(frozen=True, slots=True)
class Release:
    """One product in one version, without the `v`: `2.7.2`, `1.18.3+ent`."""

    product: Product
    version: str

    def __str__(self) -> str:
        return f"{self.product} {self.version}"

    @property
    def numbers(self) -> tuple[int, int]:
        """Major and minor number; (0, 0) where the version does not begin with them."""
        found = _NUMBERS.match(self.version)
        return (int(found[1]), int(found[2])) if found else (0, 0)


def of_program(said: str) -> Release | None:
    """What a program is whose `version` command said this; None for neither of the two."""
    found = _SAID.match(said)
    if found is None:
        return None
    return Release(Product.OPENBAO if found[1] == "OpenBao" else Product.VAULT, found[2])
