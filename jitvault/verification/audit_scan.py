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
from jitvault.formats.shorten import one_line, shorten
from jitvault.model.proof_check import Check
from jitvault.verification.evidence import lines_in, stated
from jitvault.verification.log_lines import LogLine
from jitvault.verification.receipt import Credential, credentials

_PUBLISHED = "jitvault/data/tasks/"
_REQUESTED = "jitvault/data/requests/"
# acts on a wrapping: no accessor says whose it was
_ON_A_WRAPPING = (Kind.REWRAPPED, Kind.CUBBYHOLE_READ)


@dataclass(frozen=True, slots=True)
class SeenLine:
    """One line of the files that is about the task, or named.

    `observation` is None for a line that shows nothing to jitvault. `entity` is the id of the caller's entity.
    `namespace` is the path of the request's namespace and `namespace_id` its id. `operation` is the request's. `error`
    is the error of the line itself, which is plain. `wrapped` says that the line does not show the answer, which is in
    a wrapping. `until` is when a token ends that the line looks up, as Vault says.
    """

    observation: Observation | None
    entity: str = ""
    namespace: str = ""
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

    `place` is where: in which line of which request, as the caller's or as the answer's token. Several audit devices
    show one place, each with other HMACs.
    """

    accessor: str
    task: str
    namespace_id: str
    place: tuple[str, str, str]


@dataclass(slots=True)
class Scan:
    """What the files have.

    - `named`: lines that the receipt names, by their SHA-256;
    - `about`: every line about one of the receipt's tokens, each act that can fake an end, each look-up of a lease that
      found it, and each opening of a wrapping;
    - `tasks`: which tasks Vault names beside the accessors of task tokens;
    - `created`: by request, when and in which namespace the roles of the worker gave a token, and `claimed` by the
      receipt's own;
    - `begun` and `ended`: when the task was first requested, and when something was last published of it;
    - `lines` and `strange`: how many lines there are, and how many of them are no audit entries;
    - `first` and `last`: the times that the files cover.
    """

    named: dict[str, SeenLine] = field(default_factory=dict)
    about: list[SeenLine] = field(default_factory=list)
    tasks: set[NamedTask] = field(default_factory=set)
    created: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)
    begun: datetime | None = None
    ended: datetime | None = None
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
class Rest:
    """A line on which a check of a credential rests.

    `part` says for what: its `line`, a `listing`, or a look-up that found the credential `alive`. `line` is the SHA-256
    of the line's bytes.
    """

    credential: Credential
    check: Check
    part: str
    line: str

    @property
    def called(self) -> str:
        """The line, and what rests on it, for messages."""
        return f"line {self.line[:16]} ({one_line(self.credential.name)}, check {self.check.n})"


def resting_lines(receipt: Receipt) -> Iterator[Rest]:
    """Yield each line on which a check that holds rests."""
    for credential in credentials(receipt):
        for check in credential.said.checks:
            for part, line in lines_in(stated(check)):
                yield Rest(credential, check, part, line)


def wanted_lines(receipt: Receipt) -> set[str]:
    """Return the SHA-256 of each line that the receipt names."""
    return {one.line for one in receipt.findings if one.line} | {rest.line for rest in resting_lines(receipt)}


def home_of(receipt: Receipt, found: Scan, given: str) -> str:
    """Return the id of jitvault's namespace.

    It is the one given, or that of the first issue that the receipt names; empty where neither is there.
    """
    issues = (found.named.get(rest.line) for rest in resting_lines(receipt) if rest.check.n == 1)
    return given or next((seen.namespace_id for seen in issues if seen is not None), "")


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
        names = {line.sha256} & self._wanted
        if entry is None:
            found.strange += 1
            found.named.update({name: SeenLine(None) for name in names})
            return
        found.first = min(found.first or entry.time, entry.time)
        found.last = max(found.last or entry.time, entry.time)
        self._note_time(entry)
        for part, whose in ((entry.auth, "caller"), (entry.response.auth if entry.response else None, "answer")):
            self._note_task(part, entry, (entry.request.id or line.sha256, entry.type, whose))
        seen = _seen(line, entry, file)
        found.named.update(dict.fromkeys(names, seen))
        if seen.observation is None or line.sha256 in self._seen:
            # two of the files may have the same line
            return
        self._note_creation(seen, seen.observation)
        if self._matters(seen.observation):
            self._seen.add(line.sha256)
            found.about.append(seen)

    def _note_time(self, entry: Entry) -> None:
        """Note when the task was requested, and when it was last published."""
        path, found = entry.request.path, self._found
        if not path.endswith(f"/{self._task}") or entry.request.operation in READING or has_failed(entry):
            return
        if path.startswith(_REQUESTED):
            found.begun = min(found.begun or entry.time, entry.time)
        elif path == _PUBLISHED + self._task:
            found.ended = max(found.ended or entry.time, entry.time)

    def _note_task(self, part: Auth | None, entry: Entry, place: tuple[str, str, str]) -> None:
        """Note the task that Vault names beside a token.

        Only a task token has a policy of jitvault's: whoever may create or log in tokens gives them any metadata. And
        only a task or a token of the receipt counts.
        """
        if part is None or not part.accessor or not part.metadata or not is_task_token(part):
            return
        task = part.metadata.get("jitvault_task")
        if isinstance(task, str) and (task == self._task or part.accessor in self._accessors):
            self._found.tasks.add(NamedTask(part.accessor, task, _namespace_id(entry), place))

    def _note_creation(self, seen: SeenLine, line: Observation) -> None:
        if line.kind is not Kind.TOKEN_CREATED or not line.closing or line.failed:
            return
        request = line.request_id or line.line
        self._found.created[request] = (line.at, seen.namespace_id)
        if line.subject in self._accessors:
            self._found.claimed.add(request)

    def _matters(self, line: Observation) -> bool:
        if line.actor in self._accessors or line.subject in self._accessors:
            return True
        is_lookup = line.kind is Kind.LEASE_LOOKUP and line.closing and not line.failed
        opens = line.kind is Kind.LEASE_ISSUED and bool(line.token)
        is_wrapping = line.kind in _ON_A_WRAPPING
        return line.kind is Kind.HAZARD or is_wrapping or is_lookup or opens or line.subject in self._leases


def _seen(line: LogLine, entry: Entry, file: int) -> SeenLine:
    namespace = entry.request.namespace.path if entry.request.namespace else ""
    try:
        observation = observe(entry, line=line.sha256, place=Place("files", file, line.offset), namespace=namespace)
    except OverflowError:
        # a time that no calendar has
        observation = None
    return SeenLine(
        observation,
        entity=entry.auth.entity_id if entry.auth else "",
        namespace=namespace.strip("/"),
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
        found = datetime.fromisoformat(until) if isinstance(until, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _namespace_id(entry: Entry) -> str:
    return entry.request.namespace.id if entry.request.namespace else ""
