"""The worker's client: what it reads are facts, and what it writes is read anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from jitvault.audit.changes import DOCUMENTS, document_place, places_of
from jitvault.errors import VaultNotServing
from jitvault.formats.secret import Secret
from jitvault.vault.client import Bearer, Connection, Vault
from jitvault.vault.facts import Facts
from jitvault.vault.responses import READS

_BY_NAME, _BY_ID = "identity/entity/name/", "identity/entity/id/"
_LEASES = "sys/leases"


class WorkerVault(Vault):
    """A connection of the worker's that goes by the facts of its process."""

    def __init__(self, connection: Connection, token: Secret | Bearer | None, facts: Facts) -> None:
        super().__init__(connection, token)
        self._facts = facts

    def _or_none(self, method: str, path: str, *, op: str | None = None, query: str = "", **how: Any) -> Any:
        ask = partial(super()._or_none, method, path, op=op, query=query, **how)
        # a read with an operation id is an act; the token that asks about itself may be replaced, and what is looked up
        # to see whether it is gone may go, at any time
        if op is not None or path.endswith("-self") or path.startswith(_LEASES):
            return ask()
        own = (_document(f"{path.rstrip('/')}/" if method == "list" else path),)
        answer = self._facts.of((method, path, query), ask, own=own, places=partial(places_of, path))
        if path.startswith(_BY_NAME) and answer is not None:
            # the same entity is asked for by its id right afterwards
            self._facts.also((method, _BY_ID + str(answer["data"]["id"]), query), (method, path, query))
        return answer

    def ask(self, path: str, body: Mapping[str, Any], *, op: str | None = None, **how: Any) -> dict[str, Any]:
        if op is None or not path.startswith(DOCUMENTS):
            return super().ask(path, body, op=op, **how)
        with self._facts.own_write(op, document_place(path)) as know:
            metadata = super().ask(path, body, op=op, **how)
            # as it is read: what JSON makes of it
            answer = {"data": {"data": json.loads(json.dumps(body["data"])), "metadata": metadata}}
            know(("get", path, ""), answer, (path,), places_of(path, answer))
        return metadata

    def _request(self, method: str, path: str, **how: Any) -> Any:
        try:
            return super()._request(method, path, **how)
        finally:
            if method not in READS:
                self._facts.wrote(*_written(path))

    def _request_once(self, address: str, method: str, path: str, url: str, **how: Any) -> Any:
        """Send a request; drop all facts where the server may be another one than before.

        A 500 drops nothing: an agent can cause one.
        """
        self._facts.asks(address)
        lost_before = self.lost_connections
        try:
            return super()._request_once(address, method, path, url, **how)
        except VaultNotServing:
            self._facts.drop()
            raise
        finally:
            if self.lost_connections != lost_before:
                self._facts.drop()


def _written(path: str) -> list[str]:
    """Return what a write to a path may change: the document, and the list of each folder above it."""
    document = _document(path)
    return [document, *(document[: n + 1] for n, letter in enumerate(document) if letter == "/")]


def _document(path: str) -> str:
    """Return the place of a document, whichever part of KV names it."""
    return path.replace("/metadata/", "/data/", 1)
