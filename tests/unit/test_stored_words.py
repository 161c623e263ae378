"""Words that are stored or read by scripts: no change of a name in the code may change one of them.

`tests/data/stored-words.yaml` is the list. A new word is added there. From the first release on none is taken out and
none is renamed, since ledgers, published documents and scripts have the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml

from jitvault import errors
from jitvault.audit import observation
from jitvault.audit.tripwires import trip
from jitvault.doctor import check
from jitvault.documents.paths import Kept
from jitvault.formats import server_product as product
from jitvault.ledger.documents.index import DocumentStatus
from jitvault.ledger.documents.judgements import Judgement
from jitvault.ledger.model import GapKind, OpState
from jitvault.ledger.storage import schema
from jitvault.model import evidence, notice
from jitvault.model import states as lifecycle
from jitvault.model.kinds import EventKind, LookupAnswer, OperationKind
from jitvault.policy import decision as policy
from jitvault.policy import question
from jitvault.recovery.outcomes import RecoveryAction
from jitvault.stream.status import Trust
from jitvault.sweep import compare as sweep
from jitvault.sweep.missing import MissingCause

STORED: Mapping[str, Any] = yaml.safe_load((Path(__file__).parent.parent / "data" / "stored-words.yaml").read_text())
ENUMS: Mapping[str, type[Enum]] = {
    "event kinds": EventKind,
    "operation kinds": OperationKind,
    "operation states": OpState,
    "answers of look-ups": LookupAnswer,
    "task states": lifecycle.State,
    "end reasons": lifecycle.EndReason,
    "verdicts": lifecycle.Verdict,
    "risk levels": policy.Level,
    "proof levels": policy.ProofLevel,
    "policy actions": question.Action,
    "observation kinds": observation.Kind,
    "tripwires": trip.Rule,
    "notice kinds": notice.Kind,
    "classes of credentials": sweep.Class,
    "causes of missing credentials": MissingCause,
    "recovery actions": RecoveryAction,
    "what a worker took in": Kept,
    "kinds of gaps": GapKind,
    "standings of documents": DocumentStatus,
    "judgements of requests": Judgement,
    "states of the stream": Trust,
    "results of checks": check.Status,
    "abilities": check.Ability,
    "products": product.Product,
    "what a check lacks": evidence.Lack,
    "how a gap is closed": evidence.Closed,
    "reads without a lease": evidence.ReadKind,
}
EXITS: Mapping[str, type[errors.JitvaultError]] = {
    "a bug": errors.JitvaultError,
    "wrong usage": errors.UsageError,
    "denied": errors.Denied,
    "approval missing": errors.ApprovalMissing,
    "vault or target unavailable": errors.VaultUnavailable,
    "end not confirmed": errors.NotConfirmed,
    "audit stream not trusted": errors.AuditUntrusted,
    "invalid input": errors.InvalidInput,
    "wrong state": errors.WrongState,
    "refused by vault": errors.VaultRefused,
    "ledger unavailable": errors.LedgerUnavailable,
    "security finding": errors.SecurityFinding,
    "wait timed out": errors.WaitTimedOut,
}


@pytest.mark.parametrize("name", ENUMS)
def test_a_stored_word_stays_as_it_is(name: str) -> None:
    assert sorted(str(member.value) for member in ENUMS[name]) == STORED["words"][name]


def test_the_columns_of_the_ledger_stay_as_they_are() -> None:
    found = {name: sorted(column.name for column in table.columns) for name, table in schema.metadata.tables.items()}
    assert found == STORED["columns"]


def test_each_exit_code_keeps_its_meaning() -> None:
    assert {meaning: kind.exit_code for meaning, kind in EXITS.items()} == STORED["exit codes"]
    kinds = {errors.JitvaultError, *errors.JitvaultError.__subclasses__()}
    assert kinds == set(EXITS.values()), "a kind of error with an exit code of its own is not in this list"
