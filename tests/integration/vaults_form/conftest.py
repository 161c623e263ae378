"""Tests of others once more, where jitvault reads the lines of the live server in HashiCorp Vault's form.

Each file here names the tests that run again, and why these: on Vault a line shows a token by other HMACs, and no
numbers of a request. Decisions, policies and documents do not come from lines, and their tests run once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from commands import EXAMPLE
from copied_world import copied_world
from hands import Mirror
from stage import Stage, Staging, staged
from vaults_form import VaultsForm

from jitvault.sandbox.world import World, env


@contextmanager
def in_vaults_form(world: World) -> Iterator[World]:
    """The world whose audit file has the lines that come from now on, in Vault's form."""
    with (
        TemporaryDirectory(prefix="jitvault-form-", ignore_cleanup_errors=True) as directory,
        closing(Mirror(world.audit_file, Path(directory) / "audit.log", VaultsForm())) as mirror,
    ):
        yield replace(world, audit_file=mirror.path)


@contextmanager
def staged_in_vaults_form() -> Iterator[Stage]:
    with staged() as stage, in_vaults_form(stage.world) as world:
        yield replace(stage, world=world, variables=env(world, "sqlite:////nowhere", EXAMPLE))


@pytest.fixture(scope="module")
def world(world: World) -> Iterator[World]:
    with in_vaults_form(world) as found:
        yield found


@pytest.fixture(scope="module")
def lab() -> Iterator[World]:
    with copied_world() as copied, in_vaults_form(copied) as found:
        yield found


@pytest.fixture
def staging() -> Staging:
    return staged_in_vaults_form


@pytest.fixture
def mirror(world: World, tmp_path: Path) -> Iterator[Mirror]:
    """Of the server's own file, since a copy of a copy has a line later."""
    with closing(Mirror(world.servers.vault.audit_file, tmp_path / "mirror.log", VaultsForm())) as copy:
        yield copy
