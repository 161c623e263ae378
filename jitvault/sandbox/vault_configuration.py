"""The configuration file of the sandbox's OpenBao or HashiCorp Vault, and its audit devices in either's form.

OpenBao takes audit devices from this file alone, Vault from its API alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jitvault.formats.product import Product

MAX_REQUEST_BYTES = 1024 * 1024  # docs/vault-facts.md, audit devices: lines can be huge


@dataclass(frozen=True, slots=True)
class AuditDevice:
    """One audit device: its kind (`file`, `socket`, …), its name, and its options, all of them strings."""

    kind: str
    name: str
    options: Mapping[str, str]

    @property
    def block(self) -> str:
        """The device in OpenBao's configuration. The block wants its options on their own lines."""
        lines = "".join(f"    {name} = {quoted(value)}\n" for name, value in self.options.items())
        return f"audit {quoted(self.kind)} {quoted(self.name)} {{\n  options {{\n{lines}  }}\n}}\n"

    @property
    def body(self) -> dict[str, Any]:
        """What `PUT sys/audit/<name>` takes."""
        return {"type": self.kind, "options": dict(self.options)}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server listens: `HOST:PORT` for requests, and for the other nodes of a cluster."""

    requests: str
    cluster: str


def configuration(
    product: Product,
    addresses: Addresses,
    *,
    storage: str,
    max_request_milliseconds: int,
    key_file: Path,
    devices: Sequence[AuditDevice],
) -> str:
    """The text of the file; `storage` is its storage block. Vault's own seal and its devices are no part of it."""
    return f"""\
ui = false
api_addr = "http://{addresses.requests}"
cluster_addr = "http://{addresses.cluster}"
default_max_request_duration = "{max_request_milliseconds}ms"
{storage}
listener "tcp" {{
  address = "{addresses.requests}"
  cluster_address = "{addresses.cluster}"
  tls_disable = true
  max_request_size = {MAX_REQUEST_BYTES}
}}
{_of_openbao(key_file, devices) if product is Product.OPENBAO else _OF_VAULT}"""


# to lock its memory takes a right that who tries a sandbox seldom has, and nothing secret outlives one
_OF_VAULT = "disable_mlock = true\n"


def _of_openbao(key_file: Path, devices: Sequence[AuditDevice]) -> str:
    seal = f'seal "static" {{\n  current_key_id = "sandbox"\n  current_key = {quoted(f"file://{key_file}")}\n}}\n'
    return seal + "".join(device.block for device in devices)


def quoted(value: Path | str) -> str:
    """A string of HCL."""
    return json.dumps(str(value), ensure_ascii=False)
