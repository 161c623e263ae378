"""What of the worker's client goes by facts, and what is sent each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from jitvault.audit.changes import Change
from jitvault.audit.source import Batch, Position
from jitvault.errors import VaultNotServing, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.vault.client import Connection, Vault
from jitvault.vault.documents import Documents
from jitvault.vault.facts import Facts
from jitvault.vault.identity import Identity
from jitvault.vault.responses import Fields, unknown
from jitvault.vault.tokens import Tokens
from jitvault.vault.transit import Transit
from jitvault.vault.worker_client import WorkerVault


class Clock:
    """A monotonic clock that somebody sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


class Answering(WorkerVault):
    """Counts what is sent, and answers each request with what it was."""

    def __init__(self, facts: Facts, sent: list[str]) -> None:
        super().__init__(Connection("http://127.0.0.1:1"), Secret("t"), facts)
        self.sent = sent
        facts.begin_at("file", Position("", 0, 1))

    def _answer(self, address: str, method: str, path: str, url: str, **how: Any) -> dict[str, Any]:
        self.sent.append(f"{method} {url.removeprefix('/v1/')}")
        if path == "gone":
            raise VaultUnavailable("away")
        if path == "standby":
            raise VaultNotServing("a standby")
        if path == "lost":
            self._session.lost += 1
            raise VaultUnavailable("the answer was lost")
        written = {"created_time": "2030-01-31T09:00:00Z", "version": 1}
        data = {
            "data": {"at": path},
            "metadata": written,
            "id": path,
            "name": path,
            "keys": {} if "transit" in path else ["a"],
            "version": 1,
            "accessor": "a",
        }
        return Fields({"data": data}, lambda name: unknown(method, name))


@contextmanager
def answering() -> Iterator[tuple[Answering, list[str], Clock]]:
    clock, sent = Clock(), list[str]()
    facts = Facts(clock)
    with facts.turn(), mock.patch.object(Vault, "_request_once", Answering._answer):
        yield Answering(facts, sent), sent, clock


def test_a_turn_reads_each_document_person_key_and_role_once() -> None:
    with answering() as (vault, sent, _):
        for _ in range(3):
            for who in ("e-1", "e-2"):
                Documents(vault).read(f"freezes/{who}/k")
                Documents(vault).names(f"freezes/{who}/")
                Documents(vault).earlier(f"freezes/{who}/k", 1)
                Identity(vault).by_id(who)
                Identity(vault).by_name(who)
                Transit(vault).public_keys(who)
                Tokens(vault).role(who)
                vault.read(f"sys/policies/acl/{who}")
        assert len(sent) == len(set(sent)) == 16


def test_an_entity_that_was_read_by_its_name_is_known_by_its_id() -> None:
    with answering() as (vault, sent, _):
        by_name = Identity(vault).by_name("otto")
        assert by_name is not None
        assert Identity(vault).by_id(by_name.id) == by_name
        assert Identity(vault).by_id("another") != by_name
        assert sent == ["get identity/entity/name/otto", "get identity/entity/id/another"]


def test_what_is_written_is_read_anew_and_listed_anew() -> None:
    with answering() as (vault, sent, clock):
        documents = Documents(vault)

        def look() -> list[str]:
            sent.clear()
            documents.read("tasks/t-1")
            documents.read("tasks/t-2")
            documents.names("tasks/")
            vault.list("auth/token/roles")
            return list(sent)

        assert len(look()) == 4
        clock.at += 0.01
        assert look() == []
        for write in (lambda: documents.put("tasks/t-1", {}), lambda: documents.destroy("tasks/t-1")):
            clock.at += 0.01
            write()
            clock.at += 0.01
            assert look() == ["get jitvault/data/tasks/t-1", "list jitvault/metadata/tasks/"]


def test_acts_and_questions_about_the_own_token_are_sent_each_time() -> None:
    with answering() as (vault, sent, _):
        for _ in range(2):
            Tokens(vault).lookup_self()
            vault.read("postgres/creds/x", op="1")
            vault.list("sys/leases/lookup/x", op="2")
            vault.list("sys/leases/lookup/x")
            vault.write("auth/token/renew-accessor", {"accessor": "a"})
            with pytest.raises(VaultUnavailable):
                vault.read("gone")
        assert len(sent) == 12


def test_a_client_of_anyone_else_goes_by_no_facts() -> None:
    with answering() as (vault, _, _clock):
        assert type(vault.with_token(Secret("t"))) is Vault


# -- facts --------------------------------------------------------------------------------------------------


def kept(vault: Answering, sent: list[str], clock: Clock, path: str = "auth/token/roles/r") -> bool:
    """Whether a turn that the stream covers reads nothing."""
    clock.at += 0.01
    sent.clear()
    with vault._facts.turn():
        vault._facts.reached(clock.at, ingested=True)
        vault.read(path)
    return not sent


def test_facts_are_kept_for_other_turns_and_decisions_are_not() -> None:
    with answering() as (vault, sent, clock):
        paths = ("auth/token/roles/r", "identity/entity/id/e", "jitvault/data/checks/t", "database/config/app")
        for path in (*paths, others := "jitvault/data/decisions/e/t"):
            kept(vault, sent, clock, path)
        assert all(kept(vault, sent, clock, path) for path in paths)
        assert not kept(vault, sent, clock, others)
        clock.at += 0.01
        vault.write("database/config/app")
        assert not kept(vault, sent, clock, "database/config/app")


def test_another_node_a_standby_and_a_lost_connection_drop_all_facts_and_an_error_does_not() -> None:
    with answering() as (vault, sent, clock):

        def ask(path: str) -> None:
            clock.at += 0.01
            with pytest.raises(VaultUnavailable):
                vault.read(path)
            clock.at += 0.01

        for path, is_kept in (("gone", True), ("standby", False), ("lost", False)):
            kept(vault, sent, clock)
            assert kept(vault, sent, clock)
            ask(path)
            assert kept(vault, sent, clock) == is_kept
        assert kept(vault, sent, clock)
        vault.connection = Connection("http://127.0.0.1:2")
        vault.read("jitvault/data/requests/e/t/end")
        assert not kept(vault, sent, clock)


def test_a_change_in_the_stream_shows_in_the_next_turn() -> None:
    with answering() as (vault, sent, clock):
        assert not kept(vault, sent, clock)
        assert kept(vault, sent, clock)
        clock.at += 0.01
        change = Change(("auth/token/roles/",), "r", closing=True)
        vault._facts.saw("file", Position("", 0, 1), Batch((), Position("", 100, 1), (), 1, (change,)))
        assert not kept(vault, sent, clock)
