"""`jitvault findings list|close`: every finding has a number, and also one of no task can be closed, with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from commands import Result, at_terminal
from rig import Rig

Spec = Callable[..., Path]
SLOW = (
    "the clock of the host worker-1 was 41 s behind Vault's, and nothing was granted or confirmed until somebody "
    "set it right by hand"
)


@pytest.fixture
def rig(rig: Rig, in_this_process: None) -> Rig:
    """A ledger with two findings of no task, one of them about what an entity wrote."""
    rig("operator", "audit", "status")
    with rig.ledger() as ledger:
        ledger.finding(None, "wrong_clock", SLOW, datetime.now(UTC))
        ledger.finding(None, "forged_document", "nobody signed it", datetime.now(UTC), author=rig.entity("operator"))
    return rig


def listed(rig: Rig, *options: str) -> dict[str, int]:
    found = rig("auditor", "findings", "list", *options).json["findings"]
    return {finding["rule"]: finding["id"] for finding in found}


def test_a_finding_of_no_task_is_listed_and_closed_by_its_number(rig: Rig) -> None:
    number = listed(rig)["wrong_clock"]
    assert "findings close NUMBER" in doctors_word(rig)
    close = ("findings", "close", str(number), "--reason", "The clock was set.")
    whose = {"by": "operator", "by_entity": rig.entity("operator")}
    assert rig("operator", *close).json == {
        **{"agent": None, "findings": [number], "rules": [], "closed": 1, "reason": "The clock was set."},
        **whose,
    }
    assert set(listed(rig)) == {"forged_document"}
    (closed,) = (f for f in rig("auditor", "findings", "list", "--all").json["findings"] if f["id"] == number)
    assert closed["closed_why"] == "The clock was set." and closed["closed_at"] and closed["task_id"] is None
    assert (closed["closed_by"], closed["closed_by_entity"]) == ("operator", rig.entity("operator"))
    shown = rig.cli("auditor", "findings", "list", "--all").stdout
    assert f"by operator (entity {rig.entity('operator')}): The clock was set.\n" in shown
    assert f"finding {number} is closed already" in rig("operator", *close, code=9).error["message"]
    assert rig.rows("SELECT closed_why FROM findings WHERE id = ?", number) == [("The clock was set.",)]


def doctors_word(rig: Rig) -> str:
    (check,) = (c for c in rig("admin", "doctor", code=None).json["checks"] if c["name"] == "findings")
    return str(check["mend"])


def test_the_rules_of_a_close_hold_for_every_finding(rig: Rig) -> None:
    before = listed(rig)
    number = str(before["wrong_clock"])
    nobody = rig.cli("operator", "findings", "close", number, "--reason", "x", code=2, worker=False)
    assert "this needs the worker's identity" in nobody.stderr
    assert "expected a reason" in rig("operator", "findings", "close", number, "--reason", "", code=8).error["message"]
    # all of the named ones or none
    missing = rig("operator", "findings", "close", number, "999999", "--reason", "x", code=9).error
    assert missing["message"] == "there is no finding 999999" and "findings list --all" in missing["hint"]
    for neither in ((), (number, "--agent", "research-agent"), (number, "--rule", "wrong_clock")):
        assert (
            "one of numbers, --rule RULE and --agent"
            in rig("operator", "findings", "close", *neither, "--reason", "x", code=2).error["message"]
        )
    misspelt = rig("operator", "findings", "close", "--rule", "wrong_clok", "--reason", "x", code=9).error["message"]
    assert "did you mean wrong_clock" in misspelt
    assert listed(rig) == before


def test_findings_are_listed_of_one_task_and_of_one_agent(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig("operator", "grant", file)
    with rig.ledger() as ledger:
        ledger.finding(file.stem, "denied", "a denied request", datetime.now(UTC))
    assert set(listed(rig)) == {"wrong_clock", "forged_document", "denied"}
    assert set(listed(rig, "--task", file.stem)) == {"denied"}
    assert set(listed(rig, "--agent", "research-agent")) == {"denied"}
    assert set(listed(rig, "--agent", rig.entity("operator"))) == {"forged_document"}
    rows = {row["rule"]: row for row in rig("auditor", "findings", "list").json["findings"]}
    assert (rows["denied"]["agent_name"], rows["wrong_clock"]["agent_name"]) == ("research-agent", None)
    assert rows["forged_document"]["author_name"] == "operator"
    printed = rig.cli("auditor", "findings", "list").stdout
    assert f"denied, task {file.stem} of research-agent, 20" in printed
    assert f"by entity {rig.entity('operator')} (operator)\n" in printed
    shown = rig("operator", "status", file.stem, code=12)
    # what was typed is no next step
    assert "findings list --task" in shown.error["hint"] and "jitvault status" not in shown.error["hint"]
    assert shown.json["findings"][0]["closed"] is None
    rig("operator", "findings", "close", "--agent", "research-agent", "--reason", "It was a try.")
    # who looks at the task later sees that somebody looked into it
    later = rig("operator", "status", file.stem)
    assert {**later.json["findings"][0]["closed"], "at": ""} == {"at": "", "by": "operator", "why": "It was a try."}
    told = rig.cli("operator", "status", file.stem).stdout
    assert re.search(r"denied; closed 20\S+ \S+ UTC by operator: It was a try\.", told), told
    assert "denied" not in listed(rig)


def test_without_a_token_of_ones_own_the_closer_is_the_workers_identity(rig: Rig) -> None:
    number = listed(rig)["wrong_clock"]
    close = ("findings", "close", str(number), "--reason", "The clock was set.")
    assert "by worker" in rig.cli(None, *close, worker=True).stdout
    (closed,) = (f for f in rig("auditor", "findings", "list", "--all").json["findings"] if f["id"] == number)
    assert (closed["closed_by"], closed["closed_by_entity"]) == ("worker", rig.entity("worker"))


def test_an_auditor_names_an_agent_without_the_workers_identity(rig: Rig, spec: Spec) -> None:
    """A name that could not be looked up must not look like an agent without findings."""
    file = spec()
    rig("operator", "grant", file)
    with rig.ledger() as ledger:
        ledger.finding(file.stem, "denied", "a denied request", datetime.now(UTC))
    place = {"JITVAULT_LEDGER": rig.cli.variables["JITVAULT_LEDGER"]}

    def found(who: str, *options: str, code: int = 0) -> Result:
        return rig.cli("auditor", "findings", "list", "--agent", who, *options, code=code, worker=False, extra=place)

    for who in ("research-agent", "Research-Agent", rig.entity("research-agent")):
        assert "denied, task" in found(who).stdout
    unknown = found("reserch-agent", code=9)
    assert "no task names 'reserch-agent'" in unknown.stderr and "research-agent" in unknown.stderr
    rig("operator", "findings", "close", "--agent", "research-agent", "--reason", "It was a try.")
    none = found("research-agent")
    assert none.stdout == "There is no open finding.\n" and none.stderr.startswith("1 closed one: ")
    assert "by operator (entity " in found("research-agent", "--all").stdout


def test_a_long_finding_is_folded_on_a_terminal_and_whole_in_a_pipe(rig: Rig) -> None:
    width = 80
    piped = rig.cli("auditor", "findings", "list", extra={"COLUMNS": str(width)}).stdout.splitlines()
    number = listed(rig)["wrong_clock"]
    assert piped[0].startswith(f"{number:>4}  wrong_clock, no task, 20") and piped[1] == f"      {SLOW}"
    assert f"      by entity {rig.entity('operator')}" in piped
    shown = at_terminal(rig.cli, "auditor", "findings", "list", width=width).stdout.splitlines()
    assert all(len(line) <= width for line in shown) and len(shown) > len(piped)
