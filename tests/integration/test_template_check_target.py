"""What the check of a template and `doctor` find at a PostgreSQL target before an agent uses it, and one that did.

Each test changes the target or the role and puts it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rig import Rig, role_with
from targets import large_objects, superuser

from jitvault.engines.postgresql import sessions
from jitvault.sandbox import target

pytestmark = pytest.mark.usefixtures("lab", "hurried")
NAME = "postgres-readonly"
CONNECTION = "database/config/app"

OLD_CREATION = [
    """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';""",
    """GRANT app_readonly TO "{{name}}";""",
]
OLD_REVOCATION = [
    """DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') """
    """THEN ALTER ROLE "{{name}}" NOLOGIN; END IF; END $$;""",
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = '{{name}}';",
    'DROP ROLE IF EXISTS "{{name}}";',
]
"""What shipped before: right against everybody but the holder of the login."""
UNLINKING = [
    *target.REVOCATION[:3],
    """DO $$ BEGIN GRANT "{{name}}" TO CURRENT_USER; DROP OWNED BY "{{name}}"; """
    "EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; END $$; COMMIT AND CHAIN;",
    'DROP ROLE IF EXISTS "{{name}}";',
]
"""Right against each login by itself: it unlinks large objects, and waits for what another login holds."""
UNSET = ("ALTER ROLE vault_manager RESET search_path", "ALTER ROLE vault_manager SET search_path = pg_catalog, pg_temp")
ANYBODY = ("GRANT CREATE ON SCHEMA public TO PUBLIC", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")


@contextmanager
def at_target(rig: Rig, *changes: tuple[str, str]) -> Iterator[None]:
    """Statements of the superuser's, and what undoes each."""
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target, ExitStack() as stack:
        for statement, undo in changes:
            target.execute(statement.encode())
            stack.callback(target.execute, undo.encode())
        yield


def check(rig: Rig, *, code: int) -> dict[str, dict[str, Any]]:
    """The steps that are not ok, by name; nothing is left behind."""
    (path,) = rig("admin", "templates", "check", NAME, code=code).json["paths"]
    assert path["left_behind"] == []
    assert {step["n"] for step in path["steps"]} == set(range(1, 21))
    return {step["name"]: step for step in path["steps"] if not step["ok"]}


def told(rig: Rig) -> dict[str, dict[str, Any]]:
    """What `doctor` says of the targets, by what it is about."""
    found = rig("admin", "doctor", code=None).json["checks"]
    return {one["name"].rpartition(": ")[2]: one for one in found if one["area"] == "targets"}


def test_the_statements_that_shipped_before_fail_at_the_steps_that_say_why(rig: Rig) -> None:
    before = rig.database_roles()
    with role_with(rig, creation_statements=OLD_CREATION, revocation_statements=OLD_REVOCATION):
        failed = check(rig, code=6)
    # the login that sleeps also helps another one to resist, and is kept by that
    assert set(failed) == {"bounded", "sleeper_ended", "lock_outlasted", "owner_dropped", "many_ended"}
    assert "may open every connection" in failed["bounded"]["evidence"]
    assert "may SET ROLE to app_readonly, and its sessions keep those rights" in failed["bounded"]["evidence"]
    assert "WITH INHERIT TRUE, SET FALSE" in failed["bounded"]["mend"]
    assert "holds a lock on the login's own role; Vault could not revoke" in failed["lock_outlasted"]["evidence"]
    assert "cannot be dropped because" in failed["owner_dropped"]["evidence"]
    assert "could have opened more" in failed["many_ended"]["evidence"]
    assert rig.database_roles() <= before


@pytest.mark.parametrize("allowed", [False, True], ids=["without large objects", "with large objects"])
def test_statements_that_wait_for_what_another_login_holds_fail_at_that_step(rig: Rig, allowed: bool) -> None:
    with large_objects(rig.world) if allowed else nullcontext():
        assert check(rig, code=0) == {}
        with role_with(rig, revocation_statements=UNLINKING):
            failed = check(rig, code=6)
        superuser(rig.world, "app", "SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    # a right on a large object keeps the other login as well
    assert set(failed) == {"owner_dropped"} | ({"sleeper_ended"} if allowed else set())
    said = failed["owner_dropped"]["evidence"]
    assert ("a large object that is shared" if allowed else "the target forbids a large object") in said
    assert "Vault could not revoke the lease" in said


def test_a_probe_that_does_not_see_sleepers_fails_at_that_step(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_nameless", lambda target: set())
    failed = check(rig, code=6)
    assert set(failed) == {"sleeper_ended"}
    assert "the connection still sleeps" in failed["sleeper_ended"]["evidence"]


def test_what_lets_an_agents_code_or_lock_reach_a_stronger_login_is_refused(rig: Rig) -> None:
    trigger = "CREATE FUNCTION owned() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'"
    changes = [
        UNSET,
        ANYBODY,
        (
            "ALTER ROLE jitvault_probe IN DATABASE app SET search_path = public",
            "ALTER ROLE jitvault_probe IN DATABASE app RESET ALL",
        ),
        ("GRANT CREATE ON DATABASE app TO app_readonly", "REVOKE CREATE ON DATABASE app FROM app_readonly"),
        (trigger, "DROP FUNCTION owned CASCADE"),
        ("ALTER FUNCTION owned() OWNER TO app_readonly", "SELECT"),
        ("CREATE EVENT TRIGGER watched ON ddl_command_start EXECUTE FUNCTION owned()", "SELECT"),
        ("ALTER ROLE vault_manager RESET lock_timeout", "ALTER ROLE vault_manager SET lock_timeout = '1s'"),
        (
            "ALTER ROLE vault_manager SET statement_timeout = '1h'",
            "ALTER ROLE vault_manager SET statement_timeout = '10s'",
        ),
        ("GRANT CONNECT ON DATABASE postgres TO PUBLIC", "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC"),
        ("GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC", "REVOKE EXECUTE ON FUNCTION lo_create(oid) FROM PUBLIC"),
        ("REVOKE jitvault_leftover FROM vault_manager", "GRANT jitvault_leftover TO vault_manager"),
        ("SELECT lo_create(4711)", "SELECT lo_unlink(4711)"),
        ("ALTER LARGE OBJECT 4711 OWNER TO jitvault_leftover", "SELECT"),
    ]
    rig.admin.write(CONNECTION, {"max_open_connections": 4})
    try:
        with at_target(rig, *changes):
            failed, found = check(rig, code=6), told(rig)
    finally:
        rig.admin.write(CONNECTION, {"max_open_connections": 20})
    code = {
        *("search_path of vault_manager", "search_path of jitvault_probe", "CREATE in public"),
        *("CREATE in the database", "event trigger watched"),
    }
    bounds = {
        *("lock_timeout of vault_manager", "statement_timeout of vault_manager", "Vault's connections"),
        *("large objects", "rights to pass on"),
    }
    assert {about for about, one in found.items() if one["status"] == "fail"} == code | bounds
    warned = {about for about, one in found.items() if one["status"] == "warn"}
    assert warned == {"other databases", "large objects that are left"}
    assert "4711" in found["large objects that are left"]["seen"]
    assert set(failed) == {"no_foreign_code", "bounded"}
    for about in code | bounds:
        step = failed["no_foreign_code" if about in code else "bounded"]
        assert found[about]["mend"] in step["mend"]
    assert told(rig)["postgres-readonly, postgres-readwrite"]["status"] == "ok"


@pytest.mark.parametrize("shipped", [True, False], ids=["as shipped", "as it shipped before"])
def test_an_agents_function_is_not_run_by_the_revocation(rig: Rig, spec: Callable[..., Path], shipped: bool) -> None:
    """Where everybody may CREATE in `public`, a function of the agent's is a better match than the one meant.

    It removes itself, so that DROP ROLE succeeds and everything that it did is kept.
    """
    trap = """
        CREATE FUNCTION public.pg_terminate_backend(integer, integer) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            CREATE ROLE stands LOGIN PASSWORD 'x' IN ROLE app_readwrite;
            GRANT "{user}" TO CURRENT_USER;
            DROP FUNCTION public.pg_terminate_backend(integer, integer);
            RETURN pg_catalog.pg_terminate_backend($1, $2);
        END $$
    """
    statements = {} if shipped else {"creation_statements": OLD_CREATION, "revocation_statements": OLD_REVOCATION}
    changes = [ANYBODY] if shipped else [ANYBODY, UNSET]
    with role_with(rig, **statements), at_target(rig, *changes):
        # what is set for a role is so in its new connections
        rig.admin.write("database/reset/app")
        rig.vouch()
        file = spec()
        login = rig.active(file).login
        with rig.connect(login) as agent:
            agent.execute(trap.replace("{user}", login["user"]).encode())
            rig("operator", "complete", file.stem, code=None)
        with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
            stands = target.execute("SELECT FROM pg_roles WHERE rolname = 'stands'").fetchall()
            target.execute("DROP ROLE IF EXISTS stands")
    rig.admin.write("database/reset/app")
    # the second case shows that the attack is one
    assert bool(stands) is not shipped
