"""The sandbox server's configuration file and its audit devices.

The forms are those of OpenBao and of HashiCorp Vault. OpenBao reads audit devices only from this file, Vault creates
them only by its API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jitvault.formats.server_product import Product

MAX_REQUEST_BYTES = 1024 * 1024  # docs/vault-facts.md, audit devices: lines can be huge


@dataclass(frozen=True, slots=True)
class AuditDevice:
    """One audit device: its kind (`file`, `socket`, …), name and options.

    All options are strings.
    """

    kind: str
    name: str
    options: Mapping[str, str]

    @property
    def block(self) -> str:
        """The device's block in OpenBao's configuration.

        It requires each option on a line of its own.
        """
        lines = "".join(f"    {name} = {quoted(value)}\n" for name, value in self.options.items())
        return f"audit {quoted(self.kind)} {quoted(self.name)} {{\n  options {{\n{lines}  }}\n}}\n"

    @property
    def body(self) -> dict[str, Any]:
        """The body of `PUT sys/audit/<name>`."""
        return {"type": self.kind, "options": dict(self.options)}


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of a server, each `HOST:PORT`.

    One is for requests, one for the other nodes of a cluster.
    """

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
    """Return the text of the file; `storage` is its storage block.

    Vault's seal and its devices are not in the file.
    """
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


# locking memory takes a right that a user of the sandbox seldom has, and nothing secret outlives a sandbox
_OF_VAULT = "disable_mlock = true\n"


def _of_openbao(key_file: Path, devices: Sequence[AuditDevice]) -> str:
    seal = f'seal "static" {{\n  current_key_id = "sandbox"\n  current_key = {quoted(f"file://{key_file}")}\n}}\n'
    return seal + "".join(device.block for device in devices)


def quoted(value: Path | str) -> str:
    """Return `value` as an HCL string."""
    return json.dumps(str(value), ensure_ascii=False)
