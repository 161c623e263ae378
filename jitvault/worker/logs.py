"""The worker's log: one event a line, for people or as JSON.

Nothing that is logged is ever a secret: values are ids, states and messages of `jitvault.errors`, which hold none. Of a
bug only its kind is logged.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TextIO, cast

import structlog

from jitvault.errors import JitvaultError
from jitvault.formats.server_product import with_commands


class Log(Protocol):
    """What the loops need of a logger."""

    def info(self, event: str, **values: object) -> Any: ...

    def warning(self, event: str, **values: object) -> Any: ...

    def error(self, event: str, **values: object) -> Any: ...


class _Stderr:
    """Standard error as the file of the log: a line that cannot be written is lost, and stops no worker.

    The disk may be full, or whoever read the log is gone. Access still has to be renewed and taken away. What was done
    is in the ledger.
    """

    def __init__(self) -> None:
        self._file: TextIO = sys.stderr

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


def log_to_stderr(*, as_json: bool, commands: Sequence[str] = ("bao",), **values: Any) -> Log:
    """Return a logger that threads may share.

    Its hints name `commands`, the program of Vault or of OpenBao. Each line has `values`.
    """
    shape: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    logger: Log = structlog.wrap_logger(
        structlog.WriteLogger(cast(TextIO, _Stderr())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            partial(_with_hint, commands),
            _printable,
            shape,
        ],
        wrapper_class=structlog.BoundLogger,
        cache_logger_on_first_use=True,
        **values,
    )
    return logger


def death(error: JitvaultError) -> dict[str, object]:
    """Return the values of the event `died`, the last one of a worker."""
    return {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}


def _with_hint(
    commands: Sequence[str], _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if isinstance(hint := event.get("hint"), str):
        event["hint"] = with_commands(hint, commands)
    return event


def _printable(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Escape control characters, which a terminal would obey.

    Values that come from outside may contain them.
    """
    return {key: _escaped(value) if isinstance(value, str) else value for key, value in event.items()}


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
