"""Collect the lines of audit files that are about a receipt.

Every line is read, since a receipt can also be wrong by what it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from jitvault.audit.classify import observe
from jitvault.audit.entry import Auth, Entry
from jitvault.audit.entry_facts import is_workers
from jitvault.audit.observation import Kind, Observation, Place
from jitvault.verification.evidence import stated
from jitvault.verification.log_lines import LogLine
from jitvault.verification.receipt import Receipt, credentials

NAME_LENGTH = 16
"""How many hex digits of a line's SHA-256 the evidence of a check shows."""


@dataclass(frozen=True, slots=True)
class SeenLine:
    """One line of the files that is about the task, or named.

    `observation` is None for a line that shows nothing to jitvault. `by_worker` says that Vault names the worker's
    policy among those of the caller. `operation` is the request's.
    """

    observation: Observation | None
    by_worker: bool
    namespace: str
    operation: str = ""


@dataclass(slots=True)
class Scan:
    """What the files have.

    - `named`: lines that the receipt names, by the name that it gives them;
    - `about`: every line about one of the receipt's tokens, each act that can fake an end, each look-up of a lease that
      found it, and each opening of a wrapping;
    - `tasks`: which tasks Vault names beside each accessor;
    - `lines` and `strange`: how many lines there are, and how many of them are no audit entries;
    - `first` and `last`: the times that the files cover.
    """

    named: dict[str, SeenLine] = field(default_factory=dict)
    about: list[SeenLine] = field(default_factory=list)
    tasks: dict[str, set[str]] = field(default_factory=dict)
    files: int = 0
    lines: int = 0
    strange: int = 0
    first: datetime | None = None
    last: datetime | None = None


def wanted_lines(receipt: Receipt) -> set[str]:
    """Return the names of all lines that the receipt names.

    Those of its checks are the first digits of a SHA-256; those of its findings are whole.
    """
    found = {one.line for one in receipt.findings if one.line}
    for credential in credentials(receipt):
        for check in credential.said.checks:
            told = stated(check) if check.ok else None
            if told is not None:
                found |= {told.line, told.listing, told.alive}
    return found - {""}


def scan(receipt: Receipt, files: Iterable[Iterable[LogLine]]) -> Scan:
    """Read all lines of the files. Raises what reading them raises."""
    found = Scan()
    reader = _Reader(receipt, found)
    for number, lines in enumerate(files):
        found.files += 1
        for line in lines:
            reader.take(line, number)
    return found


class _Reader:
    """Sort lines into a scan."""

    def __init__(self, receipt: Receipt, found: Scan) -> None:
        self._found = found
        self._wanted = wanted_lines(receipt)
        self._task = receipt.task
        self._accessors = {grant.accessor_hmac for grant in receipt.grants if grant.accessor_hmac}
        self._leases = {lease.lease_id for lease in receipt.proof.leases}
        self._seen: set[str] = set()

    def take(self, line: LogLine, file: int) -> None:
        found = self._found
        found.lines += 1
        entry = line.entry
        names = {line.sha256[:NAME_LENGTH], line.sha256} & self._wanted
        if entry is None:
            found.strange += 1
            found.named.update({name: SeenLine(None, by_worker=False, namespace="") for name in names})
            return
        found.first = min(found.first or entry.time, entry.time)
        found.last = max(found.last or entry.time, entry.time)
        for part in (entry.auth, entry.response.auth if entry.response else None):
            self._note_task(part)
        seen = _seen(line, entry, file)
        found.named.update(dict.fromkeys(names, seen))
        if seen.observation is not None and line.sha256 not in self._seen and self._matters(seen.observation):
            # two of the files may have the same line
            self._seen.add(line.sha256)
            found.about.append(seen)

    def _note_task(self, part: Auth | None) -> None:
        """Note the task that Vault names beside a token.

        Only a task or a token of the receipt counts.
        """
        if part is None or not part.accessor or not part.metadata:
            return
        task = part.metadata.get("jitvault_task")
        if isinstance(task, str) and (task == self._task or part.accessor in self._accessors):
            self._found.tasks.setdefault(part.accessor, set()).add(task)

    def _matters(self, line: Observation) -> bool:
        if line.actor in self._accessors or line.subject in self._accessors:
            return True
        is_lookup = line.kind is Kind.LEASE_LOOKUP and line.closing and not line.failed
        opens = line.kind is Kind.LEASE_ISSUED and bool(line.token)
        return line.kind in (Kind.HAZARD, Kind.REWRAPPED) or is_lookup or opens or line.subject in self._leases


def _seen(line: LogLine, entry: Entry, file: int) -> SeenLine:
    namespace = entry.request.namespace.path if entry.request.namespace else ""
    try:
        observation = observe(entry, line=line.sha256, place=Place("files", file, line.offset), namespace=namespace)
    except OverflowError:
        # a time that no calendar has
        observation = None
    return SeenLine(observation, is_workers(entry), namespace.strip("/"), entry.request.operation)
