"""What holds for any engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jitvault.audit.entry import Request
from jitvault.audit.hazard_paths import is_hazard
from jitvault.engines.database import DatabaseEngine
from jitvault.engines.interface import Engine, Probe, Read, check_template, probe_of
from jitvault.engines.pki.engine import PkiEngine
from jitvault.errors import InvalidInput, NotConfirmed
from jitvault.model.template import TemplateBody
from jitvault.provision.mounts import PlainKeys, plain_keys


class Bare(Engine):
    """An engine that has what it must have, and nothing else."""

    name = "bare"

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        return {}

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        return ()


class OnADatabase(Bare):
    """An engine of its own for a mount of the type `database`, whose target names a credential otherwise."""

    name = "other-sql"
    mount_type = "database"
    probe = cast(Probe, SimpleNamespace(credential_key="account"))


def template(**fields: object) -> TemplateBody:
    return cast(TemplateBody, SimpleNamespace(**{"probe": None, "accepted_after_end": None, **fields}))


def test_a_template_cannot_name_a_probe_where_its_engine_has_none() -> None:
    check_template(Bare(), template())
    with pytest.raises(InvalidInput, match="the engine bare has no probe"):
        check_template(Bare(), template(probe="hosts"))
    check_template(DatabaseEngine(), template(probe="pg"))


def test_an_engine_without_a_probe_gives_no_answer_of_its_target() -> None:
    with pytest.raises(NotConfirmed, match="not probed"):
        probe_of(Bare())


@pytest.mark.parametrize(
    ("engine", "path", "renewed"),
    [(DatabaseEngine(), "creds/app", ()), (PkiEngine(), "issue/web", ("own/crl/rotate",))],
    ids=["database", "pki"],
)
def test_a_write_to_what_an_engines_snapshot_reads_is_a_hazard(
    engine: Engine, path: str, renewed: tuple[str, ...]
) -> None:
    for read in engine.worker_paths("own", path):
        written = {"operation": "update", "path": read.replace("*", "x")}
        assert read in renewed or is_hazard(cast(Request, SimpleNamespace(**written))), read


def test_what_an_engine_may_leave_out_asks_for_nothing() -> None:
    def read(path: str) -> Mapping[str, Any] | None:
        raise AssertionError(path)

    bare = Bare()
    assert (bare.probe, bare.trial, bare.limits(template()), bare.upkeep(read, "own")) == (None, None, None, None)


def test_engines_of_one_type_share_a_mount_and_others_do_not() -> None:
    engines = {"database": DatabaseEngine(), "other-sql": OnADatabase(), "bare": Bare()}

    def plain(**on: str) -> list[PlainKeys]:
        templates = {
            name: SimpleNamespace(spec=SimpleNamespace(mount=mount, engine=engine_of[name]))
            for name, mount in on.items()
        }
        return list(plain_keys(cast(Any, templates), engines))

    engine_of = {"app": "database", "other": "other-sql", "bare": "bare"}
    assert plain(app="db", other="db", bare="x") == [
        PlainKeys("db", "database", ("account", "username")),
        PlainKeys("x", "bare", ()),
    ]
    with pytest.raises(InvalidInput, match="db/ is of the type database in another template"):
        plain(app="db", bare="db")
