"""A survey of long audit files, and the claim that nobody may take meanwhile."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ledgers import address, bind, new_file

from jitvault.audit.files.file_source import FileSource
from jitvault.errors import WrongState
from jitvault.ledger.claims import take
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import opened
from jitvault.recovery.recover import _keeps
from jitvault.recovery.survey import _read_files


def _line(n: int) -> bytes:
    request = {"id": f"r-{n}", "path": "sys/audit-hash/jitvault", "data": {"input": f"n-{n}"}}
    return json.dumps({"time": "2026-11-24T15:43:07Z", "type": "response", "request": request}).encode() + b"\n"


def test_while_long_files_are_read_others_have_their_turn(tmp_path: Path) -> None:
    file, turns = tmp_path / "audit.log", list[int]()
    file.write_bytes(b"".join(map(_line, range(20_000))))
    worker: Any = SimpleNamespace(sources=SimpleNamespace(present=lambda: [FileSource(file, name="audit")]))
    assert _read_files(worker, lambda: turns.append(1)).lines == 20_000
    assert len(turns) > 5


def test_a_survey_keeps_its_claim_however_long_it_takes(tmp_path: Path) -> None:
    database = opened(address(bind(new_file(tmp_path / "ledger.db"), "i-1")), create=False)
    ledger, seconds = Ledger(database), count(0.0, 10.0)

    def is_free() -> bool:
        return take(database, schema.installation.c.one, 1) is not None

    with ledger.claim_sweep() as claim:
        worker: Any = SimpleNamespace(ledger=ledger, clock=SimpleNamespace(monotonic=lambda: next(seconds)))
        keep = _keeps(worker, claim)
        for _ in range(2):
            # as if 30 s had passed
            database.write(lambda c: c.execute(schema.installation.update().values(claim_until=0)))
            keep()
            assert not is_free()
        database.write(lambda c: c.execute(schema.installation.update().values(claim_until=0)))
        assert is_free()
        with pytest.raises(WrongState):
            keep()
    database.close()
