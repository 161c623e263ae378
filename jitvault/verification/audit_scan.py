"""Collect the lines of audit files that are about a receipt.

Every line is read, since a receipt can also be wrong by what it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from jitvault.audit.classify import MAX_ERROR, observe
from jitvault.audit.entry import Auth, Entry
from jitvault.audit.entry_facts import has_failed, is_task_token
from jitvault.audit.hazard_paths import READING
from jitvault.audit.observation import Kind, Observation, Place
from jitvault.documents.receipt import Receipt
from jitvault.formats.shorten import shorten
from jitvault.model.proof_check import Check
from jitvault.verification.evidence import Purpose, evidence_of, lines_in
from jitvault.verification.log_lines import LogLine
from jitvault.verification.receipt import Credential, accessors_of, credentials

_PUBLISHED = "jitvault/data/tasks/"
_REQUESTED = "jitvault/data/requests/"
# acts on a wrapping: no accessor says whose it was
_ON_A_WRAPPING = (Kind.REWRAPPED, Kind.CUBBYHOLE_READ)


@dataclass(frozen=True, slots=True)
class ScannedLine:
    """One line of the files that is about the task, or named.

    `observation` is None for a line that shows nothing to jitvault. `entity` is the id of the caller's entity.
    `namespace_path` and `namespace_id` are those of the request's namespace. `operation` is the request's. `error` is
    the error of the line itself, which is plain. `wrapped` says that the line does not show the answer, which is in
    a wrapping. `until` is when a token ends that the line looks up, as Vault says.
    """

    observation: Observation | None
    entity: str = ""
    namespace_path: str = ""
    namespace_id: str = ""
    operation: str = ""
    error: str = ""
    wrapped: bool = False
    until: datetime | None = None

    @property
    def opens_wrapping(self) -> bool:
        """Whether it shows a lease because a wrapping was opened.

        That can be done from any namespace.
        """
        line = self.observation
        return line is not None and line.kind is Kind.LEASE_ISSUED and bool(line.token)


@dataclass(frozen=True, slots=True)
class NamedTask:
    """A task that Vault names beside the accessor of a task's token.

    `position` is in which line of which request, as the caller's or as the answer's token. Several audit devices show
    one position, each with other HMACs.
    """

    accessor: str
    task: str
    namespace_id: str
    position: tuple[str, str, str]


@dataclass(slots=True)
class Scan:
    """What the files have.

    - `named`: lines that the receipt names, by their SHA-256;
    - `about`: every line about one of the receipt's tokens, each act that can fake an end, each look-up of a lease that
      found it, and each opening of a wrapping;
    - `tasks`: which tasks Vault names beside the accessors of task tokens;
    - `created`: by request, when and in which namespace the roles of the worker gave a token; `claimed`: the requests
      that gave the receipt's own;
    - `first_requested` and `last_published`: when the task was;
    - `lines` and `strange`: how many lines there are, and how many of them are no audit entries;
    - `first` and `last`: the times that the files cover.
    """

    named: dict[str, ScannedLine] = field(default_factory=dict)
    about: list[ScannedLine] = field(default_factory=list)
    tasks: set[NamedTask] = field(default_factory=set)
    created: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)
    first_requested: datetime | None = None
    last_published: datetime | None = None
    files: int = 0
    lines: int = 0
    strange: int = 0
    first: datetime | None = None
    last: datetime | None = None

    @property
    def observations(self) -> list[Observation]:
        """What the lines of `about` show."""
        return [one.observation for one in self.about if one.observation is not None]


@dataclass(frozen=True, slots=True)
class SupportingLine:
    """A line on which a check of a credential rests.

    `sha256` is that of the line's bytes, and `place` where the receipt names it.
    """

    credential: Credential
    check: Check
    purpose: Purpose
    sha256: str
    place: str

    @property
    def name(self) -> str:
        """The line, and what rests on it, for messages."""
        return f"line {self.sha256[:16]} ({self.credential.name}, check {self.check.n})"


def supporting_lines(receipt: Receipt) -> Iterator[SupportingLine]:
    """Yield each line on which a check that holds rests."""
    for credential in credentials(receipt):
        for check in credential.proof.checks:
            for purpose, field_name, sha256 in lines_in(evidence_of(check)):
                place = credential.at(check.n, "evidence", field_name)
                yield SupportingLine(credential, check, purpose, sha256, place)


def named_lines(receipt: Receipt) -> set[str]:
    """Return the SHA-256 of each line that the receipt names."""
    of_findings = {one.line for one in receipt.findings if one.line}
    return of_findings | {support.sha256 for support in supporting_lines(receipt)}


def jitvaults_namespace(receipt: Receipt, scan: Scan, given: str) -> str:
    """Return the id of jitvault's namespace.

    It is the one given, or that of the first issue that the receipt names; empty where neither is there.
    """
    issues = (scan.named.get(support.sha256) for support in supporting_lines(receipt) if support.check.n == 1)
    return given or next((scanned.namespace_id for scanned in issues if scanned is not None), "")


def scan_files(receipt: Receipt, files: Iterable[Iterable[LogLine]]) -> Scan:
    """Read all lines of the files. Raises what reading them raises."""
    scan = Scan()
    reader = _Reader(receipt, scan)
    for number, lines in enumerate(files):
        scan.files += 1
        for line in lines:
            reader.take(line, number)
    return scan


class _Reader:
    """Sort lines into a scan."""

    def __init__(self, receipt: Receipt, scan: Scan) -> None:
        self._scan = scan
        self._named = named_lines(receipt)
        self._task = receipt.task
        self._accessors = accessors_of(receipt)
        self._leases = {lease.lease_id for lease in receipt.proof.leases}
        self._taken: set[str] = set()

    def take(self, line: LogLine, file: int) -> None:
        scan = self._scan
        scan.lines += 1
        entry = line.entry
        is_named = line.sha256 in self._named
        if entry is None:
            scan.strange += 1
            if is_named:
                scan.named[line.sha256] = ScannedLine(None)
            return
        scan.first = min(scan.first or entry.time, entry.time)
        scan.last = max(scan.last or entry.time, entry.time)
        self._note_time(entry)
        for part, whose in ((entry.auth, "caller"), (entry.response.auth if entry.response else None, "answer")):
            self._note_task(part, entry, (entry.request.id or line.sha256, entry.type, whose))
        scanned = _scanned(line, entry, file)
        if is_named:
            scan.named[line.sha256] = scanned
        if scanned.observation is None or line.sha256 in self._taken:
            # two of the files may have the same line
            return
        self._note_creation(scanned, scanned.observation)
        if self._matters(scanned.observation):
            self._taken.add(line.sha256)
            scan.about.append(scanned)

    def _note_time(self, entry: Entry) -> None:
        """Note when the task was requested, and when it was last published."""
        path, scan = entry.request.path, self._scan
        if not path.endswith(f"/{self._task}") or entry.request.operation in READING or has_failed(entry):
            return
        if path.startswith(_REQUESTED):
            scan.first_requested = min(scan.first_requested or entry.time, entry.time)
        elif path == _PUBLISHED + self._task:
            scan.last_published = max(scan.last_published or entry.time, entry.time)

    def _note_task(self, part: Auth | None, entry: Entry, position: tuple[str, str, str]) -> None:
        """Note the task that Vault names beside a token.

        Only a task token has a policy of jitvault's: whoever may create or log in tokens gives them any metadata. And
        only a task or a token of the receipt counts.
        """
        if part is None or not part.accessor or not part.metadata or not is_task_token(part):
            return
        task = part.metadata.get("jitvault_task")
        if isinstance(task, str) and (task == self._task or part.accessor in self._accessors):
            self._scan.tasks.add(NamedTask(part.accessor, task, _namespace_id(entry), position))

    def _note_creation(self, scanned: ScannedLine, line: Observation) -> None:
        if line.kind is not Kind.TOKEN_CREATED or not line.closing or line.failed:
            return
        request = line.request_id or line.line
        self._scan.created[request] = (line.at, scanned.namespace_id)
        if line.subject in self._accessors:
            self._scan.claimed.add(request)

    def _matters(self, line: Observation) -> bool:
        if line.actor in self._accessors or line.subject in self._accessors:
            return True
        is_lookup = line.kind is Kind.LEASE_LOOKUP and line.closing and not line.failed
        opens = line.kind is Kind.LEASE_ISSUED and bool(line.token)
        is_wrapping = line.kind in _ON_A_WRAPPING
        return line.kind is Kind.HAZARD or is_wrapping or is_lookup or opens or line.subject in self._leases


def _scanned(line: LogLine, entry: Entry, file: int) -> ScannedLine:
    namespace = entry.request.namespace.path if entry.request.namespace else ""
    try:
        observation = observe(entry, line=line.sha256, place=Place("files", file, line.offset), namespace=namespace)
    except OverflowError:
        # a time that no calendar has
        observation = None
    return ScannedLine(
        observation,
        entity=entry.auth.entity_id if entry.auth else "",
        namespace_path=namespace.strip("/"),
        namespace_id=_namespace_id(entry),
        operation=entry.request.operation,
        error=shorten(entry.error, MAX_ERROR),
        wrapped=bool(entry.request.wrap_ttl or (entry.response and entry.response.wrap_info)),
        until=_until(entry),
    )


def _until(entry: Entry) -> datetime | None:
    """Return when a token that was looked up ends."""
    until = ((entry.response.data if entry.response else None) or {}).get("expire_time")
    try:
        end = datetime.fromisoformat(until) if isinstance(until, str) else None
    except ValueError:
        return None
    return end if end is not None and end.tzinfo is not None else None


def _namespace_id(entry: Entry) -> str:
    return entry.request.namespace.id if entry.request.namespace else ""
