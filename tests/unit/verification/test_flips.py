"""Each value of a receipt, changed: what nobody signed is refused, and what the key signed is refused at its place.

Who holds the worker's token can have anything signed. A changed value that both verifiers derive again contradicts what
it is derived from, and they name its place. What they cannot derive again they call attested.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from forger import Forger, history, statement

from jitvault.errors import SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes

Keys = tuple[str | int, ...]
TASKS = ("read-orders", "fix-orders")


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
    if key in ("payload", "content", "sig"):
        data = bytearray(base64.b64decode(value))
        data[len(data) // 2] ^= 1
        return base64.b64encode(data).decode()
    # a digit, so that times, hashes and HMACs keep their form
    at = next((n for n, letter in reversed([*enumerate(value)]) if letter.isdigit()), None)
    if at is None:
        return f"{value}x"
    return value[:at] + str((int(value[at]) + 1) % 10) + value[at + 1 :]


def changed(task: str, keys: Keys) -> dict[str, Any]:
    whole = statement(task)
    place: Any = whole
    for key in keys[:-1]:
        place = place[key]
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
