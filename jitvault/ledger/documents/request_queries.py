"""Queries about people's requests: which were judged, which are open."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, func, or_, select, update

from jitvault.audit.observation import Kind
from jitvault.documents.paths import TaskParties, author_of, request_path
from jitvault.ledger.documents import lines as document_lines
from jitvault.ledger.documents.judgements import Judged, Judgement, OverQuota, Unsettled
from jitvault.ledger.documents.parties import parties_of
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches, upsert
from jitvault.model.states import State

_TASK, _LINE, _JUDGED = schema.tasks.c, schema.observations.c, schema.judged.c
_NEWEST_LINE = select(func.max(_LINE.at)).where(_LINE.subject == bindparam("path"), _LINE.kind == Kind.WRITTEN)
_KNOWN = select(_TASK.task_id).where(_TASK.task_id.in_(bindparam("task_ids", expanding=True)))
_WRITTEN_AFTER_JUDGED = (
    select(_LINE.line)
    .where(
        _LINE.subject == _JUDGED.path,
        _LINE.kind == Kind.WRITTEN,
        or_(_JUDGED.line_at.is_(None), _LINE.at > _JUDGED.line_at),
    )
    .exists()
)
_STILL_JUDGED = select(_JUDGED.path, _JUDGED.judged_at).where(
    _JUDGED.path.in_(bindparam("paths", expanding=True)), ~_WRITTEN_AFTER_JUDGED, ~document_lines.WRITTEN_AGAIN
)
_NEXT_AUTHOR = select(func.min(_JUDGED.author)).where(_JUDGED.author > bindparam("last"))
_LAST_GAP = select(func.max(schema.audit_gaps.c.at))
_UNGRANTED = [state.value for state in (State.PENDING_APPROVAL, State.APPROVED, State.ISSUING)]


class RequestQueries:
    """Record requests that began no task; a part of `Ledger`."""

    _db: Database

    def parts(self, task_ids: Collection[str]) -> Mapping[str, TaskParties]:
        """Return who takes part in each of these tasks, for known tasks."""
        with self._db.read() as connection:
            return parties_of(connection, task_ids)

    def newest_line(self, path: str) -> datetime | None:
        """Return Vault's time of the newest line about a write to this path.

        None where no line shows one.
        """
        with self._db.read() as connection:
            kept: datetime | None = connection.execute(_NEWEST_LINE, {"path": path}).scalar()
            counted = document_lines.newest_at(connection, path)
        return max((at for at in (kept, counted) if at is not None), default=None)

    def judge(self, judged: Sequence[Judged], at: datetime) -> None:
        """Record the results of reading requests.

        A request that was judged before gets the new result.
        """
        values = [
            {**asdict(row), "judgement": row.judgement.value, "author": author_of(row.path)[:64], "judged_at": at}
            for row in judged
        ]

        def unit(connection: Connection) -> None:
            statement = upsert(connection, schema.judged)
            changed = {
                column.name: statement.excluded[column.name] for column in schema.judged.c if column.name != "path"
            }
            connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=changed), values)

        if values:
            self._db.write(unit)

    def judged(self, path: str) -> Judged | None:
        """Return why the request at this path began no task.

        The result is None if the request was not judged.
        """
        columns = (_JUDGED[name] for name in Judged.__dataclass_fields__)
        with self._db.read() as connection:
            row = connection.execute(select(*columns).where(_JUDGED.path == path)).mappings().first()
        return Judged(**{**row, "judgement": Judgement(row["judgement"])}) if row else None

    def lost_tasks(self, task_ids: Collection[str]) -> set[str]:
        """Return those of these tasks that the ledger may have lost.

        A request was judged so, or was so old that nobody looked whether it had begun a task.
        """
        if not task_ids:
            return set()
        query = select(_JUDGED.path).where(_JUDGED.judgement.in_([Judgement.LOST.value, Judgement.TOO_OLD.value]))
        with self._db.read() as connection:
            return {path.split("/")[-2] for path in connection.execute(query).scalars()} & {*task_ids}

    def unsettled(self, author: str, task_ids: Sequence[str]) -> Unsettled:
        """Return those of an author's tasks whose request has to be read.

        Tasks that are neither known nor judged as the request is now.
        """
        new: list[str] = []
        doubtful: list[str] = []
        for batch in batches(task_ids):
            paths = {request_path(author, task_id, "submit"): task_id for task_id in batch}
            with self._db.read() as connection:
                gap = connection.execute(_LAST_GAP).scalar()
                known = set(connection.execute(_KNOWN, {"task_ids": list(batch)}).scalars())
                judged = {row.path: row.judged_at for row in connection.execute(_STILL_JUDGED, {"paths": list(paths)})}
            new += [task for path, task in paths.items() if task not in known and path not in judged]
            # no line shows what was written while the stream was not read
            missed = {path for path, at in judged.items() if gap is not None and at <= gap}
            doubtful += [task for path, task in paths.items() if task not in known and path in missed]
        return Unsettled(new, doubtful)

    def judged_authors(self) -> list[str]:
        """Return the authors of judged requests."""
        found: list[str] = []
        last = ""
        with self._db.read() as connection:
            # one index step for each author; `DISTINCT` would scan every judgement
            while last := connection.execute(_NEXT_AUTHOR, {"last": last}).scalar() or "":
                found.append(last)
        return found

    def forget_judged(self, author: str, besides: Collection[str]) -> int:
        """Forget results about an author's requests that do not exist any more.

        `besides` are the author's tasks whose request exists. Returns how many were forgotten.
        """
        with self._db.read() as connection:
            known = connection.execute(select(_JUDGED.path).where(_JUDGED.author == author)).scalars()
            gone = sorted(set(known) - {request_path(author, task_id, "submit") for task_id in besides})
        for batch in batches(gone):
            forget = delete(schema.judged).where(_JUDGED.path.in_(batch))
            self._db.write(lambda connection, statement=forget: connection.execute(statement))  # type: ignore[misc]
        return len(gone)

    def open_requests(self, requester: str) -> int:
        """Return how many tasks of a requester may still be granted."""
        query = select(func.count()).select_from(schema.tasks)
        open_ = (schema.IS_OPEN, _TASK.state.in_(_UNGRANTED), _TASK.requester == requester)
        with self._db.read() as connection:
            return connection.execute(query.where(*open_)).scalar_one()

    def keep_over_quota(self, author: str, waiting: int, at: datetime) -> None:
        """Record how many documents of an author wait because of the quota.

        With 0 the author's row is removed.
        """
        table = schema.over_quota
        if not waiting:
            self._db.write(lambda c: c.execute(delete(table).where(table.c.author == author)))
            return

        def unit(connection: Connection) -> None:
            change = update(table).where(table.c.author == author).values(waiting=waiting, at=at)
            if connection.execute(change).rowcount == 0:
                values = {"author": author[:64], "waiting": waiting, "since": at, "at": at}
                connection.execute(upsert(connection, table).values(values).on_conflict_do_nothing())

        self._db.write(unit)

    def over_quota(self) -> list[OverQuota]:
        """Return the authors whose documents wait because of the quota."""
        table = schema.over_quota.c
        query = select(table.author, table.waiting, table.since, table.at).order_by(table.since)
        with self._db.read() as connection:
            return [OverQuota(*row) for row in connection.execute(query)]
