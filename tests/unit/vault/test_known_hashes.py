"""Which HMACs of the audit device are remembered, and when none is any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from jitvault.vault import transit
from jitvault.vault.client import Connection, Vault
from jitvault.vault.transit import AuditHash, KnownHashes


class Device(Vault):
    """Answers with an HMAC of its present salt."""

    def __init__(self) -> None:
        super().__init__(Connection("http://127.0.0.1:1"), None)
        self.salt = 1
        self.asked: list[str] = []

    def ask(self, path: str, body: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        value = body["input"]
        self.asked.append(value)
        made = {"hash": f"hmac-sha256:{self.salt}:{value}"}
        if value == "slow":
            # the device is made anew before the answer arrives, and another thread notices that
            self.salt += 1
            self.hashes.forget()
        return made

    hashes = KnownHashes()


@pytest.fixture
def device() -> Device:
    found = Device()
    found.hashes = KnownHashes()
    return found


def test_threads_share_what_is_remembered_and_nothing_of_what_is_only_hashed(device: Device) -> None:
    one, another = (AuditHash(device, "d", device.hashes) for _ in range(2))
    assert one.remembered("900s") == another.remembered("900s") == "hmac-sha256:1:900s"
    assert device.asked == ["900s"]
    one.hash("a token")
    another.hash("a token")
    assert device.asked[1:] == ["a token"] * 2
    assert "a token" not in device.hashes.by_value


def test_what_is_forgotten_is_made_with_the_new_salt(device: Device) -> None:
    hasher = AuditHash(device, "d", device.hashes)
    hasher.remembered("900s")
    device.salt = 2
    device.hashes.forget()
    assert AuditHash(device, "d", device.hashes).remembered("900s") == "hmac-sha256:2:900s"


def test_an_hmac_that_was_under_way_when_all_were_forgotten_is_not_kept(device: Device) -> None:
    hasher = AuditHash(device, "d", device.hashes)
    assert hasher.remembered("slow") == "hmac-sha256:1:slow"
    assert device.hashes.by_value == {}


def test_a_new_segment_of_a_source_that_was_read_before_has_all_forgotten(device: Device) -> None:
    hasher = AuditHash(device, "d", device.hashes)
    hasher.forget_at("audit", 1)
    hasher.remembered("900s")
    hasher.forget_at("audit", 1)
    hasher.forget_at("another", 7)
    assert device.hashes.by_value
    hasher.forget_at("audit", 2)
    assert not device.hashes.by_value


def test_only_so_many_are_remembered(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transit, "_MOST_KNOWN", 3)
    hasher = AuditHash(device, "d", device.hashes)
    for n in range(10):
        hasher.remembered(str(n))
    assert len(device.hashes.by_value) <= 3
