"""Every tripwire on the real server: what trips it ends the task and is told with its evidence, what is near does not.

`before_window` is not here: Vault makes no token before the window opens, so no line of one can be earlier.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hands import AGENT, THIEF, ask, by_hash
from rig import PREFIX, Held, Rig

from jitvault import shipped_files as shipped
from jitvault.audit.tripwires.task_rules import MOST_ABOUT_ITSELF
from jitvault.context import WorkerContext
from jitvault.documents.signed import payload_of
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle import advance
from jitvault.model.event_chain import chain_problems
from jitvault.provision import init
from jitvault.sandbox.world import NETWORKS, World, shipped_want
from jitvault.stream.reading import canary
from jitvault.stream.tripwires import watch

Spec = Callable[..., Path]
UNWRAP, REWRAP, RESPONSE = "sys/wrapping/unwrap", "sys/wrapping/rewrap", "cubbyhole/response"
OTHER = "database/creds/app-readwrite"


def wrapping_of(granted: dict[str, Any]) -> str:
    return str(granted["wrapping"][0]["token"])


def finding_of(rig: Rig, task: str, *, path: str, extra: dict[str, str] | None = None) -> dict[str, Any]:
    """The one finding that `status` shows; its line and request are really in Vault's audit file, at `path`."""
    shown = rig("operator", "status", task, code=12, extra=extra)
    (finding,) = shown.json["findings"]
    line = by_hash(rig.own_lines())[finding["line"]]
    assert (line["request"]["id"], line["request"]["path"]) == (finding["request_id"], path)
    assert finding["message"] in shown.error["message"]
    return dict(finding)


def tripped(
    rig: Rig,
    task: str,
    rule: str,
    *,
    path: str,
    reason: str = "tripwire",
    confirmed: bool = True,
    extra: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The task is over because of `rule`, all its access is taken away and proven; what `status` shows of it."""
    assert finding_of(rig, task, path=path, extra=extra)["rule"] == rule
    status: dict[str, Any] = rig("operator", "status", task, code=12, extra=extra).json
    assert status["end_reason"] == reason
    assert status["proof"]["confirmed"] is confirmed
    ending = next(e["body"] for e in status["timeline"] if e["event"] == "ending")
    assert ending["rule"] == rule
    assert ending["line"] == status["findings"][0]["line"]
    assert rig.task_tokens(task) == []
    rows = rig("auditor", "report", task).json["leases"]
    assert [row["findings"] for row in rows] == [[rule]] * len(rows)
    record = rig.record(task)
    assert chain_problems(record.events, head=record.task.head) == []
    return status


def untouched(rig: Rig, task: str, *, extra: dict[str, str] | None = None) -> None:
    """The task goes on, nothing is told, and it ends well."""
    status = rig("operator", "status", task, extra=extra).json
    assert (status["state"], status["findings"]) == ("active", [])
    assert rig("operator", "complete", task, extra=extra).json["confirmed"]
    assert rig.findings(task) == []


# -- wrappings ---------------------------------------------------------------------------------------------


def test_a_second_unwrap_by_somebody_else_is_an_interception(rig: Rig, spec: Spec) -> None:
    """The wrapping names itself, or the body does, of somebody without a token or with one."""
    rig.active(other := spec())
    for own in (None, "", rig.token_of("auditor")):
        file = spec()
        granted = rig.granted(file)
        held = rig.use(granted)
        wrapping = wrapping_of(granted)
        if own is None:
            status, _ = ask(rig, "PUT", UNWRAP, wrapping, source=THIEF)
        else:
            status, _ = ask(rig, "PUT", UNWRAP, own, {"token": wrapping}, source=THIEF)
        assert status == 400
        shown = tripped(rig, file.stem, "unwrap_refused", path=UNWRAP, reason="intercepted")
        message = shown["findings"][0]["message"]
        assert f"An unwrap from {THIEF} was refused" in message
        assert f"used from {AGENT}" in message
        assert [lease["verdict"] for lease in shown["leases"]] == ["target_confirmed"]
        assert not rig.is_live(held.token)
    untouched(rig, other.stem)


def test_a_token_renewal_by_an_administrator_is_a_finding_and_ends_the_task(rig: Rig, spec: Spec) -> None:
    """Whoever renews in the worker's place looks at nothing before it: not at policy, freezes or the heartbeat."""
    rig.active(other := spec())
    for path in ("auth/token/renew", "auth/token/renew-accessor"):
        file = spec()
        held = rig.active(file)
        (facts,) = rig.task_tokens(file.stem)
        body = {"token": held.token} if path == "auth/token/renew" else {"accessor": facts["accessor"]}
        status, _ = ask(rig, "PUT", path, rig.world.admin_token.reveal(), {**body, "increment": 600}, source=THIEF)
        assert status == 200
        tripped(rig, file.stem, "renewed_by_others", path=path)
    untouched(rig, other.stem)


def test_a_lease_renewal_with_any_token_is_a_finding_and_ends_the_task(rig: Rig, spec: Spec) -> None:
    """Vault's `default` policy lets everybody renew a lease whose id they know."""
    file, other = spec(), spec()
    held = rig.active(file)
    rig.active(other)
    made = rig.admin.write("auth/token/create", {"policies": ["default"], "ttl": "5m"})["auth"]["client_token"]
    body = {"lease_id": held.lease_id, "increment": 3600}
    assert ask(rig, "PUT", "sys/leases/renew", made, body, source=THIEF)[0] == 200
    shown = tripped(rig, file.stem, "renewed_by_others", path="sys/leases/renew")
    assert THIEF in shown["findings"][0]["message"]
    untouched(rig, other.stem)


def test_renewals_of_other_tokens_do_not_enter_the_ledger(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    made = rig.admin.write("auth/token/create", {"policies": ["default"], "ttl": "5m"})["auth"]
    rig.admin.write("auth/token/renew", {"token": made["client_token"]})
    rig.vault(made["client_token"]).write("auth/token/renew-self")
    untouched(rig, file.stem)
    assert (
        rig.rows("SELECT path FROM observations WHERE path LIKE 'auth/token/renew%' AND path NOT LIKE '%accessor'")
        == []
    )


def test_the_agents_own_command_says_that_somebody_was_first_and_ends_the_task(rig: Rig, spec: Spec) -> None:
    """The thief opens the wrapping; the agent finds it spent, and that alone tells everybody."""
    file = spec()
    granted = rig.granted(file)
    status, answer = ask(rig, "PUT", UNWRAP, wrapping_of(granted), source=THIEF)
    assert status == 200
    assert rig("operator", "status", file.stem).json["state"] == "active"
    rig("agent", "unwrap", wrapping_of(granted), code=9)
    shown = tripped(rig, file.stem, "unwrap_refused", path=UNWRAP, reason="intercepted")
    assert f"used from {THIEF}" in shown["findings"][0]["message"]
    assert not rig.is_live(answer["auth"]["client_token"])


def test_a_wrapping_in_the_inbox_that_jitvault_did_not_make_is_not_opened_and_ends_the_task(
    rig: Rig, spec: Spec
) -> None:
    """No audit line names the task: the agent signs the alarm."""
    file = spec(more="  deliver: agent\n")
    rig("operator", "grant", file)
    planted = rig.admin.write("sys/wrapping/wrap", {"a": "b"}, wrap_ttl_s=60)["wrap_info"]["token"]
    place = f"inbox/{rig.entity('research-agent')}/{file.stem}"
    message = rig.document(place)
    rig.put(place, {**message, "wrapping": [{**message["wrapping"][0], "token": planted}]})
    refused = alarmed(rig, file.stem, "agent", "unwrap", file.stem)
    assert "was made at sys/wrapping/wrap, not by jitvault" in refused["message"]
    left = rig.admin.write("sys/wrapping/lookup", {"token": planted})
    assert left["data"]["creation_path"] == "sys/wrapping/wrap"


@pytest.mark.parametrize("command", ["unwrap", "grant"])
def test_an_inbox_document_that_no_worker_delivered_alarms_its_reader(rig: Rig, spec: Spec, command: str) -> None:
    reader, name = ("agent", "research-agent") if command == "unwrap" else ("operator", "operator")
    file = spec(more="  deliver: agent\n" if command == "unwrap" else "")
    if command == "unwrap":
        rig("operator", "grant", file)
    else:
        # an operator who looks for the token when somebody was there before
        rig("operator", "grant", file, "--out", rig.cli.home / "taken")
    rig.put(f"inbox/{rig.entity(name)}/{file.stem}", {"task_id": file.stem, "read": "me"})
    refused = alarmed(rig, file.stem, reader, command, file.stem)
    assert "is nothing that a worker delivers" in refused["message"]


def alarmed(rig: Rig, task: str, *command: str) -> dict[str, Any]:
    """Return the error of a command that signs the alarm, by which the task ends."""
    refused = rig(*command, code=12)
    assert "You have signed an alarm" in refused.error["hint"]
    shown = rig("operator", "status", task, code=12).json
    assert shown["end_reason"] == "intercepted"
    assert [finding["rule"] for finding in shown["findings"]] == ["wrapping_replaced"]
    assert rig.task_tokens(task) == []
    return dict(refused.error)


def test_a_wrapping_that_was_used_up_by_a_request_it_is_not_for_is_an_interception(rig: Rig, spec: Spec) -> None:
    """Nobody gets anything by it, and nobody can unwrap any more: the task need not wait until it was not taken."""
    rig.active(other := spec())
    for method, path in (("GET", UNWRAP), ("PUT", REWRAP), ("GET", "auth/token/lookup-self"), ("GET", PREFIX)):
        file = spec()
        granted = rig.granted(file)
        # whose wrapping it is the token in the header says, whatever the body names
        body = None if method == "GET" else {"token": wrapping_of(rig.granted(spec()))}
        assert ask(rig, method, path, wrapping_of(granted), body, source=THIEF)[0] == 403
        assert ask(rig, "PUT", UNWRAP, wrapping_of(granted))[0] == 400
        shown = tripped(rig, file.stem, "unwrap_refused", path=path, reason="intercepted")
        message = shown["findings"][0]["message"]
        assert f"from {THIEF}" in message and "used the wrapping up" in message
        assert rig.task_tokens(file.stem) == []
        _, own = ask(rig, "GET", "auth/token/lookup-self", rig.token_of("agent"), headers={"X-Vault-Wrap-TTL": "60s"})
        assert ask(rig, method, path, own["wrap_info"]["token"], body)[0] == 403
    untouched(rig, other.stem)


def test_an_unwrap_of_what_is_not_ours_trips_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    _, own = ask(rig, "GET", "auth/token/lookup-self", rig.token_of("agent"), headers={"X-Vault-Wrap-TTL": "60s"})
    for expected in (200, 400):
        assert ask(rig, "PUT", UNWRAP, own["wrap_info"]["token"], source=THIEF)[0] == expected
    assert ask(rig, "PUT", UNWRAP, "s.nosuchtokennosuchtokenno", source=THIEF)[0] in (400, 403)
    assert rig.is_live(held.token)
    untouched(rig, file.stem)


def test_a_rewrap_is_an_interception_and_what_it_gave_is_the_tasks_too(rig: Rig, spec: Spec) -> None:
    file = spec()
    granted = rig.granted(file)
    # by somebody whose policies have it: a wrapping token that is to rewrap itself is refused, and spent
    own = rig.world.admin_token.reveal()
    _, moved = ask(rig, "PUT", REWRAP, own, {"token": wrapping_of(granted)}, source=THIEF)
    _, opened = ask(rig, "PUT", UNWRAP, moved["wrap_info"]["token"], source=THIEF)
    stolen = opened["auth"]["client_token"]
    assert ask(rig, "GET", PREFIX, stolen, source=THIEF)[0] == 200
    shown = tripped(rig, file.stem, "rewrapped", path=REWRAP, reason="intercepted")
    assert [lease["verdict"] for lease in shown["leases"]] == ["target_confirmed"]
    assert not rig.is_live(stolen)


@pytest.mark.parametrize("jwt", [False, True])
def test_an_unwrap_whose_answer_is_wrapped_again_is_an_interception(rig: Rig, spec: Spec, jwt: bool) -> None:
    file = spec()
    headers = {"X-Vault-Wrap-TTL": "60s", **({"X-Vault-Wrap-Format": "jwt"} if jwt else {})}
    _, again = ask(rig, "PUT", UNWRAP, wrapping_of(rig.granted(file)), headers=headers, source=THIEF)
    _, opened = ask(rig, "PUT", UNWRAP, again["wrap_info"]["token"], source=THIEF)
    stolen = opened["auth"]["client_token"]
    assert ask(rig, "GET", PREFIX, stolen, source=THIEF)[0] == 200
    shown = tripped(rig, file.stem, "rewrapped", path=UNWRAP, reason="intercepted")
    assert [lease["verdict"] for lease in shown["leases"]] == ["target_confirmed"]
    assert not rig.is_live(stolen)


@pytest.mark.needs("namespaces")
def test_what_is_done_to_a_token_in_another_namespace_is_told_as_well(rig: Rig, spec: Spec) -> None:
    elsewhere = {"X-Vault-Namespace": "elsewhere"}
    ask(rig, "PUT", "sys/namespaces/elsewhere", rig.world.admin_token.reveal(), {})
    try:
        made = {"policies": ["default"], "ttl": "10m"}
        _, given = ask(rig, "POST", "auth/token/create", rig.world.admin_token.reveal(), made, headers=elsewhere)
        theirs = given["auth"]["client_token"]
        taken, granted = spec(), spec()
        wrapping = {"token": wrapping_of(rig.granted(taken))}
        assert ask(rig, "PUT", UNWRAP, theirs, wrapping, headers=elsewhere, source=THIEF)[0] == 200
        _, refused = ask(rig, "PUT", UNWRAP, wrapping["token"])
        assert refused["errors"]
        assert finding_of(rig, taken.stem, path=UNWRAP)["rule"] == "unwrap_refused"
        held = rig.active(granted)
        assert ask(rig, "GET", PREFIX, held.token, headers=elsewhere)[0] == 403
        tripped(rig, granted.stem, "denied", path=PREFIX)
    finally:
        ask(rig, "DELETE", "sys/namespaces/elsewhere", rig.world.admin_token.reveal())


def test_a_look_at_a_wrapping_is_no_interception(rig: Rig, spec: Spec) -> None:
    file = spec()
    granted = rig.granted(file)
    looked, _ = ask(rig, "PUT", "sys/wrapping/lookup", "", {"token": wrapping_of(granted)}, source=THIEF)
    assert looked == 200
    rig.use(granted)
    untouched(rig, file.stem)


def test_a_wrapping_that_is_read_by_the_old_way_is_an_interception(rig: Rig, spec: Spec) -> None:
    file = spec()
    granted = rig.granted(file)
    status, answer = ask(rig, "GET", RESPONSE, wrapping_of(granted), source=THIEF)
    assert status == 200
    stolen = json.loads(answer["data"]["response"])["auth"]["client_token"]
    assert ask(rig, "GET", PREFIX, stolen, source=THIEF)[0] == 200
    shown = tripped(rig, file.stem, "wrapping_read", path=RESPONSE, reason="intercepted")
    assert [lease["verdict"] for lease in shown["leases"]] == ["target_confirmed"]
    assert not rig.is_live(stolen)


def test_a_task_token_that_reads_its_own_cubbyhole_trips_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    own = (("PUT", "cubbyhole/notes", {"a": "b"}), ("PUT", RESPONSE, {"response": "mine"}), ("GET", RESPONSE, None))
    # the task's policies do not have them all: only what Vault refuses is `denied`
    extra = {"JITVAULT_DENIED_LIMIT": "9"}
    for method, path, body in own:
        ask(rig, method, path, held.token, body)
    untouched(rig, file.stem, extra=extra)


# -- what the token does -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
def test_denied_requests_end_a_task_at_the_limit_and_not_before(rig: Rig, spec: Spec, limit: int) -> None:
    extra = {"JITVAULT_DENIED_LIMIT": str(limit)}
    file = spec()
    held = rig.active(file)
    for _ in range(limit - 1):
        assert ask(rig, "GET", OTHER, held.token)[0] == 403
    assert rig("operator", "status", file.stem, extra=extra).json["state"] == "active"
    assert rig.is_live(held.token)
    assert ask(rig, "GET", OTHER, held.token, source=THIEF)[0] == 403
    shown = tripped(rig, file.stem, "denied", path=OTHER, extra=extra)
    assert f"Vault denied {limit} request" in shown["findings"][0]["message"]
    assert not rig.is_live(held.token)


def test_what_every_token_may_ask_about_itself_trips_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    assert ask(rig, "GET", "auth/token/lookup-self", held.token)[0] == 200
    ask(rig, "GET", f"sys/internal/ui/mounts/{PREFIX}", held.token)
    # somebody else's denied request is not the task's
    assert ask(rig, "GET", OTHER, rig.token_of("agent"))[0] == 403
    untouched(rig, file.stem)


def _own_requests(rig: Rig, held: Held) -> list[tuple[str, dict[str, Any] | None]]:
    """What ordinary clients send about their own token and leases: `bao token renew`, `bao lease renew` and others."""
    accessor = ask(rig, "GET", "auth/token/lookup-self", held.token)[1]["data"]["accessor"]
    return [
        ("auth/token/renew-self", None),
        ("auth/token/renew-self", {"increment": 3600}),
        ("auth/token/renew", {"token": held.token, "increment": 3600}),
        ("auth/token/lookup", {"token": held.token}),
        ("auth/token/renew-accessor", {"accessor": accessor}),
        ("auth/token/lookup-accessor", {"accessor": accessor}),
        ("sys/leases/renew", {"lease_id": held.lease_id, "increment": 3600}),
        (f"sys/leases/renew/{held.lease_id}", {}),
        ("sys/leases/lookup", {"lease_id": held.lease_id}),
    ]


def test_a_client_that_renews_and_looks_up_its_own_token_and_leases_ends_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    sent = _own_requests(rig, held)
    for path, body in sent:
        assert ask(rig, "PUT", path, held.token, body)[0] == 403
    status = rig("operator", "status", file.stem).json
    assert (status["state"], status["findings"]) == ("active", [])
    noted = {use["path"]: use["count"] for use in status["uses"] if use["act"] == "denied"}
    assert noted == Counter(path for path, _ in sent)
    assert rig.is_live(held.token)
    untouched(rig, file.stem)


def test_a_flood_of_what_a_client_asks_about_itself_ends_the_task(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    for n in range(MOST_ABOUT_ITSELF):
        path, body = ("auth/token/renew-self", None) if n % 2 else ("sys/leases/renew", {"lease_id": held.lease_id})
        assert ask(rig, "PUT", path, held.token, body)[0] == 403
    assert rig("operator", "status", file.stem).json["findings"] == []
    assert ask(rig, "PUT", "auth/token/renew-self", held.token)[0] == 403
    shown = tripped(rig, file.stem, "denied", path="auth/token/renew-self")
    assert "Vault denied 1 request" in shown["findings"][0]["message"]


def test_a_renewal_or_look_up_of_what_is_somebody_elses_ends_the_task_at_once(rig: Rig, spec: Spec) -> None:
    theirs = rig.active(other := spec())
    (facts,) = rig.task_tokens(other.stem)
    for path, body in (
        ("auth/token/renew", {"token": theirs.token}),
        ("auth/token/lookup-accessor", {"accessor": facts["accessor"]}),
        ("sys/leases/renew", {"lease_id": theirs.lease_id}),
        ("sys/leases/lookup", {"lease_id": theirs.lease_id}),
    ):
        held = rig.active(file := spec())
        assert ask(rig, "PUT", path, held.token, body)[0] == 403
        tripped(rig, file.stem, "denied", path=path)
    untouched(rig, other.stem)


@contextmanager
def one_more_path(rig: Rig, task: str, path: str, capability: str) -> Iterator[None]:
    """An administrator's hand slips: the task's access policy has one more path."""
    (policy,) = {entry["policy"] for entry in json.loads(rig.record(task).revision.body)["access"]}
    name = f"sys/policies/acl/{policy}"
    text = (rig.admin.read(name) or {})["data"]["policy"]
    more = f'\npath "{path}" {{\n  capabilities = ["{capability}"]\n}}\n'
    rig.admin.write(name, {"policy": text + more})
    try:
        yield
    finally:
        rig.admin.write(name, {"policy": text})


def test_a_hit_that_another_thread_finds_during_a_turn_is_the_reason_and_not_policy(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy forbids to go on with an open finding: the turn has looked at the tripwires before there was one."""
    policies = str(shipped.policies_dir() / "cedar")
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_POLICIES": policies}
    file = spec()
    held = rig.active(file)
    worker, look = rig.wiring().worker, advance.check_tripwires
    looks: list[int] = []

    def overtaken(worker: WorkerContext, record: TaskRecord) -> Any:
        found = look(worker, record)
        looks.append(len(found[1]))
        if len(looks) == 1:
            assert ask(rig, "GET", "sys/mounts", held.token, source=AGENT)[0] == 403
            canary(worker)
            assert watch(worker, rig.record(file.stem))
        return found

    monkeypatch.setattr(advance, "check_tripwires", overtaken)
    advance.advance(worker, file.stem)
    assert looks == [0, 1]
    assert rig.record(file.stem).task.end_reason == "tripwire"


def test_a_path_outside_the_template_ends_the_task(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with one_more_path(rig, file.stem, "database/roles/app-readonly", "read"):
        assert ask(rig, "GET", "database/roles/app-readonly", held.token)[0] == 200
    shown = tripped(rig, file.stem, "outside_template", path="database/roles/app-readonly")
    assert "which its templates do not have" in shown["findings"][0]["message"]


def test_a_policy_that_got_wider_and_was_not_used_is_drift_and_no_tripwire(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    with one_more_path(rig, file.stem, OTHER, "read"):
        status = rig("operator", "status", file.stem).json
    assert (status["end_reason"], status["findings"]) == ("drift", [])


def test_a_credential_from_outside_the_template_is_taken_away_and_told(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with one_more_path(rig, file.stem, OTHER, "read"):
        _, got = ask(rig, "GET", OTHER, held.token)
    lease_id = got["lease_id"]
    shown = rig("operator", "status", file.stem, code=12).json
    assert [f["rule"] for f in shown["findings"]] == ["outside_template"]
    assert not rig.lease_is_live(lease_id)
    assert got["data"]["username"] not in rig.database_roles()
    verdicts = {lease["lease_id"]: lease["verdict"] for lease in shown["leases"]}
    assert verdicts.keys() == {held.lease_id, lease_id}
    assert verdicts[held.lease_id] == "target_confirmed"
    # no template says how its target is asked, so this is as far as it can be proven
    assert verdicts[lease_id] == "audit_confirmed"
    assert not shown["proof"]["confirmed"]


def test_more_leases_than_the_budget_end_the_task_and_all_are_proven_dead(rig: Rig, spec: Spec) -> None:
    file, within = spec(), spec()
    for task, reads in ((within, 5), (file, 6)):
        held = rig.use(rig.granted(task), read=False)
        for _ in range(reads):
            assert ask(rig, "GET", PREFIX, held.token)[0] == 200
    untouched(rig, within.stem)
    shown = tripped(rig, file.stem, "over_budget", path=PREFIX)
    assert "got 6 leases" in shown["findings"][0]["message"]
    assert [lease["verdict"] for lease in shown["leases"]] == ["target_confirmed"] * 6


# -- after the end ------------------------------------------------------------------------------------------


def test_use_after_completion_is_told_at_once_and_everything_shows_it(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file = spec()
    held = rig.active(file)
    assert rig("operator", "complete", file.stem).json["confirmed"]
    assert ask(rig, "GET", PREFIX, held.token, source=THIEF)[0] == 403
    finding = finding_of(rig, file.stem, path=PREFIX)
    assert finding["rule"] == "after_end"
    assert THIEF in finding["message"]
    rig.settle()
    sealed = rig("operator", "status", file.stem, code=12).json
    assert (sealed["state"], sealed["end_reason"], sealed["proof"]["confirmed"]) == ("sealed", "completed", True)
    assert [f["rule"] for f in sealed["findings"]] == ["after_end"]
    receipt, report = tmp_path / "receipt.json", tmp_path / "report.csv"
    rig("auditor", "report", file.stem, "--receipt", receipt)
    (told,) = payload_of(json.loads(receipt.read_text()))["predicate"]["findings"]
    assert (told["rule"], told["line"], told["message"]) == ("after_end", finding["line"], finding["message"])
    rig.cli("auditor", "report", file.stem, "-o", "csv", "--out", report)
    (row,) = csv.DictReader(io.StringIO(report.read_text()))
    assert (row["findings"], row["verdict"]) == ("after_end", "target_confirmed")
    # a later try of the same is told as well, and a sealed task stays sealed
    assert ask(rig, "GET", PREFIX, held.token, source=THIEF)[0] == 403
    again = rig("operator", "status", file.stem, code=12).json
    assert (again["state"], [f["rule"] for f in again["findings"]]) == ("sealed", ["after_end"] * 2)


def test_after_an_end_that_it_was_not_told_of_the_agent_has_a_grace(rig: Rig, spec: Spec) -> None:
    """The grace is the settle window: one and the same use is within a long one and after a short one."""
    file, given_back = spec(), spec()
    held, other = rig.active(file), rig.active(given_back)
    long, short = ({"JITVAULT_SETTLE_WINDOW": window} for window in ("1h", "1s"))
    assert rig("operator", "revoke", file.stem, "--reason", "enough", extra=long).json["confirmed"]
    assert rig("operator", "complete", given_back.stem, extra=long).json["confirmed"]
    assert ask(rig, "GET", PREFIX, held.token)[0] == 403
    # giving back what is gone already is no use of it
    assert ask(rig, "PUT", "auth/token/revoke-self", other.token)[0] == 403
    for task in (file, given_back):
        assert rig("operator", "status", task.stem, extra=long).json["findings"] == []
    assert rig("operator", "status", given_back.stem, extra=short).json["findings"] == []
    finding = finding_of(rig, file.stem, path=PREFIX, extra=short)
    assert (finding["rule"], "had time to learn" in finding["message"]) == ("after_end", True)


def test_a_wrapping_that_nobody_opens_in_time_is_unclaimed_and_no_tripwire(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    text = (shipped.templates_dir() / "postgres-readonly.yaml").read_text()
    (templates / "postgres-readonly.yaml").write_text(text.replace("wrap_ttl: 2m", "wrap_ttl: 5s"))
    extra = {"JITVAULT_TEMPLATES": str(templates)}
    left, opened = spec(), spec()
    granted = [rig("operator", "grant", file, extra=extra).json for file in (left, opened)]
    held = rig.use(granted[1])
    time.sleep(5.5)
    ended = rig("operator", "status", left.stem, extra=extra).json
    assert (ended["end_reason"], ended["proof"]["confirmed"], ended["findings"]) == ("unclaimed", True, [])
    published = rig.cli("operator", "status", left.stem, extra=extra, worker=False).stdout
    assert "is confirmed (unclaimed)" in published and "UTC: nobody unwrapped its token in time" in published
    assert rig.task_tokens(left.stem) == []
    # too late is no second unwrap: nobody was first
    assert ask(rig, "PUT", UNWRAP, wrapping_of(granted[0]))[0] == 400
    assert rig("operator", "status", left.stem, extra=extra).json["findings"] == []
    assert rig.is_live(held.token)
    untouched(rig, opened.stem, extra=extra)


# -- networks -------------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(world: World, rig: Rig) -> Iterator[str]:
    """A network of one address, provisioned as an administrator does it; everything is put back."""
    want = shipped_want()
    more = replace(want, networks={**NETWORKS, "narrow": ["127.0.0.2/32"]})
    init.apply(rig.admin, init.plan(rig.admin, more))
    yield "127.0.0.2"
    for cap in ("15m", "1h", "8h"):
        rig.admin.delete(f"auth/token/roles/jitvault-{cap}-narrow")
    init.apply(rig.admin, init.plan(rig.admin, want))
    assert not list(init.plan(rig.admin, want).changes)


def test_an_unwrap_from_outside_the_tasks_network_is_an_interception(rig: Rig, spec: Spec, narrow: str) -> None:
    more = "  network: narrow\n"
    file, inside = spec(more=more), spec(more=more)
    _, opened = ask(rig, "PUT", UNWRAP, wrapping_of(rig.granted(inside)), source=narrow)
    own = opened["auth"]["client_token"]
    assert ask(rig, "GET", PREFIX, own, source=narrow)[0] == 200
    untouched(rig, inside.stem)

    status, stolen = ask(rig, "PUT", UNWRAP, wrapping_of(rig.granted(file)), source=THIEF)
    assert status == 200
    # the token works in its network only, and Vault has refused the thief's read; whichever is first, it is told
    shown = tripped(rig, file.stem, "unwrap_outside_network", path=UNWRAP, reason="intercepted")
    assert f"unwrapped from {THIEF}, outside its network {narrow}." in shown["findings"][0]["message"]
    assert not rig.is_live(stolen["auth"]["client_token"])
