"""Whether a receipt says of its task what the approved revision says.

The revision's bytes are beside its digest in the subject of the statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from jitvault.documents.receipt import Statement
from jitvault.formats.canonical_json import sha256_hex
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import PREDICATE, differences

_SUBJECT = "/subject/0"
_REPEATED = ("installation", "task", "revision", "requester", "agent", "owner", "delegation", "intent", "access")


def revision_problems(statement: Statement) -> Iterator[Problem]:
    """Yield where the revision's bytes have another digest, or say something else than the receipt."""
    subject = statement.revision
    if sha256_hex(subject.content) != subject.digest.sha256:
        places = (f"{_SUBJECT}/digest/sha256", f"{_SUBJECT}/content")
        yield Problem("the revision's bytes do not have the digest that was approved", places)
    if subject.name != statement.predicate.task:
        places = (f"{_SUBJECT}/name", f"{PREDICATE}/task")
        yield Problem("the subject is another task's", places)
    try:
        approved = _repeated_fields(msgspec.json.decode(subject.content))
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, RecursionError):
        yield Problem("the revision's bytes are none", (f"{_SUBJECT}/content",))
        return
    stated = msgspec.to_builtins(statement.predicate)
    for name in _REPEATED:
        for place in differences(stated[name], approved[name], f"{PREDICATE}/{name}"):
            yield Problem("the revision that was approved says otherwise", (place, f"{_SUBJECT}/content"))


def _repeated_fields(revision: Any) -> dict[str, Any]:
    """Return the revision's values of the fields that a receipt repeats, in the receipt's form."""
    access = [{name: entry[name] for name in ("template", "path", "with")} for entry in revision["access"]]
    intent = revision["spec"]["spec"]["intent"]
    return {**revision, "delegation": revision.get("delegation", []), "access": access, "intent": intent}
