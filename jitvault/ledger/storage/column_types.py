"""How times and bytes are stored, and what is refused when a row is read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, LargeBinary, TypeDecorator

from jitvault.errors import CorruptRecord


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time.

    SQLite stores no time zone, so UTC is put back when a value is read.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        found: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return found

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """Return what decodes a value.

        It raises CorruptRecord for what an edited row of SQLite can hold.
        """
        decode = super().result_processor(dialect, coltype)
        if decode is None:
            return None

        def checked(value: Any) -> datetime | None:
            try:
                found: datetime | None = decode(value)
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                raise CorruptRecord(f"a column does not hold a time ({type(error).__name__})") from None
            return found

        return checked


class Bytes(TypeDecorator[bytes]):
    """Bytes, as they are."""

    impl = LargeBinary
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> bytes | None:
        """Return the bytes.

        Raises CorruptRecord, because an edited row of SQLite can hold text.
        """
        if value is not None and not isinstance(value, bytes):
            raise CorruptRecord(f"a column does not hold bytes ({type(value).__name__})")
        return value
