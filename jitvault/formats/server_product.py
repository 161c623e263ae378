"""Which of the two servers is in use: OpenBao or HashiCorp Vault.

They share the API. Where they differ, code asks for the product and not for a version number, which says nothing
alone: OpenBao 2.x is younger than Vault 1.x.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

_VERSION_OUTPUT = re.compile(r"(OpenBao|Vault) v(\d{1,9}\.\d{1,9}\.\d{1,9}\S{0,100})")
# one of `bao` that names that of `vault` as well is in other words already
_COMMAND = re.compile(r"`bao ([^`]*)`(?! or `vault)")
_BUILT_IN = re.compile(r'"mount_running_version":"v[^"+]{1,40}\+builtin\.(bao|vault)"')
_FIRST_LATE = (1, 15)
_LATE = timedelta(seconds=20)
_NUMBERS = re.compile(r"(\d+)\.(\d+)")


class Product(StrEnum):
    """The product; the values are what people call it."""

    OPENBAO = "OpenBao"
    VAULT = "HashiCorp Vault"

    @property
    def command(self) -> str:
        """The name of the product's program."""
        return "bao" if self is Product.OPENBAO else "vault"


@dataclass(frozen=True, slots=True)
class Release:
    """One product in one version, without the `v`: `2.7.2`, `1.18.3+ent`."""

    product: Product
    version: str
    enterprise: bool = False
    """Whether this is the paid edition of Vault."""
    is_replica: bool = False
    """Whether the cluster takes part in performance replication: a log of one cluster lacks writes of others."""

    def __str__(self) -> str:
        return f"{self.product} {self.version}"

    @property
    def has_namespaces(self) -> bool:
        """Whether the server has namespaces.

        A server without them silently uses its root for every namespace that is named.
        """
        return self.product is Product.OPENBAO or self.enterprise

    @property
    def numbers(self) -> tuple[int, int]:
        """Major and minor number; (0, 0) if the version does not begin with them."""
        found = _NUMBERS.match(self.version)
        return (int(found[1]), int(found[2])) if found else (0, 0)


def release_of_program(output: str) -> Release | None:
    """Return the release that a program's `version` command printed.

    The result is None if it is neither of the two products.
    """
    found = _VERSION_OUTPUT.match(output)
    if found is None:
        return None
    return Release(Product.OPENBAO if found[1] == "OpenBao" else Product.VAULT, found[2])


def product_of(health: Mapping[str, Any], seal_status: Mapping[str, Any]) -> Product | None:
    """Return the product by what Vault's status endpoints show, or None.

    Those are `sys/health` and `sys/seal-status`, which everyone may read. The result is None if neither a key nor
    the version shows it. Measured on OpenBao 2.7 and Vault 1.14; for other versions by their source: OpenBao has
    `commit_date` since 2.6, Vault has `enterprise` since 1.17, and no Vault from before that has a version from 2.0
    on, as every OpenBao has.
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
    """Return product and version, or None if the product is unknown.

    The version is empty if it is hidden.
    """
    product = product_of(health, seal_status)
    if product is None:
        return None
    # OpenBao has no such replication, and calls an active node with raft storage a primary
    mode = health.get("replication_performance_mode")
    is_replica = mode in ("primary", "secondary", "bootstrapping") and product is Product.VAULT
    return Release(product, str(health.get("version") or ""), is_enterprise(health), is_replica)


def is_enterprise(health: Mapping[str, Any]) -> bool:
    """Return whether `sys/health` is that of Vault Enterprise.

    Since 1.17 a key shows that, and the version always does.
    """
    return bool(health.get("enterprise")) or "+ent" in str(health.get("version") or "")


def without_namespaces(variable: str, namespace: str) -> str:
    """Return the message about a namespace on a Vault that has none.

    `variable` is the variable that names the namespace.
    """
    return (
        f"{variable} is {namespace!r:.80}, and this Vault has no namespaces: only its Enterprise edition and OpenBao "
        "have, and this one takes the root for it"
    )


def another_server(before: Product | None, now: Product | None) -> str:
    """Return the message about a ledger of the other product, or "".

    Such a ledger was used with one product, and the other one answers.
    """
    if before is None or now is None or before is now:
        return ""
    return f"this ledger was used with {before}, and the server is {now}"


def late_lines(release: Release | None) -> timedelta:
    """Return how long after a request's end an audit line may come.

    Vault 1.15 and later may write a line after the answer or the request's end, at most 10 s for each of the two.
    An unknown server counts as one of those.
    """
    if release is None:
        return _LATE
    in_time = release.product is Product.OPENBAO or (0, 0) < release.numbers < _FIRST_LATE
    return timedelta(0) if in_time else _LATE


def product_by_lines(lines: str) -> Product | None:
    """Return the product by lines of its audit log, or None.

    The lines mark each mount that the product brings along as its own. A server that hides its version from
    strangers does not hide it here.
    """
    found = _BUILT_IN.search(lines)
    if found is None:
        return None
    return Product.OPENBAO if found[1] == "bao" else Product.VAULT


def commands_of(product: Product | None, is_there: Callable[[str], object]) -> tuple[str, ...]:
    """Return the programs that a hint names.

    That is the product's own program, or the other if only that one is installed. For an unknown product it is the
    program that is installed, and both if that decides nothing either. `is_there` says whether a program can be run
    here, as `shutil.which` does.
    """
    installed = [each.command for each in Product if is_there(each.command)]
    if product is not None and (not installed or product.command in installed):
        return (product.command,)
    return (installed[0],) if len(installed) == 1 else tuple(each.command for each in Product)


def with_commands(hint: str, commands: Sequence[str]) -> str:
    """Return the hint with each command of `bao` as a command of `commands`.

    Several are joined by "or". Both programs take equal arguments.
    """
    return _COMMAND.sub(lambda found: " or ".join(f"`{command} {found[1]}`" for command in commands), hint)
