"""What the tests make of OpenBao's lines is what HashiCorp Vault writes: held against the recorded lines of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaults_form import VaultsForm

HERE = Path(__file__).parent / "recorded"
# OpenBao refuses to enable a device by API
OTHERWISE = "audit device enabled"


def lines(server: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for request in map(json.loads, (HERE / f"{server}.jsonl").read_text().splitlines()):
        if request["case"] != OTHERWISE:
            for n, line in enumerate(request["lines"]):
                yield f"{request['case']} {n}", line


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What stands where, without what is empty."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in pairs:
            yield from leaves(one, f"{path}.{key}")
    else:
        yield path, value


def rewritten(form: VaultsForm, line: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(form(json.dumps(line).encode())))


def is_hash(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("hmac-sha256:")


def test_a_rewritten_line_has_the_keys_and_hashes_of_vaults_own() -> None:
    form = VaultsForm()
    for (where, ours), (_, theirs) in zip(lines("openbao-2.7.2"), lines("vault-1.14.9"), strict=True):
        mine, other = (dict(leaves(line)) for line in (rewritten(form, ours), theirs))
        assert mine.keys() == other.keys(), where
        assert {key for key in mine if is_hash(mine[key])} == {key for key in other if is_hash(other[key])}, where


def test_two_hashes_are_the_same_where_they_are_on_vault_and_nowhere_else() -> None:
    form, there, back = VaultsForm(), dict[str, str](), dict[str, str]()
    for (where, ours), (_, theirs) in zip(lines("openbao-2.7.2"), lines("vault-1.14.9"), strict=True):
        other = dict(leaves(theirs))
        for key, mine in leaves(rewritten(form, ours)):
            if is_hash(mine):
                assert there.setdefault(mine, other[key]) == other[key], (where, key)
                assert back.setdefault(other[key], mine) == mine, (where, key)


def test_keys_are_in_alphabetical_order_and_an_empty_auth_is_left_out() -> None:
    raw = b'{"time":"2030-01-01T00:00:00Z","type":"request","auth":{},"request":{"path":"sys/seal","id":"x"}}\n'
    assert (
        VaultsForm()(raw)
        == b'{"request":{"id":"x","path":"sys/seal"},"time":"2030-01-01T00:00:00Z","type":"request"}\n'
    )
