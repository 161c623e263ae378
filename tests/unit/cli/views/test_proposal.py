"""What an approver reads before the signature: all that is signed, and nothing that the requester made look like it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs
from terminals import HOSTILE as ANY
from terminals import PILED, widest
from test_extension import PLAIN
from test_published_task import DECISION, EXTENSION, HONEST, read
from test_revision import SPEC, TEMPLATE, replaced, resolved, revision, set_in

from jitvault.cli.views.proposal import print_proposal, proposal_lines, question
from jitvault.cli.views.proposal_sentence import sentence, word
from jitvault.documents.published_task import PublishedTask
from jitvault.lifecycle.decision.pending_approvals import ApprovalSubject, approval_subject, changes
from jitvault.model.extension import Extension
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Party

GROUPS = ("jitvault-approvers",)
CONNECTION = {"host": "app-db.example.org", "port": 5432, "database": "{database}", "tls": "verify-full"}
# a fake row, a fake digest, a colour, an override, what a table is drawn with, and text that closes the quotation
HOSTILE = (
    "x\n  risk          low\nDigest: sha256:00\r\n\x1b[2J\x1b[31m\u202etfel\u2066 │ risk │ low │ ━━ ┃\x9b2K"
    '" approved. | '
)
LONG = (HOSTILE * 60)[:4000]


def encoded(found: Revision) -> str:
    return base64.b64encode(found.body).decode()


def waiting(found: Revision | None = None, *, old: Revision | None = None, **fields: Any) -> ApprovalSubject:
    """Return what is decided about a task that waits for its approval."""
    found = found or at_database()
    published = {
        **HONEST,
        "state": "pending_approval",
        "body": encoded(found),
        "digest": found.digest,
        "approved": encoded(old) if old else None,
        "extension": None,
        **fields,
    }
    document = read(published)
    assert isinstance(document, PublishedTask)
    subject = approval_subject(document)
    assert subject is not None
    return subject


def longer(extension: Extension = PLAIN, *, replaces: bool = False) -> ApprovalSubject:
    """Return what is decided about a task that is to have more time."""
    body = {**EXTENSION, "content": extension.content, "digest": extension.digest, "replaces": replaces}
    return waiting(state="active", extension=body)


def at_database(spec: dict[str, Any] = SPEC, **changed: Any) -> Revision:
    template = set_in(TEMPLATE, "spec.connection", CONNECTION)
    return revision(spec, **{"access": [resolved(template)], **changed})


def shown(subject: ApprovalSubject, width: int = 80) -> list[str]:
    found = changes(subject.document) if subject.extension is None else None
    return [row for line in proposal_lines(subject, found, GROUPS, width) for row in line.plain.split("\n")]


def value_of(subject: ApprovalSubject, name: str) -> str:
    """Return the value of a fact, without the folds."""
    (line,) = (line for line in proposal_lines(subject, None, GROUPS, 2000) if line.plain[2:].startswith(f"{name}  "))
    return line.plain[16:]


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_a_task_is_shown_as_a_table_a_sentence_its_terms_and_its_digest() -> None:
    subject = waiting()
    expected = f"""\
Task t-1, revision 1, is pending_approval

  requester     olga
  agent         research-agent
  owner         data-owner
  access        pg-read with database=app
  risk          medium (criticality medium, template low)
  window        15m from the moment it is granted (template: at most 1h)
  network       office (10.0.0.0/8)
  approvals     0 of 1 given; missing: 1 approval by jitvault-approvers
  stands        until 2030-02-07 09:00:00 UTC, when it lapses
  you sign for  jitvault-approvers

    If approved, research-agent gets 15 minutes of access to database app at
    app-db.example.org:5432, from the moment it is granted, delivered to its own
    inbox: "Read every table".

On these terms
  rules         r-1
  credential    from database/creds/app-ro, 5 leases at most
  used at       app-db.example.org:5432, database app, TLS verify-full
  life          10m at most without a renewal
  delivery      to the agent, in a wrapping that works once
  proof         of its end by the target

In the words of olga, the requester
  intent        | Count the orders of last week.
  reason        | orders are there
  tools         | pandas, psql
  labels        | team=data

Digest: {subject.digest}"""
    assert shown(subject) == expected.split("\n")
    assert question(subject, "approve") == "Approve t-1 (risk medium)?"


def test_more_time_is_shown_with_both_deadlines_and_its_own_digest() -> None:
    subject = longer(structs.replace(PLAIN, by=Party("e-agent", "research-agent"), reason="The load is high."))
    lines = shown(subject, 120)
    assert lines[:4] == [
        "Task t-1, revision 1, is active; 10 more minutes requested",
        "",
        "  more time     until 2030-01-31 09:10:00 UTC instead of 2030-01-31 09:00:00 UTC, 25m in all",
        "  asked by      research-agent",
    ]
    assert value_of(subject, "stands") == "until 2030-01-31 09:00:00 UTC, when the task ends without it"
    assert sentence(subject) == (
        "If approved, research-agent keeps its access to database app at app-db.example.org:5432 for 10 more minutes, "
        'until 2030-01-31 09:10:00 UTC (25 minutes in all): "Read every table".'
    )
    at = lines.index("In the words of research-agent, who asks for more time")
    assert lines[at + 1] == "  reason        | The load is high."
    assert lines[-1] == f"Digest: {subject.digest}" != f"Digest: {subject.revision.digest}"
    assert question(subject, "deny") == "Deny 10m more for t-1 (risk medium)?"
    replaced = sentence(longer(replaces=True))
    assert ", with a new token after the end of its present one is proven: " in replaced


def test_a_delegated_task_says_who_hands_it_on_to_whom() -> None:
    def link(task: str, agent: str) -> dict[str, Any]:
        parties = {part: {"entity": f"e-{part}", "name": part} for part in ("requester", "owner")}
        return {"task": task, "digest": "sha256:1", "agent": {"entity": "e-1", "name": agent}, **parties}

    spec = set_in(SPEC, "spec.deliver", "requester")
    above = [link("top", "first-agent"), link("middle", "second-agent")]
    subject = waiting(at_database(spec, delegation=above, requester=Party("e-2", "second-agent")))
    assert value_of(subject, "delegation") == (
        "top of first-agent → middle of second-agent → this task, which ends with each of them"
    )
    assert sentence(subject) == (
        "If approved, research-agent gets 15 minutes of access to database app at app-db.example.org:5432, from the "
        "moment it is granted, handed on by second-agent from task middle, with which it ends, delivered through "
        'second-agent: "Read every table".'
    )


def test_several_accesses_have_their_terms_each_and_are_one_sentence() -> None:
    at_app = set_in(TEMPLATE, "spec.connection", CONNECTION)
    writes = set_in(set_in(at_app, "metadata.name", "pg-write"), "metadata.description", "Change rows.")
    spec = set_in(SPEC, "spec.access", [{"template": name, "with": {"database": "app"}} for name in ("a", "b", "c")])
    subject = waiting(revision(spec, access=[resolved(at_app), resolved(writes), resolved(database="crm")]))
    assert sentence(subject) == (
        "If approved, research-agent gets 15 minutes of access to database app at app-db.example.org:5432 by pg-read "
        "and pg-write and pg-read with database=crm by pg-read, from the moment it is granted, delivered to its own "
        "inbox."
    )
    lines = shown(subject, 120)
    at = lines.index("  access        pg-write with database=app")
    assert lines[at + 1] == '  allows        "Change rows."'


def test_a_window_with_an_end_stands_until_then() -> None:
    window = {"until": "2030-01-31T10:00:00Z", "not_before": "2030-01-31T09:30:00Z"}
    found = at_database(set_in(set_in(SPEC, "spec.window", window), "spec.network", ...), cidrs=[])
    subject = waiting(found, stands_until=window["until"])
    assert sentence(subject).startswith(
        "If approved, research-agent gets access to database app at app-db.example.org:5432 until 2030-01-31 10:00:00 "
        "UTC, not before 2030-01-31 09:30:00 UTC, delivered"
    )
    assert value_of(subject, "stands") == "until 2030-01-31 10:00:00 UTC, when its window is over"
    assert value_of(subject, "network") == "any"
    over = waiting(subject.revision, state="lapsed")
    assert value_of(over, "stands") == "no longer: its window is over"


def test_a_request_without_an_end_of_its_window_stands_until_it_lapses() -> None:
    subject = waiting(stands_until="2030-02-07T10:00:00Z")
    assert value_of(subject, "stands") == "until 2030-02-07 10:00:00 UTC, when it lapses"
    assert value_of(waiting(state="lapsed"), "stands") == "no longer: it was not granted in time"


def test_terms_that_only_some_tasks_have() -> None:
    spec = set_in(SPEC, "spec.window", {"for": "15m", "heartbeat": "2m", "ttl": "5m"})
    template = set_in(TEMPLATE, "spec.confirm", "audit")
    template = set_in(set_in(template, "spec.probe", ...), "spec.confirm_why", "Nobody can ask it.")
    access = replace(resolved(template), capability="update")
    lines = shown(waiting(revision(spec, access=[access])), 140)
    for line in (
        "  sends         exactly nothing",
        "  life          5m at most without a renewal; the requester chose it, criticality medium gives 10m "
        "(template: 10m)",
        "  heartbeat     it ends when its token does nothing for 2m",
        "  end           revoked at Vault; the target is not asked about pg-read: Nobody can ask it.",
    ):
        assert line in lines
    assert not [line for line in lines if "proof " in line or "proven" in line]


def test_no_credential_outlives_a_short_window() -> None:
    spec = set_in(SPEC, "spec.window", {"for": "5m"})
    assert value_of(waiting(revision(spec)), "life") == "5m at most, as long as its window"


def test_an_approver_reads_for_how_long_others_may_go_on_accepting() -> None:
    found = at_database()
    bounded = replaced(found, access=[structs.replace(found.access[0], accepted_after_end_s=300)])
    assert "for 5m after its end" in value_of(waiting(bounded), "after it")


@pytest.mark.parametrize(
    ("decided", "missing", "said"),
    [
        ({"permitted": False}, [], "policy denies it, whoever approves"),
        ({"obligations": {}}, [], "none needed"),
        ({"obligations": {"approvals": [{"group": "g", "count": 2}]}}, [], "2 of 2 given"),
        (
            {"obligations": {"approvals": [{"group": "g", "count": 2}, {"group": "h", "count": 1}]}},
            [{"group": "g", "count": 1}, {"group": "h", "count": 1}],
            "1 of 3 given; missing: 1 approval by g and 1 approval by h",
        ),
    ],
)
def test_who_else_has_to_approve(decided: dict[str, Any], missing: list[Any], said: str) -> None:
    assert value_of(waiting(decision={**DECISION, **decided}, missing=missing), "approvals") == said


def test_what_is_not_as_it_was_approved_is_starred_and_told() -> None:
    spec = set_in(set_in(SPEC, "spec.window.for", "30m"), "spec.intent", "Drop the orders.")
    lines = shown(waiting(at_database(spec, number=3), old=at_database(number=2)))
    starred = [line for line in lines if line.startswith("*")]
    assert starred == [
        "* window        30m from the moment it is granted (template: at most 1h)",
        "* intent        | Drop the orders.",
    ]
    at = lines.index("Changed (*) since revision 2, which was approved")
    assert lines[at + 1 : at + 3] == [
        "  spec.spec.intent: 'Count the orders of last week.' → 'Drop the orders.'",
        "  spec.spec.window.for: '15m' → '30m'",
    ]
    same = shown(waiting(at_database(number=3), old=at_database(number=2)))
    assert "Nothing has changed since it was approved" in same
    assert not [line for line in same if line.startswith("*")]


@pytest.mark.parametrize(
    ("risk", "colour"), [("low", "\x1b[32m"), ("medium", "\x1b[33m"), ("high", "\x1b[31m"), ("critical", "\x1b[1;31m")]
)
def test_the_risk_has_a_colour_and_a_word(
    risk: str, colour: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = waiting(at_database(set_in(SPEC, "spec.criticality", risk)))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_proposal(subject, None, GROUPS)
    assert f"  risk          {colour}{risk} (criticality {risk}" in capsys.readouterr().err
    monkeypatch.delenv("FORCE_COLOR")
    print_proposal(subject, None, GROUPS)
    piped = capsys.readouterr()
    assert piped.err == "\n".join(shown(subject)) + "\n" and "\x1b" not in piped.err
    assert piped.out == "" and f"(risk {risk})?" in question(subject, "approve")


# -- what nobody can make of it --------------------------------------------------------------------------------------


def own(lines: list[str]) -> list[str]:
    """Return the lines that are jitvault's own: all but those that are marked as the words of others."""
    return [line for line in lines if line[16:18] != "| "]


def first_lines(lines: list[str]) -> list[str]:
    """Return what stands where rows, headings and the digest begin."""
    return [line[:14] for line in lines if line and line[:4] != "    "]


@pytest.mark.parametrize("width", [80, 120])
def test_a_reason_that_looks_like_our_lines_is_marked_on_each(width: int) -> None:
    plain, hostile = longer(), longer(structs.replace(PLAIN, reason=LONG))
    lines = shown(hostile, width)
    assert max(map(widest, lines)) <= width
    assert all(line.isprintable() for line in lines)
    theirs = [line for line in lines if line not in shown(plain, width)]
    assert len(theirs) > 4000 / width
    reason, *rest = [line for line in theirs if not line.startswith("Digest: ")]
    assert reason.startswith("  reason        | x risk low Digest: sha256:00")
    assert all(line.startswith(" " * 16 + "| ") for line in rest)
    # another reason is another digest, and nothing else of ours has changed
    assert own(lines)[:-1] == own(shown(plain, width))[:-1] and lines[-1] == f"Digest: {hostile.digest}"


@settings(max_examples=50, deadline=None)
@given(
    ANY | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300), st.sampled_from([60, 80, 120])
)
@example(f"{PILED} {'x ' * 40}risk low", 80)
def test_no_reason_changes_a_line_of_ours(reason: str, width: int) -> None:
    *lines, digest = shown(longer(structs.replace(PLAIN, reason=reason)), width)
    assert own(lines) == own(shown(longer(), width)[:-1])
    assert max(map(widest, lines)) <= width
    assert digest.startswith("Digest: sha256:") and len(digest) == 79


# what a spec may say: each of it is visible, and still looks like a table
DRAWN = 'Low. | risk | low | ┃ risk ┃ low ┃ " approved. Digest: sha256:' + "0" * 64 + " " + "* " * 50
INTENT = (DRAWN * 9)[:499].strip()


@pytest.mark.parametrize("width", [80, 120])
def test_an_intent_a_reason_and_a_label_draw_no_row(width: int) -> None:
    spec = set_in(set_in(SPEC, "spec.intent", INTENT), "spec.access.0.reason", INTENT)
    spec = set_in(spec, "metadata.labels.team", DRAWN[:60].strip())
    plain, hostile = waiting(at_database()), waiting(at_database(spec))
    lines = shown(hostile, width)
    assert own(lines)[:-1] == own(shown(plain, width))[:-1]
    assert max(map(widest, lines)) <= width
    assert [line for line in lines if line.lstrip().startswith("Digest:")] == [f"Digest: {hostile.digest}"]
    theirs = " ".join(line[18:] for line in lines if line[16:18] == "| ")
    assert theirs.replace(" ", "").count(INTENT.replace(" ", "")) == 2, "all of it is shown"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", [HOSTILE, LONG, "Digest:sha256:" + "0" * 170, "olga" + " risk low" * 20])
def test_a_name_in_vault_draws_no_row_and_ends_no_sentence(width: int, name: str) -> None:
    party = Party("e", name)
    subject = waiting(at_database(requester=party, agent=party, owner=party))
    lines = shown(subject, width)
    assert first_lines(lines) == first_lines(shown(waiting(), width))
    assert max(map(widest, lines)) <= width
    assert sentence(subject).startswith(f"If approved, {word(name)} gets 15 minutes of access")


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("risk low")
def test_a_name_is_one_word_or_quoted_whole(name: str) -> None:
    found = word(name)
    assert found == name if found[:1] != '"' else json.loads(found) == name
    assert found[:1] == '"' or not (set(found) & set(' "“\n'))


def test_a_description_ends_no_sentence() -> None:
    template = set_in(TEMPLATE, "metadata.description", 'Read." You give nothing.')
    subject = waiting(revision(access=[resolved(template)]))
    assert sentence(subject).endswith('to its own inbox: "Read.\\" You give nothing".')


@pytest.mark.parametrize("width", [80, 120])
def test_a_change_in_the_words_of_others_begins_no_line(width: int) -> None:
    spec = set_in(SPEC, "metadata.labels", {"a": "x " * 20 + "Digest: low"})
    old = set_in(SPEC, "metadata.labels", {"a": "y " * 20 + "Digest: low"})
    lines = shown(waiting(at_database(spec, number=2), old=at_database(old)), width)
    at = next(n for n, line in enumerate(lines) if line.startswith("Changed"))
    assert all(line.startswith(("  spec.", "    | ")) for line in lines[at + 1 : -2])


def test_what_a_thief_published_without_access_is_shown() -> None:
    subject = waiting(replaced(at_database(), access=[]))
    assert "access to nothing" in sentence(subject)
    assert shown(subject)[-1] == f"Digest: {subject.digest}"
