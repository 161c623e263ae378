"""What an agent has wrapped when it reads: its line shows no lease, and yet it counts, ends the task and is proven."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attended import wait_for
from hands import Mirror, ask, by_hash
from rig import PREFIX, Held, Rig, rests_on

from jitvault import shipped_files as shipped
from jitvault.agent.unwrap import read_all

Spec = Callable[..., Path]
UNWRAP = "sys/wrapping/unwrap"
AS_JWT = {"X-Vault-Wrap-TTL": "60s", "X-Vault-Wrap-Format": "jwt"}


def read_as_jwt(rig: Rig, held: Held) -> str:
    status, answer = ask(rig, "GET", PREFIX, held.token, headers=AS_JWT)
    assert status == 200
    wrapping = str(answer["wrap_info"]["token"])
    assert wrapping.count(".") == 2
    return wrapping


def opened(rig: Rig, wrapping: str, *, by: str) -> dict[str, str]:
    """The login in a wrapping that was opened with it in the header, or in the body of somebody's request."""
    header, body = (wrapping, None) if by == "header" else (rig.token_of("auditor"), {"token": wrapping})
    status, answer = ask(rig, "PUT", UNWRAP, header, body)
    assert status == 200
    return {"user": answer["data"]["username"], "password": answer["data"]["password"]}


@contextlib.contextmanager
def dropped_under_its_session(rig: Rig, logins: list[dict[str, str]]) -> Iterator[list[psycopg.Connection[Any]]]:
    """Sessions that outlive their logins, as a client gets them that reconnects until it wins against `DROP ROLE`."""
    sessions = [rig.connect(login) for login in logins]
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
        for login in logins:
            target.execute(f'DROP ROLE "{login["user"]}"'.encode())
    try:
        yield sessions
    finally:
        for session in sessions:
            session.close()


def reads(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


@pytest.mark.parametrize("by", ["header", "body"])
def test_what_was_wrapped_as_a_jwt_is_never_sealed_over(rig: Rig, spec: Spec, by: str) -> None:
    """Its lease shows nowhere, the target is asked all the same; 12 logins are more than a budget of 5."""
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    logins = [opened(rig, read_as_jwt(rig, held), by=by) for _ in range(12)]
    with dropped_under_its_session(rig, logins[:8]) as sessions:
        rig("operator", "complete", file.stem, code=None)

        def seal() -> dict[str, Any] | None:
            """The task once it is sealed; on a busy machine its proof takes more than one command."""
            rig.settle()
            shown = rig("operator", "status", file.stem, code=None).json
            return shown if shown["state"] == "sealed" else None

        shown = wait_for(seal, 60)
        assert sum(map(reads, sessions)) == 0
    assert {found["rule"] for found in shown["findings"]} == {"wrapped_lease", "over_budget"}


def test_a_connection_that_sleeps_before_it_has_a_user_is_ended_also_where_no_line_names_its_login(
    rig: Rig, spec: Spec
) -> None:
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    login = opened(rig, read_as_jwt(rig, held), by="body")
    came_in: list[str] = []

    def sleep() -> None:
        options = "-c post_auth_delay=8"
        with contextlib.suppress(psycopg.Error):
            dsn = rig.world.servers.postgres.dsn("app", **login)
            with psycopg.connect(dsn, options=options, connect_timeout=30) as session:
                session.execute("SELECT 1")
                came_in.append("read")

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    time.sleep(1)
    ended = rig("operator", "complete", file.stem, code=12).json
    assert ended["confirmed"]
    sleeper.join(20)
    assert came_in == []


def test_what_shows_no_lease_is_never_proven_by_the_audit_stream_alone(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    """Opened by the header its lease shows, and is proven as any other; opened by the body it is nobody's."""
    templates = tmp_path / "templates"
    templates.mkdir()
    text = (shipped.templates_dir() / "postgres-readonly.yaml").read_text()
    text = text.replace("confirm: target\n  probe: postgres", "confirm: audit\n  confirm_why: Nobody can ask it.")
    (templates / "postgres-readonly.yaml").write_text(text)
    extra = {"JITVAULT_TEMPLATES": str(templates)}
    proofs = {}
    for by, code in (("header", 12), ("body", 6)):
        file = spec()
        held = rig.use(rig("operator", "grant", file, extra=extra).json, read=False)
        opened(rig, read_as_jwt(rig, held), by=by)
        proofs[by] = rig("operator", "complete", file.stem, code=code, extra=extra).json
    assert [lease["verdict"] for lease in proofs["header"]["leases"]] == ["audit_confirmed"]
    (quiet,) = [check for check in proofs["body"]["token"]["checks"] if check["n"] == 7]
    assert (quiet["ok"], "its lease never showed" in rests_on(quiet)) == (False, True)
    assert proofs["body"]["leases"] == []


def test_one_read_in_a_wrapping_ends_the_task_when_it_is_asked_for(rig: Rig, spec: Spec) -> None:
    """The finding is about the request's own line: nobody waits for the answer, or for who opens it."""
    file, other = spec(), spec()
    held = rig.use(rig.granted(file), read=False)
    rig.active(other)
    assert ask(rig, "GET", PREFIX, held.token, headers={"X-Vault-Wrap-TTL": "60s"})[0] == 200
    shown = rig("operator", "status", file.stem, code=12).json
    (finding,) = shown["findings"]
    line = by_hash(rig.own_lines())[finding["line"]]
    assert (finding["rule"], line["type"], line["request"]["path"]) == ("wrapped_lease", "request", PREFIX)
    assert (shown["end_reason"], shown["proof"]["confirmed"]) == ("tripwire", True)
    assert not rig.is_live(held.token)
    assert rig("operator", "status", other.stem).json["state"] == "active"


def test_a_wrapping_of_less_than_a_second_is_no_way_around_it(rig: Rig, spec: Spec) -> None:
    """Its request line shows no wrapping."""
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    _, answer = ask(rig, "GET", PREFIX, held.token, headers={**AS_JWT, "X-Vault-Wrap-TTL": "900ms"})
    login = opened(rig, answer["wrap_info"]["token"], by="body")
    with dropped_under_its_session(rig, [login]) as (session,):
        shown = rig("operator", "status", file.stem, code=12).json
        assert ([found["rule"] for found in shown["findings"]], reads(session)) == (["wrapped_lease"], False)


def test_a_login_that_may_be_of_a_wrapped_read_keeps_its_task_from_being_confirmed(rig: Rig, spec: Spec) -> None:
    """A revocation that did nothing leaves one whose lease Vault does not list; what others have is theirs."""
    file, other = spec(), spec()
    held, theirs = rig.use(rig.granted(file), read=False), rig.use(rig.granted(other), read=False)
    before = rig.database_roles()
    read_as_jwt(rig, held)
    (login,) = rig.database_roles() - before
    list(read_all(rig.vault(theirs.token), theirs.task))
    left = f"{login[:17]}{'A' * 20}{login[37:]}"
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
        target.execute(f'CREATE ROLE "{left}" LOGIN'.encode())
        try:
            ended = rig("operator", "complete", file.stem, code=6).json
        finally:
            target.execute(f'DROP ROLE "{left}"'.encode())
    (quiet,) = [check for check in ended["token"]["checks"] if check["n"] == 7]
    assert (quiet["ok"], left in rests_on(quiet)) == (False, True)
    assert rig("operator", "complete", file.stem, code=12).json["confirmed"]
    assert rig("operator", "status", other.stem).json["state"] == "active"


@pytest.mark.usefixtures("mirrored")
def test_what_was_wrapped_keeps_its_task_from_being_sealed_also_where_its_lines_come_late(
    rig: Rig, mirror: Mirror, spec: Spec
) -> None:
    """A shipper brings them after the task was confirmed; its login is gone by then, and its session is not."""
    file, late = spec(), list[bytes]()
    held = rig.use(rig.granted(file), read=False)

    def keep(line: bytes) -> bool:
        if f'"path":"{PREFIX}"'.encode() in line:
            late.append(line)
            return False
        return True

    mirror.keep = keep
    login = opened(rig, read_as_jwt(rig, held), by="body")
    wait_for(lambda: len(late) == 2)
    mirror.keep = lambda _line: True
    with dropped_under_its_session(rig, [login]) as (session,):
        assert rig("operator", "complete", file.stem).json["confirmed"]
        assert reads(session)
        mirror.change(lambda path: path.open("ab").write(b"".join(late)))
        rig.settle()
        shown = rig("operator", "status", file.stem, code=None).json
        alive = reads(session)
        assert (shown["state"] == "sealed", alive) != (True, True)
        wait_for(lambda: rig("operator", "status", file.stem, code=None).json["state"] == "sealed")
        assert not reads(session)


@pytest.mark.usefixtures("mirrored")
def test_a_read_whose_answer_never_shows_is_looked_for_at_the_target(rig: Rig, mirror: Mirror, spec: Spec) -> None:
    """Of a wrapping of less than a second the request says nothing, and a login that was dropped is listed nowhere."""
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    mirror.keep = lambda line: not (f'"path":"{PREFIX}"'.encode() in line and b'"type":"response"' in line)
    _, answer = ask(rig, "GET", PREFIX, held.token, headers={**AS_JWT, "X-Vault-Wrap-TTL": "900ms"})
    login = opened(rig, answer["wrap_info"]["token"], by="body")
    mirror.sync()
    mirror.keep = lambda _line: True
    with dropped_under_its_session(rig, [login]) as (session,):
        rig.settle()
        assert rig("operator", "complete", file.stem).json["confirmed"]
        assert not reads(session)


@pytest.mark.usefixtures("mirrored")
def test_what_was_wrapped_within_a_gap_is_never_sealed_over(rig: Rig, mirror: Mirror, spec: Spec) -> None:
    """No line says that there was a read, and nothing is listed: its login is gone, and a session of it is not."""
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    rig("operator", "status", file.stem)
    mirror.keep = lambda line: f'"path":"{PREFIX}"'.encode() not in line
    login = opened(rig, read_as_jwt(rig, held), by="body")
    mirror.sync()
    mirror.keep = lambda _line: True
    mirror.change(lambda path: path.write_bytes(b""))
    rig("operator", "audit", "status", code=None)
    with dropped_under_its_session(rig, [login]) as (session,):
        assert rig("operator", "complete", file.stem).json["confirmed"]
        assert not reads(session)
        rig.settle()
        assert rig("operator", "status", file.stem).json["state"] == "sealed"


@pytest.mark.usefixtures("mirrored")
def test_what_another_task_read_within_the_same_gap_goes_on(rig: Rig, mirror: Mirror, spec: Spec) -> None:
    """No line shows whose login it is, so it may be this task's: it is not ended, and nothing is confirmed over it."""
    file, other = spec(), spec()
    rig.use(rig.granted(file), read=False)
    theirs = rig.use(rig.granted(other), read=False)
    for one in (file, other):
        rig("operator", "status", one.stem)
    mirror.keep = lambda line: f'"path":"{PREFIX}"'.encode() not in line
    (secret,) = read_all(rig.vault(theirs.token), theirs.task)
    mirror.sync()
    mirror.keep = lambda _line: True
    mirror.change(lambda path: path.write_bytes(b""))
    rig("operator", "audit", "status", code=None)
    login = {"user": secret.fields["username"], "password": secret.fields["password"]}
    with rig.connect(login) as session:
        ended = rig("operator", "complete", file.stem, code=6)
        assert not ended.json["confirmed"]
        assert reads(session)
    rig("operator", "complete", other.stem, code=None)
    wait_for(lambda: rig("operator", "complete", file.stem, code=None).json["confirmed"], 60)
