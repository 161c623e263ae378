"""What holds for any engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jitvault.audit.entry import Request
from jitvault.audit.hazard_paths import is_hazard
from jitvault.engines.database import DatabaseEngine
from jitvault.engines.interface import Engine, Read, check_template, probe_of
from jitvault.engines.pki.engine import PkiEngine
from jitvault.errors import InvalidInput, NotConfirmed
from jitvault.model.template import TemplateBody


class Bare(Engine):
    """An engine that has what it must have, and nothing else."""

    name = "bare"

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        return {}

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        return ()


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
