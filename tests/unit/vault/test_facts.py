"""How long an answer of Vault's counts: for the turn that asked, and for others a second; never past a write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jitvault.errors import VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.vault.client import Connection, Vault
from jitvault.vault.documents import Documents
from jitvault.vault.facts import RECENT_S, Facts, WorkerVault
from jitvault.vault.identity import Identity
from jitvault.vault.responses import Fields, unknown
from jitvault.vault.tokens import Tokens
from jitvault.vault.transit import Transit


class Clock:
    """A monotonic clock that somebody sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


class Asker:
    """Asks through facts, and tells which question the answer came to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.facts = Facts(self.clock)
        self.times = 0

    def ask(self, key: str = "k", **how: Any) -> int:
        return self.facts.of(key, self._answer, **how)

    def _answer(self) -> int:
        self.times += 1
        return self.times


@pytest.fixture
def asker() -> Asker:
    return Asker()


# -- turns --------------------------------------------------------------------------------------------------


def test_outside_of_a_turn_every_question_is_asked(asker: Asker) -> None:
    assert [asker.ask(), asker.ask()] == [1, 2]
    with asker.facts.turn(shared=True):
        pass
    assert asker.ask() == 3


def test_a_turn_asks_once_and_goes_by_nothing_from_before_it_began(asker: Asker) -> None:
    with asker.facts.turn():
        assert [asker.ask(), asker.ask(), asker.ask("another")] == [1, 1, 2]
    asker.clock.at += 0.1
    with asker.facts.turn():
        assert [asker.ask(), asker.ask()] == [3, 3]


def test_a_turn_within_a_turn_begins_anew_and_gives_way_to_it_again(asker: Asker) -> None:
    with asker.facts.turn():
        asker.ask()
        asker.clock.at += 0.1
        with asker.facts.turn():
            assert asker.ask("inner") == 2
            assert asker.ask() == 3
        assert asker.ask() == 3
    with pytest.raises(ZeroDivisionError), asker.facts.turn(shared=True):
        raise ZeroDivisionError
    assert not asker.facts.is_shared


def test_shared_turns_go_by_each_others_answers_and_by_no_one_elses(asker: Asker) -> None:
    with asker.facts.turn():
        assert not asker.facts.is_shared and asker.ask() == 1
        for n in (2, 2, 2):
            with asker.facts.turn(shared=True):
                assert asker.facts.is_shared and asker.ask() == n
            asker.clock.at += 0.1
        assert asker.ask() == 1
    assert asker.ask() == 3
    with asker.facts.turn(shared=True):
        assert asker.ask() == 2


def test_a_turn_is_that_of_one_thread(asker: Asker) -> None:
    found: list[int] = []
    with asker.facts.turn():
        asker.ask()
        other = threading.Thread(target=lambda: found.append(asker.ask()))
        other.start()
        other.join()
        assert asker.ask() == 1
    assert found == [2]


# -- ages ---------------------------------------------------------------------------------------------------


def test_no_answer_counts_for_longer_than_a_second_however_long_the_turn(asker: Asker) -> None:
    with asker.facts.turn():
        assert asker.ask() == 1
        asker.clock.at += RECENT_S - 0.001
        assert asker.ask() == 1
        asker.clock.at += 0.001
        assert asker.ask() == 2


def test_an_answer_is_as_old_as_its_question(asker: Asker) -> None:
    def slow() -> str:
        asker.clock.at += 0.9
        return "old"

    with asker.facts.turn():
        assert asker.facts.of("k", slow) == "old"
        asker.clock.at += 0.2
        assert asker.facts.of("k", lambda: "new") == "new"


def test_who_needs_a_younger_one_asks_and_nobody_gets_an_older_one(asker: Asker) -> None:
    with asker.facts.turn(shared=True):
        asker.ask()
        asker.clock.at += 0.5
        assert asker.ask(at_most_s=0.4) == 2
        assert asker.ask(at_most_s=0.0) == 3
        assert asker.ask(at_most_s=-1.0) == 4
        asker.clock.at += 5
        assert asker.ask(at_most_s=3600.0) == 5


def test_what_failed_is_asked_again_and_what_is_old_is_forgotten(asker: Asker) -> None:
    with asker.facts.turn():
        with pytest.raises(ZeroDivisionError):
            asker.facts.of("k", lambda: 1 // 0)
        assert asker.ask() == 1
        for n in range(50):
            asker.clock.at += RECENT_S
            asker.ask(f"k{n}")
            asker.facts.wrote(f"here {n}")
    assert len(asker.facts._answers) <= 2 and len(asker.facts._written) <= 2


# -- writes -------------------------------------------------------------------------------------------------


def test_what_was_written_is_asked_anew_and_the_rest_is_not(asker: Asker) -> None:
    with asker.facts.turn():
        asker.ask(place="here")
        asker.ask("another", place="there")
        asker.clock.at += 0.1
        asker.facts.wrote("here", "and here")
        asker.clock.at += 0.1
        assert [asker.ask("another", place="there"), asker.ask(place="here"), asker.ask(place="here")] == [2, 3, 3]


def test_an_answer_that_was_under_way_during_a_write_serves_nobody_after_it(asker: Asker) -> None:
    def overtaken() -> str:
        asker.clock.at += 0.1
        asker.facts.wrote("here")
        return "from before the write"

    with asker.facts.turn():
        assert asker.facts.of("k", overtaken, place="here") == "from before the write"
        assert asker.facts.of("k", lambda: "after it", place="here") == "after it"


class Answering(WorkerVault):
    """Counts what is sent, and answers each request with what it was."""

    def __init__(self, facts: Facts, sent: list[str]) -> None:
        super().__init__(Connection("http://127.0.0.1:1"), Secret("t"), facts)
        self.sent = sent

    def _request_once(self, address: str, method: str, path: str, url: str, **how: Any) -> dict[str, Any]:
        self.sent.append(f"{method} {url.removeprefix('/v1/')}")
        if path == "gone":
            raise VaultUnavailable("away")
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
    with facts.turn():
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
