"""Compare what Vault lists with what the ledger and the audit stream know.

Each credential gets one class.

- `known`: it belongs to a task, or is the wrapping of a task's token, or a template check made it and it is gone;
- `orphan`: it is in Vault below jitvault's roles or its templates' paths, and belongs to no task, or the ledger calls
  it dead;
- `irrevocable`: it belongs to a task, and Vault has given up on revoking it; or Vault was to revoke it longer ago than
  the settle window, and does not say whether it still tries;
- `unlinked`: the audit stream shows that it was made, nothing in the ledger explains it, and Vault does not have it any
  more;
- `waiting`: it cannot be judged yet, because it is younger than the settle window, or an operation is open that may
  have made it. Nothing is ever done to such a credential.

Vault lists a token without its accessor. It is identified by its issue time, which the look-up by accessor gives as
well. A wrapping token is listed beside the token in it, made right after it in the same request. A wrapping token
cannot be renewed, but a token that an administrator makes can look like that, too: so each grant explains one wrapping
and no more. All times are Vault's. Shapes: docs/vault-facts.md, "Tokens and wrapping".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

# a wrapping token is made within the same request, 0.2 ms after the token in it where this was measured
WRAPPED_WITHIN = timedelta(seconds=1)


class Class(StrEnum):
    KNOWN = "known"
    ORPHAN = "orphan"
    IRREVOCABLE = "irrevocable"
    UNLINKED = "unlinked"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Listed:
    """A credential that Vault has.

    `path` is where it was made, for a token `auth/token/create/<role>`. A credential that Vault was told to revoke by
    itself expires at once, so its `expires_at` is the time of that.
    """

    lease_id: str
    kind: str
    path: str
    issued_at: datetime | None
    expires_at: datetime | None = None
    renewable: bool = True
    revoke_error: str | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """A credential of a task.

    `subject` is a lease's id, or the HMAC of a token's accessor. `dead` says that the ledger calls it over for good,
    proven or closed without proof. `token_lease` is a token's own lease, where that is known.
    """

    subject: str
    kind: str
    path: str
    task_id: str
    issued_at: datetime | None
    dead: bool = False
    token_lease: str | None = None
    wrap_ttl: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class PendingOperation:
    """An operation of a task that may have made one credential at `path`.

    It may have done so between `since` and `until`; a token comes with its wrapping.
    """

    kind: str
    path: str
    task_id: str
    since: datetime
    until: datetime
    what: str


@dataclass(frozen=True, slots=True)
class Issue:
    """An audit line that shows a credential which belongs to no task as made.

    `subject` is a lease's id, or the HMAC of a token's accessor where the line shows it. `by` is the accessor HMAC of
    the token that made the request, and `since` the time of the request line.
    """

    kind: str
    subject: str
    path: str
    since: datetime
    at: datetime
    line: str
    request_id: str = ""
    by: str = ""
    remote: str = ""


@dataclass(frozen=True, slots=True)
class Classification:
    """One credential with its class.

    `issue` is the line that shows how it was made, and `why` explains the class to a person.
    """

    kind: str
    of: Class
    path: str
    issued_at: datetime | None
    why: str
    listed: Listed | None = None
    task_id: str | None = None
    issue: Issue | None = None


@dataclass(frozen=True, slots=True)
class KnownState:
    """What the ledger and the audit stream know.

    `told` are the lines that were findings of an earlier sweep. `checked` are the leases that template checks made and
    saw dead, as administrators recorded.
    """

    owned: Sequence[Owned] = ()
    opened: Sequence[PendingOperation] = ()
    issues: Sequence[Issue] = ()
    told: frozenset[str] = frozenset()
    checked: frozenset[str] = frozenset()


def compare(listed: Iterable[Listed], books: KnownState, *, now: datetime, settle: timedelta) -> list[Classification]:
    """Classify each listed credential, and each of `books.issues` without one.

    The order of the arguments' items changes nothing. `now` is Vault's time, `settle` its longest request.
    """
    case = _Case(books, now, settle)
    found = [case.token(one) for one in sorted(listed, key=_by_age) if one.kind == "token"]
    found += [case.lease(one) for one in sorted(listed, key=_by_age) if one.kind != "token"]
    return found + [case.unlinked(issue) for issue in case.left_over()]


def _by_age(one: Listed) -> tuple[float, str]:
    return (one.issued_at.timestamp() if one.issued_at else 0.0, one.lease_id)


@dataclass
class _Case:
    """One comparison's state: what explains one credential explains no other."""

    books: KnownState
    now: datetime
    settle: timedelta
    _by_lease: dict[str, Owned] = field(init=False)
    _by_time: dict[tuple[str, datetime], list[Owned]] = field(init=False)
    _grants: dict[str, list[Owned]] = field(init=False)
    _creates: dict[str, list[Issue]] = field(init=False)
    _issues: dict[str, list[Issue]] = field(init=False)
    _taken: set[tuple[str, object]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        tokens = [one for one in _ordered(self.books.owned) if one.kind == "token"]
        self._by_lease = {one.subject: one for one in self.books.owned if one.kind == "lease"}
        self._by_lease |= {one.token_lease: one for one in tokens if one.token_lease}
        self._by_time, self._grants = defaultdict(list), defaultdict(list)
        for one in tokens:
            if one.issued_at is not None:
                self._by_time[one.path, one.issued_at].append(one)
                self._grants[one.path].append(one)
        self._creates, self._issues = defaultdict(list), defaultdict(list)
        for issue in sorted(self.books.issues, key=_by_line):
            if issue.kind == "token":
                self._creates[issue.path].append(issue)
            else:
                self._issues[issue.subject].append(issue)

    def token(self, one: Listed) -> Classification:
        if one.renewable and (owner := self._owner(one)):
            return self._of_task(one, owner)
        if not one.renewable and (owner := self._in_wrapping(one)):
            return _found(one, Class.KNOWN, f"the wrapping of task {owner.task_id}'s token", owner.task_id)
        return self._of_nobody(one, self._issue_of_token(one))

    def lease(self, one: Listed) -> Classification:
        owner = self._by_lease.get(one.lease_id)
        if owner is not None:
            return self._of_task(one, owner)
        issues = self._issues.get(one.lease_id, [])
        # several lines can show one lease, as after a restore of Vault: all of them are about this lease
        self._taken |= {("issue", issue.line) for issue in issues}
        return self._of_nobody(one, issues[0] if issues else None)

    def left_over(self) -> list[Issue]:
        return [i for i in sorted(self.books.issues, key=_by_line) if ("issue", i.line) not in self._taken]

    def unlinked(self, issue: Issue) -> Classification:
        if issue.subject in self.books.checked:
            of, why = Class.KNOWN, "made by the check of a template, and not in Vault any more"
        elif self.now - issue.at < self.settle:
            of, why = Class.WAITING, "too young to judge"
        elif issue.line in self.books.told:
            of, why = Class.KNOWN, "told by an earlier sweep, and not in Vault"
        else:
            of, why = Class.UNLINKED, "made without a task, and not in Vault any more"
        return Classification(issue.kind, of, issue.path, issue.at, why, issue=issue)

    def _of_task(self, one: Listed, owner: Owned) -> Classification:
        if owner.dead and not self._is_young(one):
            return _found(one, Class.ORPHAN, f"task {owner.task_id} calls it over, and Vault has it", owner.task_id)
        if one.revoke_error:
            return _found(one, Class.IRREVOCABLE, f"of task {owner.task_id}", owner.task_id)
        if self._is_overdue(one):
            why = f"Vault is trying to revoke it or has given up, since {one.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            return _found(one, Class.IRREVOCABLE, why, owner.task_id)
        return _found(one, Class.KNOWN, f"of task {owner.task_id}", owner.task_id)

    def _of_nobody(self, one: Listed, issue: Issue | None) -> Classification:
        if act := self._open_act(one):
            return _found(one, Class.WAITING, f"{act.what} of task {act.task_id} is open", act.task_id, issue)
        if self._is_young(one):
            return _found(one, Class.WAITING, "too young to judge", None, issue)
        return _found(one, Class.ORPHAN, "no task knows it", None, issue)

    def _is_young(self, one: Listed) -> bool:
        """Return whether it is too young to judge; so is one of unknown age."""
        return one.issued_at is None or self.now - one.issued_at < self.settle

    def _is_overdue(self, one: Listed) -> bool:
        """Return whether Vault should have revoked a lease a settle window ago.

        HashiCorp Vault says that it gave up only to callers that may list irrevocable leases. A token that has expired
        is refused, whatever Vault still has of it.
        """
        return one.kind == "lease" and one.expires_at is not None and self.now - one.expires_at >= self.settle

    def _owner(self, one: Listed) -> Owned | None:
        """Return the grant whose token this is; each grant has one."""
        named = self._by_lease.get(one.lease_id)
        same_time = self._by_time.get((one.path, one.issued_at), ()) if one.issued_at else ()
        for owner in [named] if named else same_time:
            if self._take("token", owner.subject or owner.token_lease):
                return owner
        return None

    def _in_wrapping(self, one: Listed) -> Owned | None:
        """Return the grant whose wrapping this is.

        It is the last grant before it, if this was made right after that and lives no longer than the grant's wrapping.
        """
        grants, at = self._grants.get(one.path, []), one.issued_at
        if at is None or one.expires_at is None:
            return None
        for owner in reversed(grants[: bisect_right(grants, at, key=_issued)]):
            made = _issued(owner)
            if at - made > WRAPPED_WITHIN:
                return None
            if one.expires_at <= made + owner.wrap_ttl + WRAPPED_WITHIN and self._take("wrapping", owner.subject):
                return owner
        return None

    def _issue_of_token(self, one: Listed) -> Issue | None:
        """Return the line of its creation.

        A wrapped create makes two tokens, the token and its wrapping.
        """
        role, at, creates = "token" if one.renewable else "wrapping", one.issued_at, self._creates.get(one.path, [])
        if at is None:
            return None
        for issue in creates[bisect_left(creates, at, key=_answered) :]:
            if issue.at - at > self.settle + WRAPPED_WITHIN:
                # no request takes longer than that
                return None
            if issue.since <= at and self._take(f"{role} of line", issue.line):
                self._taken.add(("issue", issue.line))
                return issue
        return None

    def _open_act(self, one: Listed) -> PendingOperation | None:
        role = one.kind if one.renewable else f"{one.kind} wrapping"
        for n, act in enumerate(sorted(self.books.opened, key=_by_opening)):
            there = act.kind == one.kind and act.path == one.path
            within = one.issued_at is not None and act.since <= one.issued_at <= act.until
            if there and within and self._take(f"{role} of act", n):
                return act
        return None

    def _take(self, what: str, key: object) -> bool:
        """Claim an explanation; return whether it was still free."""
        if (what, key) in self._taken:
            return False
        self._taken.add((what, key))
        return True


def _found(one: Listed, of: Class, why: str, task_id: str | None, issue: Issue | None = None) -> Classification:
    return Classification(one.kind, of, one.path, one.issued_at, why, one, task_id, issue)


def _ordered(owned: Iterable[Owned]) -> list[Owned]:
    return sorted(owned, key=lambda one: (one.issued_at.timestamp() if one.issued_at else 0.0, one.subject))


def _issued(owner: Owned) -> datetime:
    if owner.issued_at is None:
        raise ValueError("only dated grants are looked through by time")
    return owner.issued_at


def _answered(issue: Issue) -> datetime:
    return issue.at


def _by_line(issue: Issue) -> tuple[datetime, str]:
    return issue.at, issue.line


def _by_opening(act: PendingOperation) -> tuple[datetime, datetime, str, str]:
    return act.since, act.until, act.task_id, act.what
