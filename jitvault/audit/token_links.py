"""Which task token an audit line is about, where no accessor in the line says so.

A token stands for a task token when a line of Vault's own says that one came from the other: the wrapping of the
task token, the task token itself, and the wrapping of what it read. Vault makes the accessors and token HMACs of a
line; a client chooses metadata, headers and the operation id, so nothing here looks at them.

A wrapping that was asked for as a JWT is shown by the HMAC of the token in it where it is made, and where it is opened
by the header. Opened by the body, its line has the HMAC of the JWT, and nothing joins the two: what was in it is
accounted for by `jitvault.lifecycle.confirmation.wrapped_reads`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from jitvault.audit.observation import Kind, Observation

T = TypeVar("T")

# the subject of the others is a lease, a nonce or a document, which a client can choose to be any text
_ABOUT_A_TOKEN = frozenset(
    {
        Kind.TOKEN_CREATED,
        Kind.UNWRAPPED,
        Kind.REWRAPPED,
        Kind.USED,
        Kind.DENIED,
        Kind.RENEWED,
        Kind.TOKEN_REVOKED,
        Kind.TOKEN_LOOKUP,
    }
)


def derived_tokens(lines: Iterable[Observation], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The HMAC of each token that stands for a task token, and the HMAC of that one's accessor.

    `given` has those that are known without a line.

    The order of the lines does not matter. A rewrap that does not show what is wrapped gives what the old wrapping
    stood for. Should two lines disagree, which Vault's cannot, the same one is always believed.
    """
    said: defaultdict[str, set[str]] = defaultdict(set)
    rewraps: defaultdict[str, set[str]] = defaultdict(set)
    for token, accessor in (given or {}).items():
        said[accessor].add(token)
    for line in lines:
        if line.alias and line.stands_for:
            said[line.stands_for].add(line.alias)
        elif line.alias and line.kind is Kind.REWRAPPED:
            rewraps[line.token].add(line.alias)
    found: dict[str, str] = {}
    for accessor in sorted(said):
        found |= {alias: accessor for alias in said[accessor] if alias not in found}
    # what a line says goes before what is inherited; each alias is reached once, so that a circle ends
    for accessor in sorted(said):
        waiting = list(said[accessor])
        while waiting:
            for alias in rewraps[waiting.pop()] - found.keys():
                found[alias] = accessor
                waiting.append(alias)
    return found


def owning_token(line: Observation, derived_tokens: Mapping[str, str]) -> str:
    """The HMAC of the accessor of the token that a line is about: it says so, a wrapping of it does, or who acted.

    Who acted comes last: an agent that holds another token sends that one in the header and the wrapping token in the
    body (`bao unwrap` does), and what it gets belongs to the task whose wrapping it was.
    """
    named = line.subject if line.kind in _ABOUT_A_TOKEN else ""
    if line.kind is Kind.LEASE_ISSUED and line.token:
        # opened by anybody: it belongs to whoever had it wrapped, or to nobody that is known yet
        return derived_tokens.get(line.token, "")
    return named or derived_tokens.get(line.token, "") or line.actor


def with_subjects(lines: Sequence[Observation]) -> tuple[Observation, ...]:
    """The lines, where a revocation that names a task token in its body has that one's accessor as its subject.

    Only what was unwrapped, or acted, is the token itself: who revokes a wrapping ends nothing that was in it.
    """
    itself = (o for o in lines if o.alias and (o.kind is Kind.UNWRAPPED or not o.closing))
    tokens = {o.alias: o.stands_for for o in itself}

    def is_named(line: Observation) -> bool:
        return line.kind is Kind.TOKEN_REVOKED and not line.subject and line.token in tokens

    return tuple(replace(line, subject=tokens[line.token]) if is_named(line) else line for line in lines)


def linked(
    lines: Iterable[Observation], tokens: Mapping[str, T], derived_tokens: Mapping[str, str]
) -> Iterator[tuple[T, Observation]]:
    """Each line with what `tokens` has for the accessor HMAC that it is about; lines about none are left out.

    A line in which one task's token acts on another's comes for both, the owner first: theft shows in the task that it
    befalls. A lease has one owner.
    """
    for line in lines:
        names = (
            (owning_token(line, derived_tokens),)
            if line.kind is Kind.LEASE_ISSUED
            else (owning_token(line, derived_tokens), line.actor)
        )
        found: list[T] = []
        for name in names:
            if name in tokens and name and tokens[name] not in found:
                found.append(tokens[name])
                yield tokens[name], line
