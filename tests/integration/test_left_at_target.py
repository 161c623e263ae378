"""What the holder of a PostgreSQL login leaves, and whom it keeps by that, on the wheel's server and on an older one.

The task that does it is another one than the task that is kept. Sizes are small, and so is the time for a statement.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attended import wait_for
from commands import EXAMPLE
from rig import Held, Rig, own_rig, role_with
from targets import LOCK, Clients, dsn, ended, large_objects, may_log_in, superuser, target_says, world_on

from jitvault.sandbox import target
from jitvault.sandbox.world import World, env

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]


@pytest.fixture(scope="module", params=["newest", "older"])
def attacked(request: pytest.FixtureRequest) -> Iterator[World]:
    with world_on(request.param) as world:
        yield world


@pytest.fixture
def rig(attacked: World, tmp_path: Path) -> Rig:
    return own_rig(attacked, env(attacked, "", EXAMPLE), tmp_path)


@contextmanager
def impatient(rig: Rig, limits: dict[int, str]) -> Iterator[None]:
    """A revocation whose parts have less time: as if what it has to remove were larger."""
    parts = list(target.REVOCATION)
    for n, limit in limits.items():
        parts[n], found = re.subn(r"statement_timeout = '\d+s'", f"statement_timeout = '{limit}'", parts[n])
        assert found
    try:
        with role_with(rig, revocation_statements=parts):
            rig.vouch()
            yield
    finally:
        rig.vouch()


def made(session: psycopg.Connection[Any]) -> int:
    (number,) = session.execute("SELECT lo_create(0)").fetchone()
    return int(number)


def share(session: psycopg.Connection[Any], number: int, *to: Held, how: str = "") -> None:
    names = ", ".join(f'"{one.login["user"]}"' for one in to)
    session.execute(f"GRANT SELECT, UPDATE ON LARGE OBJECT {number} TO {names} {how}".encode())


def left(rig: Rig, number: int) -> tuple[str, int]:
    """Whose a large object is, and how many rights on it there are."""
    query = "SELECT lomowner::regrole::text, cardinality(lomacl) FROM pg_largeobject_metadata WHERE oid = %s"
    with psycopg.connect(rig.world.target_dsn) as server:
        return server.execute(query, (number,)).fetchone() or ("", 0)


# -- large objects where nobody may make one -----------------------------------------------------------------


def test_no_login_makes_a_large_object_of_its_own(rig: Rig, spec: Spec) -> None:
    held, other = rig.active(spec()), rig.active(spec())
    superuser(
        rig.world,
        "app",
        "CREATE FUNCTION public.stored(bytea) RETURNS oid LANGUAGE sql SECURITY DEFINER "
        "AS 'SELECT pg_catalog.lo_from_bytea(0, $1)'",
    )
    try:
        with closing(rig.connect(held.login)) as session:
            for made_by in ("lo_create(0)", "lo_creat(-1)", "lo_from_bytea(0, 'x')", "lo_import('/etc/hostname')"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(f"SELECT {made_by}".encode())
            # a function of the application makes one of the application's
            (number,) = session.execute("SELECT public.stored('x')").fetchone()
            for wanted in (f"SELECT lo_put({number}, 0, 'y')", f"ALTER LARGE OBJECT {number} OWNER TO CURRENT_USER"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(wanted.encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                share(session, number, other)
    finally:
        superuser(rig.world, "app", "DROP FUNCTION public.stored", "SELECT lo_unlink(oid) FROM pg_largeobject_metadata")


# -- large objects where they are needed ---------------------------------------------------------------------


def test_a_giant_large_object_with_rights_for_everybody_keeps_nobody(rig: Rig, spec: Spec) -> None:
    with impatient(rig, {3: "150ms", 4: "100ms"}), large_objects(rig.world):
        mine, others = spec(), [spec(), spec()]
        held, victims = rig.active(mine), [rig.active(file) for file in others]
        with closing(rig.connect(held.login)) as session:
            number = made(session)
            share(session, number, *victims)
            session.execute(f"GRANT SELECT ON LARGE OBJECT {number} TO PUBLIC".encode())
        # what lo_put makes, sooner
        pages = f"SELECT {number}, n, 'x' FROM generate_series(1, 500000) AS n"
        superuser(rig.world, "app", f"INSERT INTO pg_largeobject {pages}")
        ended(rig, mine.stem)
        assert left(rig, number) == ("jitvault_leftover", 0)
        for file in others:
            ended(rig, file.stem)


def test_rights_that_others_granted_keep_nobody(rig: Rig, spec: Spec) -> None:
    """Of three logins each granted the next one a right, and all of them live."""
    files = [spec() for _ in range(3)]
    first, second, third = (rig.active(file) for file in files)
    with large_objects(rig.world), ExitStack() as stack:
        owner, grantee = (stack.enter_context(closing(rig.connect(one.login))) for one in (first, second))
        number = made(owner)
        share(owner, number, second, how="WITH GRANT OPTION")
        share(grantee, number, third)
        ended(rig, files[2].stem)
        assert owner.execute("SELECT 1").fetchone() == (1,)
        share(owner, made(owner), second)
        ended(rig, files[1].stem)
        ended(rig, files[0].stem)


def test_rights_on_what_a_login_gave_to_its_group_keep_nobody(rig: Rig, spec: Spec) -> None:
    """Before PostgreSQL 16 a member can give its group what it made; a login of another group grants rights on it."""
    mine, writing, other = spec(), spec(template="postgres-readwrite"), spec()
    rig("operator", "grant", writing, code=4)
    rig("approver-1", "approve", writing.stem, "--yes")
    held, grantee, victim = rig.active(mine), rig.active(writing), rig.active(other)
    with large_objects(rig.world):
        with closing(rig.connect(held.login)) as session:
            number = made(session)
            given = f"ALTER LARGE OBJECT {number} OWNER TO app_readonly".encode()
            if rig.world.servers.postgres.major < 16:
                session.execute(given)
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(given)
            share(session, number, grantee, how="WITH GRANT OPTION")
        with closing(rig.connect(grantee.login)) as session:
            share(session, number, victim)
        ended(rig, mine.stem)
        ended(rig, other.stem)


HELD_OPEN = {
    "a page": ("SELECT lo_put({number}, 0, 'x')",),
    "a grant": ("SAVEPOINT s", 'GRANT SELECT ON LARGE OBJECT {number} TO "{third}"', "RELEASE s"),
    "what is taken back": ('REVOKE SELECT ON LARGE OBJECT {number} FROM "{third}"',),
}


@pytest.mark.parametrize("what", HELD_OPEN)
def test_an_open_transaction_on_a_large_object_does_not_keep_who_made_it(rig: Rig, spec: Spec, what: str) -> None:
    mine, other, another = spec(), spec(), spec()
    held, victim, third = rig.active(mine), rig.active(other), rig.active(another)
    with large_objects(rig.world):
        with closing(rig.connect(victim.login)) as session:
            number = made(session)
            session.execute(f"SELECT lo_put({number}, 0, 'x')".encode())
            share(session, number, held, how="WITH GRANT OPTION")
        with closing(rig.connect(held.login)) as session:
            share(session, number, third)
        statements = [one.format(number=number, third=third.login["user"]) for one in HELD_OPEN[what]]
        with Clients(dsn(rig, held), 1 if what == "a page" else 8, ("BEGIN", *statements)):
            ended(rig, other.stem)
            ended(rig, another.stem)


# -- default privileges, settings, a password ----------------------------------------------------------------


@pytest.mark.parametrize("whose", ["", "FOR ROLE app_readonly"], ids=["of its own", "of the group"])
def test_default_privileges_that_a_login_changes_keep_nobody_who_has_some(rig: Rig, spec: Spec, whose: str) -> None:
    mine, other, another = spec(), spec(), spec()
    held, victim, third = rig.active(mine), rig.active(other), rig.active(another)
    change = f"ALTER DEFAULT PRIVILEGES {whose} GRANT SELECT ON TABLES TO"
    with closing(rig.connect(held.login)) as session:
        session.execute(f'{change} "{victim.login["user"]}"'.encode())
    with Clients(dsn(rig, held), 8, ("BEGIN", "SAVEPOINT s", f'{change} "{third.login["user"]}"', "RELEASE s")):
        ended(rig, other.stem)
    ended(rig, mine.stem)
    ended(rig, another.stem)


def test_settings_that_are_large_in_each_database_do_not_keep_a_login(rig: Rig, spec: Spec) -> None:
    with impatient(rig, {5: "80ms"}):
        file = spec()
        held = rig.active(file)
        with closing(rig.connect(held.login)) as session:
            for database in ("app", "postgres", "template0", "template1"):
                setting = f"SET local_preload_libraries = '{secrets.token_hex(6_000_000)}'"
                session.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {database} {setting}".encode())
        wait_for(lambda: rig("operator", "complete", file.stem, code=None).json["confirmed"], 15)


def test_a_login_is_closed_and_its_password_removed_whatever_comes_after(rig: Rig, spec: Spec) -> None:
    """Before PostgreSQL 18 a password can have hundreds of megabytes, which every later statement would read."""
    closing_only = [*target.REVOCATION[:2], "DO $$ BEGIN RAISE EXCEPTION 'no'; END $$;"]
    closed = "SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = %s"
    file = spec()
    with role_with(rig, revocation_statements=closing_only):
        rig.vouch()
        held = rig.active(file)
        ended(rig, file.stem, code=6)
        with psycopg.connect(rig.world.target_dsn) as server:
            assert server.execute(closed, (held.login["user"],)).fetchone() == (False, None)
    rig.vouch()
    (lease,) = rig.record(file.stem).leases
    rig.admin.write(f"sys/leases/revoke/{lease.lease_id}", {"sync": True})


# -- what keeps a role from being dropped --------------------------------------------------------------------


def test_what_a_login_leaves_in_its_database_does_not_keep_it(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with rig.connect(held.login) as session:
        session.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    ended(rig, file.stem)
    assert held.login["user"] not in rig.database_roles()


def test_a_login_that_cannot_be_dropped_cannot_log_in_and_is_not_called_gone(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    superuser(rig.world, "postgres", "GRANT CONNECT ON DATABASE postgres TO PUBLIC")
    try:
        with psycopg.connect(rig.world.servers.postgres.dsn("postgres", **held.login)) as session:
            session.execute("SELECT lo_create(0)")
        with Clients(dsn(rig, held), 2, LOCK):
            answer = ended(rig, file.stem, code=6)
            assert not may_log_in(rig, held)
        assert answer["leases"][0]["verdict"] == "revoke_failed"
        assert "cannot be dropped" in answer["leases"][0]["error"]
        said = "cannot log in, but still exists; 0 of its sessions open"
        assert said in target_says(answer)
        assert said in rig("operator", "status", file.stem, code=None).json["proof"]["unproven_because"]
        assert held.login["user"] in rig.database_roles()
        superuser(rig.world, "postgres", f'DROP OWNED BY "{held.login["user"]}"')
    finally:
        superuser(rig.world, "postgres", "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    assert ended(rig, file.stem)["leases"][0]["verdict"] == "target_confirmed"


def test_a_lock_on_the_role_of_somebody_else_does_not_keep_that_one(rig: Rig, spec: Spec) -> None:
    victims, mine = spec(), spec()
    victim, held = rig.active(victims), rig.active(mine)
    with closing(rig.connect(held.login)) as session:
        session.execute("BEGIN")
        session.execute(f'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "{victim.login["user"]}"')
        begun = time.monotonic()
        ended(rig, victims.stem)
        assert time.monotonic() - begun < 10
        assert not rig.lease_is_live(victim.lease_id)
    ended(rig, mine.stem)
