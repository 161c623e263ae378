"""Each value of a receipt, changed: what nobody signed is refused, and what the key signed is refused at its place.

Who holds the worker's token can have anything signed. A changed value that both verifiers derive again contradicts what
it is derived from, and they name its place. What they cannot derive again they call attested.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forger import Forger, history, statement

from jitvault.errors import SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.verification.trust import Trust

Keys = tuple[str | int, ...]
TASKS = ("read-orders", "fix-orders", "serve-orders")


def leaves(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    """The place of each value that has none inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [leaf for key, one in inner for leaf in leaves(one, (*keys, key))]
    yield from found or [keys]


def flipped(value: Any, key: str | int) -> Any:
    """Another value of the same type, which an honest receipt could have there."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case None:
            return "x"
        case list():
            return ["x"]
        case dict():
            return {"x": "x"}
    if key in ("payload", "content", "sig", "der"):
        data = bytearray(base64.b64decode(value))
        data[len(data) // 2] ^= 1
        return base64.b64encode(data).decode()
    # a digit, so that times, hashes and HMACs keep their form
    at = next((n for n, letter in reversed([*enumerate(value)]) if letter.isdigit()), None)
    if at is None:
        return f"{value}x"
    return value[:at] + str((int(value[at]) + 1) % 10) + value[at + 1 :]


def value_at(whole: Any, keys: Keys) -> Any:
    for key in keys:
        whole = whole[key]
    return whole


def changed(task: str, keys: Keys) -> dict[str, Any]:
    whole = statement(task)
    place = value_at(whole, keys[:-1])
    place[keys[-1]] = flipped(place[keys[-1]], keys[-1])
    return whole


def pointer(keys: Keys) -> str:
    return "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)


def is_at(place: str, flip: str) -> bool:
    """Whether a place names the flipped value, an object around it, or what its kind asks for instead."""
    kind = flip.removesuffix("/kind")
    around = place == flip or (place.count("/") > 1 and flip.startswith(f"{place}/"))
    return around or place.startswith(f"{flip}/") or (kind != flip and place.startswith(f"{kind}/"))


def verdict(forger: Forger, task: str, whole: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether the verifier refuses a statement, and the places that it names: of what is refused, or attested."""
    data = json.dumps(forger.envelope(canonical_bytes(whole))).encode()
    told = history() if task == "read-orders" else None
    try:
        outcome = forger.verify(data, forger.log(), told=told).outcome
    except SecurityFinding as error:
        return True, [str(error).partition(", at ")[2].partition(":")[0]]
    if outcome.problems:
        return True, [place for problem in outcome.problems for place in problem.places]
    return False, outcome.attested


FLIPS = [(task, keys) for task in TASKS for keys in leaves(statement(task))]


def test_each_value_that_the_key_signed_is_refused_at_its_place_or_called_attested(forger: Forger) -> None:
    unseen = []
    for task, keys in FLIPS:
        refused, places = verdict(forger, task, changed(task, keys))
        if not any(is_at(place, pointer(keys)) for place in places):
            unseen.append((task, pointer(keys), refused, places if refused else []))
    assert unseen == []


def test_the_script_that_shares_nothing_refuses_and_attests_the_same_places(forger: Forger) -> None:
    unseen = []
    for task, keys in FLIPS:
        data = json.dumps(forger.envelope(canonical_bytes(changed(task, keys)))).encode()
        code, said = forger.run(data, forger.log())
        wanted = "WRONG " if code == 1 else "ATTESTED "
        lines = [line.strip() for line in said.splitlines() if line.strip().startswith(wanted)]
        places = [place for line in lines for place in line.removeprefix(wanted).strip().partition(": ")[0].split(", ")]
        if not any(is_at(place, pointer(keys)) for place in places):
            unseen.append((task, pointer(keys), code, places if code == 1 else []))
    assert unseen == []


def test_each_value_that_nobody_signed_fails_at_the_signature(forger: Forger) -> None:
    for task, keys in FLIPS:
        honest = json.loads(forger.receipt(task=task))
        payload = base64.b64encode(canonical_bytes(changed(task, keys))).decode()
        data = json.dumps({**honest, "payload": payload}).encode()
        with pytest.raises(SecurityFinding, match="the signature does not hold"):
            forger.verify(data)
        code, said = forger.run(data, forger.log())
        assert code == 1 and said == "this is NOT a receipt that Vault's key signed\n", pointer(keys)


@pytest.mark.parametrize("task", TASKS)
def test_both_verifiers_attest_the_same_places(forger: Forger, task: str) -> None:
    """Without the history, which the script does not take."""
    _, said = forger.run(forger.receipt(task=task), forger.log())
    printed = {line.split()[1] for line in said.splitlines() if "ATTESTED" in line}
    assert printed == {*forger.verify(forger.receipt(task=task), forger.log()).outcome.attested}


ROW = re.compile(r"^\| `(/[^`]*)` \| .* \| (\w+) \|$", re.MULTILINE)
EVIDENCE = re.compile(r"^\| `(\w+)`(?:: ([^|]*))? \| [^|]* \| (\w+) \|$", re.MULTILINE)
PAGE = (Path(__file__).parents[3] / "docs" / "receipt.md").read_text()


def documented(task: str, keys: Keys) -> str:
    """The basis that docs/receipt.md gives a value."""
    place = pointer(keys)
    if "/evidence/" in place:
        around = value_at(statement(task), keys[: keys.index("evidence") + 1])
        name = str(keys[keys.index("evidence") + 1])
        rows = [row for row in EVIDENCE.findall(PAGE) if row[0] == around["kind"]]
        found = [basis for _, fields, basis in rows if f"`{name}`" in fields]
        return found[0] if found else "rederived"
    rows = [(row.split("/"), basis) for row, basis in ROW.findall(PAGE)]
    fits = [row for row in rows if all(a in ("*", b) for a, b in zip(row[0], place.split("/"), strict=False))]
    fits = [row for row in fits if len(row[0]) <= len(place.split("/"))]
    assert fits, f"docs/receipt.md says nothing of {place}"
    return max(fits, key=lambda row: (len(row[0]), -row[0].count("*")))[1]


@pytest.mark.parametrize("task", TASKS)
def test_the_page_gives_each_field_the_basis_that_the_verifier_gives_it(forger: Forger, task: str) -> None:
    receipt = forger.receipt(task=task)
    told = history() if task == "read-orders" else None
    everything = forger.verify(receipt, forger.log(), told=told).outcome.attested
    nothing = forger.verify(receipt, trust=Trust()).outcome.attested
    for keys in leaves(statement(task)):
        if value_at(statement(task), keys) in ([], {}, None):
            # of nothing there is nothing to derive
            continue
        basis = documented(task, keys)
        attested = [any(f"{pointer(keys)}/".startswith(f"{one}/") for one in found) for found in (everything, nothing)]
        without_history = basis == "history" and told is None
        wanted = [basis == "attested" or without_history, basis != "rederived"]
        assert attested == wanted, (pointer(keys), basis, attested)
