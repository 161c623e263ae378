"""Which of the two servers it is: OpenBao or HashiCorp Vault.

They share the API; where they differ, code asks for the product and not for a version number, which says nothing alone:
OpenBao 2.x is younger than Vault 1.x.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

_SAID = re.compile(r"(OpenBao|Vault) v(\d{1,9}\.\d{1,9}\.\d{1,9}\S{0,100})")
_COMMAND = re.compile(r"`bao ([^`]*)`")
_BUILT_IN = re.compile(r'"mount_running_version":"v[^"+]{1,40}\+builtin\.(bao|vault)"')
_FIRST_LATE = (1, 15)
_LATE = timedelta(seconds=20)
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
    enterprise: bool = False
    """Whether it is the paid edition of Vault."""

    def __str__(self) -> str:
        return f"{self.product} {self.version}"

    @property
    def has_namespaces(self) -> bool:
        """Whether the server has namespaces; one without takes its root for each that is named, without a word."""
        return self.product is Product.OPENBAO or self.enterprise

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


def product_of(health: Mapping[str, Any], seal_status: Mapping[str, Any]) -> Product | None:
    """The product by what `sys/health` and `sys/seal-status` say to anybody; None where neither key nor version tells.

    Measured on OpenBao 2.7 and Vault 1.14; for other versions by their source: OpenBao has `commit_date` since 2.6,
    Vault has `enterprise` since 1.17, and no Vault from before that has a version from 2.0 on, as every OpenBao has.
    """
    if "commit_date" in seal_status:
        return Product.OPENBAO
    if "enterprise" in health:
        return Product.VAULT
    major = re.match(r"(\d+)\.", str(health.get("version") or ""))
    if major is None:
        return None
    return Product.OPENBAO if int(major[1]) >= 2 else Product.VAULT


def release_of(health: Mapping[str, Any], seal_status: Mapping[str, Any]) -> Release | None:
    """The product and the version, empty where it is hidden; None where even the product is not told."""
    product = product_of(health, seal_status)
    return None if product is None else Release(product, str(health.get("version") or ""), is_enterprise(health))


def is_enterprise(health: Mapping[str, Any]) -> bool:
    """Whether `sys/health` is that of Vault Enterprise: since 1.17 by a key, and always by its version."""
    return bool(health.get("enterprise")) or "+ent" in str(health.get("version") or "")


def without_namespaces(variable: str, namespace: str) -> str:
    """Return what to say where `variable` names a namespace and the server is a Vault that has none."""
    return (
        f"{variable} is {namespace!r:.80}, and this Vault has no namespaces: only its Enterprise edition and OpenBao "
        "have, and this one takes the root for it"
    )


def another_server(before: Product | None, now: Product | None) -> str:
    """What to say of a ledger that was used with one product where the other one answers; empty where nothing is."""
    if before is None or now is None or before is now:
        return ""
    return f"this ledger was used with {before}, and the server is {now}"


def late_lines(release: Release | None) -> timedelta:
    """How long after the end of a request one of its audit lines may come.

    Vault 1.15 and later go on writing a line after the answer or the request's end, at most 10 s for each of the two. A
    server of which it is not known counts as one of them.
    """
    if release is None:
        return _LATE
    in_time = release.product is Product.OPENBAO or (0, 0) < release.numbers < _FIRST_LATE
    return timedelta(0) if in_time else _LATE


def product_by_lines(lines: str) -> Product | None:
    """The product by lines of its audit log, where each mount that it brings along is marked as its own.

    None where no line shows one. Whoever hides a server's version from strangers does not hide it here.
    """
    found = _BUILT_IN.search(lines)
    if found is None:
        return None
    return Product.OPENBAO if found[1] == "bao" else Product.VAULT


def commands_of(product: Product | None, is_there: Callable[[str], object]) -> tuple[str, ...]:
    """Return the programs that a hint names: the product's own, but the other where only that one is installed.

    Of a product that nobody knows it is the program that is installed, and both where that tells nothing either.
    `is_there` says whether a program can be run here, as `shutil.which` does.
    """
    installed = [each.command for each in Product if is_there(each.command)]
    if product is not None and (not installed or product.command in installed):
        return (product.command,)
    return (installed[0],) if len(installed) == 1 else tuple(each.command for each in Product)


def with_commands(hint: str, commands: Sequence[str]) -> str:
    """Return the hint with each command of `bao` as one of `commands`, or of either: both take the same words."""
    return _COMMAND.sub(lambda found: " or ".join(f"`{command} {found[1]}`" for command in commands), hint)
