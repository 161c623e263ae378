"""Vault's PKI secrets engine, with the proof from CRL and OCSP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jitvault.engines.interface import Engine, Limits, Read, Upkeep
from jitvault.engines.pki import config
from jitvault.engines.pki.probe import PkiProbe
from jitvault.engines.pki.trial import PkiTrial
from jitvault.model.template import TemplateBody
from jitvault.model.vault_access import Capability


class PkiEngine(Engine):
    """The engine of `pki/` mounts."""

    name = "pki"
    capability: Capability = "update"
    probe = PkiProbe()
    trial = PkiTrial()

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        return config.snapshot(read, mount, path)

    def check_template(self, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:
        config.check_template(spec, snapshot)

    def limits(self, spec: TemplateBody) -> Limits | None:
        return config.limits(spec)

    def upkeep(self, read: Read, mount: str) -> Upkeep | None:
        return config.upkeep(read, mount)

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        return config.worker_paths(mount, path)
