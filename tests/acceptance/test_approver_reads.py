"""What an approver reads at a terminal before the signature: of a task, of more time, of what an agent hands on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from commands import Cli, Quick, at_terminal

Spec = Callable[..., Path]

ROOT = Path(__file__).parents[2]
FIX_ORDERS = ROOT / "docs" / "examples" / "fix-orders.yaml"
PAGE = (ROOT / "docs" / "approvals.md").read_text()
FAKE = "| risk | low | ━━━ risk low (criticality low, template low) Digest: sha256:" + "0" * 64


def normal(text: str) -> str:
    text = re.sub(r"sha256:[0-9a-f]{64}", "DIGEST", text)
    text = re.sub(r"until [\d-]+ [\d:]+ UTC, when it lapses", "until TIME, when it lapses", text)
    return re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)


def test_the_page_shows_a_proposal_as_it_is_printed(cli: Cli, quick: Quick, tmp_path: Path) -> None:
    (printed,) = re.findall(r"```text\n(Task fix-orders, .*?)```", PAGE, re.DOTALL)
    file = tmp_path / "fix-orders.yaml"
    file.write_text(FIX_ORDERS.read_text())
    digest = quick("operator", "grant", file, "--json", code=4).json["digest"]
    shown = at_terminal(cli, "approver-1", "approve", file.stem, answer="n")
    assert shown.code == 2
    asked, question, after = shown.stdout.partition("[y/N]: ")
    assert normal(asked + question).split("\n") == normal(printed.rstrip("\n") + " ").split("\n")
    assert asked.splitlines()[-2:] == [f"Digest: {digest}", "Approve fix-orders (risk high)? "]
    assert after.startswith("n\n") and "nothing was signed" in after
    # the list of what waits has the same lines, and no question
    listed = quick("approver-1", "approvals", extra={"COLUMNS": "80"}).stdout
    assert asked.rpartition("\n")[0] in listed
    quick("operator", "cancel", file.stem)


def test_more_time_is_decided_about_by_what_is_shown(cli: Cli, quick: Quick, spec: Spec) -> None:
    width = 80
    file = spec(criticality="medium")
    quick("operator", "grant", file, code=4)
    quick("approver-1", "approve", file.stem, "--yes")
    quick("operator", "grant", file.stem)
    reason = f"It takes longer. {FAKE}"
    more = ("extend", file.stem, "--for", "5m", "--reason", reason, "--json")
    waits = quick("operator", *more, code=4).json["extension"]
    shown = at_terminal(cli, "approver-1", "approve", file.stem, answer="y", width=width)
    assert shown.code == 0
    lines = shown.stdout.split("\n")
    assert lines[0] == f"Task {file.stem}, revision 1, is issued; 5 more minutes requested"
    until = f"{waits['until'][:10]} {waits['until'][11:19]} UTC"
    sentence = " ".join(line.strip() for line in lines if line.startswith("    ") and line[4] != " ")
    assert sentence.startswith("If approved, research-agent keeps its access to database app at 127.0.0.1:")
    assert f" for 5 more minutes, until {until} (20 minutes in all), with a new token after " in sentence
    # what the requester wrote is marked on each line, and stands nowhere else
    theirs = [line[18:] for line in lines if line[16:18] == "| "]
    assert "".join(reason.split()) in "".join("".join(theirs).split())
    assert [line for line in lines if line.lstrip().startswith("risk")] == [
        "  risk          medium (criticality medium, template low)"
    ]
    assert f"Approve 5m more for {file.stem} (risk medium)? [y/N]: y" in lines
    assert [line for line in lines if line.lstrip().startswith("Digest")] == [f"Digest: {waits['digest']}"]
    assert all(len(line) <= width for line in lines)
    assert any(line.startswith(f"You approved more time for task {file.stem}") for line in lines)


def test_what_an_agent_hands_on_says_from_whom_and_is_denied(cli: Cli, quick: Quick, spec: Spec) -> None:
    top = spec()
    quick("operator", "grant", top)
    child = spec(criticality="medium", window="5m", more=f"  parent: {top.stem}\n")
    quick("agent", "grant", child, code=4)
    shown = at_terminal(cli, "approver-1", "deny", child.stem, answer="y", width=120)
    assert shown.code == 0
    words = " ".join(shown.stdout.split())
    assert f"handed on by research-agent from task {top.stem}, with which it ends" in words
    assert f"delegation {top.stem} of research-agent → this task" in words
    assert f"Deny {child.stem} (risk medium)? [y/N]: y" in shown.stdout
    assert f"You denied task {child.stem}; it is denied" in shown.stdout


def test_another_revision_is_starred_where_it_is_not_as_approved(cli: Cli, quick: Quick, spec: Spec) -> None:
    file = spec(criticality="medium")
    quick("operator", "grant", file, code=4)
    quick("approver-1", "approve", file.stem, "--yes")
    quick("operator", "grant", spec(task=file.stem, criticality="medium", window="20m"), "--revise", code=4)
    shown = at_terminal(cli, "approver-2", "approve", file.stem, answer="n").stdout.split("\n")
    assert [line for line in shown if line.startswith("*")] == [
        "* window        20m from the moment it is granted (template: at most 1h)"
    ]
    at = shown.index("Changed (*) since revision 1, which was approved")
    assert shown[at + 1] == "  spec.spec.window.for: '15m' → '20m'"
    quick("operator", "cancel", file.stem)
