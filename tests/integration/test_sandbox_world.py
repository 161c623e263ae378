"""The sandbox's little company is set up as the shipped templates tell an administrator to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jitvault.provision import init
from jitvault.sandbox import target
from jitvault.sandbox.servers import Servers, running_servers
from jitvault.sandbox.world import ENTITIES, World, env, provisioned, shipped_want
from jitvault.vault.client import Connection, Vault
from jitvault.vault.tokens import Tokens

TEMPLATES = Path(__file__).parents[2] / "templates"


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with running_servers() as running:
        yield running


@pytest.fixture(scope="module")
def world(servers: Servers) -> World:
    return provisioned(servers)


@pytest.fixture(scope="module")
def admin(world: World) -> Vault:
    return Vault(Connection(world.address), world.admin_token)


def documented(name: str) -> str:
    """The template's text without comment signs and line breaks."""
    lines = (TEMPLATES / name).read_text().splitlines()
    return " ".join(" ".join(line.lstrip("#").split()) for line in lines)


def test_the_statements_are_those_that_the_templates_document() -> None:
    for kind, statements in (("readonly", target.READONLY), ("readwrite", target.READWRITE)):
        text = documented(f"postgres-{kind}.yaml")
        creation = (target.CREATION[0], target.CREATION[1] % f"app_{kind}")
        for statement in (*statements, *creation, *target.REVOCATION):
            assert statement in text
        assert "WITH ADMIN TRUE, INHERIT FALSE, SET FALSE" in text


def test_everybody_is_who_they_say(world: World) -> None:
    assert set(world.entity_ids) == set(ENTITIES)
    tokens = {
        "operator": world.operator_token,
        "operator-2": world.operator_2_token,
        "approver-1": world.approver_1_token,
        "approver-2": world.approver_2_token,
        "research-agent": world.agent_token,
        "auditor": world.auditor_token,
        "worker": world.worker_token,
    }
    for name, token in tokens.items():
        if name == "auditor":
            continue  # reads documents only; not even its own token, but by the default policy
        facts = Tokens(Vault(Connection(world.address), token)).lookup_self()
        assert facts.entity_id == world.entity_ids[name]
        own = {"worker": ("jitvault-worker",), "research-agent": ()}
        assert facts.policies == own.get(name, ("default",))


def test_a_second_init_has_nothing_to_do(world: World, admin: Vault) -> None:
    plan = init.plan(admin, shipped_want())
    assert (plan.changes, plan.missing) == ((), ())


def test_each_role_gives_a_login_that_does_what_it_says(world: World, admin: Vault) -> None:
    read, write = "SELECT count(*) FROM orders", "UPDATE orders SET quantity = quantity + 1"
    for role, may_write in (("app-readonly", False), ("app-readwrite", True)):
        answer = admin.read(f"database/creds/{role}") or {}
        name, password = answer["data"]["username"], answer["data"]["password"]
        dsn = world.servers.postgres.dsn("app", user=name, password=password)
        with psycopg.connect(dsn, autocommit=True) as login:
            assert login.execute(read).fetchone() == (len(target.ORDERS),)
            if may_write:
                login.execute(write)
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    login.execute(write)
            for statement in ("CREATE TABLE mine ()", "CREATE ROLE mine"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    login.execute(statement)
            admin.write(f"sys/leases/revoke/{answer['lease_id']}", {"sync": True})
            with pytest.raises(psycopg.OperationalError):
                login.execute(read)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn)


def test_the_probe_sees_sessions_and_no_data(world: World, admin: Vault) -> None:
    answer = admin.read("jitvault/data/probes/postgres") or {}
    with psycopg.connect(answer["data"]["data"]["dsn"], autocommit=True) as probe:
        assert probe.execute("SELECT count(*) FROM pg_stat_activity WHERE usesysid IS NOT NULL").fetchone()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            probe.execute("SELECT * FROM public.orders")


def test_the_superuser_reaches_the_target(world: World) -> None:
    with psycopg.connect(world.target_dsn) as target_database:
        assert target_database.execute("SELECT customer FROM orders ORDER BY id").fetchall() == [
            (customer,) for customer, _, _ in target.ORDERS
        ]


def test_no_secret_is_in_its_repr(world: World) -> None:
    shown = repr(world)
    for name, value in env(world, "sqlite:///x", Path("spec.yaml")).items():
        if name.endswith(("_TOKEN", "_DSN")):
            assert value not in shown
    assert world.servers.postgres.superuser_password not in shown
