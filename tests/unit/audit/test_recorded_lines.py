"""What two real servers wrote for the same requests: who a line is about is found in both, by the same rule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jitvault.audit.decoding.decoder import decode
from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import derived_tokens, owning_token
from jitvault.lifecycle.confirmation.hazards import hazardous_acts

RECORDED = Path(__file__).parents[2] / "data" / "audit-lines"
POLICY = "jitvault-access-0123456789abcdef"


@pytest.fixture(params=["openbao-2.7.2", "vault-1.14.9"])
def recorded(request: pytest.FixtureRequest) -> list[tuple[str, Mapping[str, Any], list[Observation]]]:
    """Each request in its order: what it was, the answer's own facts and the observations in its lines.

    The agent's token holds an access policy of ours, as a task's does.
    """
    found = []
    for n, text in enumerate((RECORDED / f"{request.param}.jsonl").read_text().splitlines()):
        ours = text.replace('"agent"', f'"{POLICY}"').replace("auth/token/create/jit", "auth/token/create/jitvault-15m")
        case = json.loads(ours)
        lines = [json.dumps(line).encode() + b"\n" for line in case["lines"]]
        seen = [decode(line, Place("audit", 1, 1000 * n + at)) for at, line in enumerate(lines)]
        found.append((str(case["case"]), case, [o for o in seen if o is not None]))
    return found


def test_a_wrapped_read_leads_to_its_lease_but_as_a_jwt_in_the_body(recorded: Any) -> None:
    stands_for = derived_tokens([o for _, _, lines in recorded for o in lines])
    (agent,) = {o.actor for case, _, lines in recorded if case == "lease read" for o in lines}
    owners = {
        case: owning_token(o, stands_for)
        for case, _, lines in recorded
        for o in lines
        if o.kind is Kind.LEASE_ISSUED and o.path == "sys/wrapping/unwrap"
    }
    assert owners == {
        "lease unwrapped by header": agent,
        "lease unwrapped by body": agent,
        "lease jwt unwrapped by header": agent,
        "lease jwt unwrapped by body": "",
    }


def test_an_audit_device_that_is_enabled_beside_is_told_from_what_makes_an_end_look_done(recorded: Any) -> None:
    """The request of OpenBao was refused: it takes devices from its configuration alone."""
    (lines,) = (lines for case, _, lines in recorded if case == "audit device enabled")
    assert [(o.kind, o.detail.get("enables"), o.closing) for o in lines] == [
        (Kind.HAZARD, True, False),
        (Kind.HAZARD, True, True),
    ]
    assert list(hazardous_acts(lines)) == []
    # and each of them alone may be that of a device that is made anew
    assert [list(hazardous_acts([one])) for one in lines] == [[one] for one in lines]


def test_a_wrapped_read_shows_in_both_of_its_lines(recorded: Any) -> None:
    wrapped = [(case, [o.detail.get("wrapped") for o in lines]) for case, _, lines in recorded if "lease read" in case]
    assert [said for _, said in wrapped] == [[None, None], *[[True, True]] * 4]


def test_a_line_that_has_an_accessor_names_the_token_in_the_form_that_was_given_out(recorded: Any) -> None:
    """So the accessor of a wrapping, where a line has it, says nothing that its token does not say."""
    given = {case["hashes"].get("wrapping_accessor"): case["hashes"].get("wrapping_token") for _, case, _ in recorded}
    by_header = [
        (o, given[o.actor])
        for _, case, lines in recorded
        for o in lines
        if o.actor in given and not case["hashes"].get("named_token") and o.token
    ]
    assert len(by_header) >= 5
    for o, token in by_header:
        assert o.token == token


def test_the_renewal_of_a_lease_names_it_in_its_answer(recorded: Any) -> None:
    (answers,) = [lines for case, _, lines in recorded if case == "lease renewed"]
    asked, answer = answers
    assert (asked.kind, asked.subject[:4], answer.kind) == (Kind.RENEWED, "hmac", Kind.RENEWED)
    assert answer.subject.startswith("database/creds/app/")
