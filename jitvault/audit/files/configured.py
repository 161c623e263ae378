"""The sources in JITVAULT_AUDIT_FILE: files, and receivers' directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jitvault.audit.audit_form import wrong_form
from jitvault.audit.files.file_source import FileSource
from jitvault.audit.files.log_file import last_bytes
from jitvault.audit.files.spool import SpoolSources
from jitvault.audit.source import Source


def why_unreadable(path: Path) -> str:
    """Return why a path in JITVAULT_AUDIT_FILE cannot be read, or ""."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def last_lines(path: Path) -> str:
    """Return the end of an audit file as text; "" if it cannot be read.

    They serve only to guess which product wrote the file: nobody vouched for these lines.
    """
    return last_bytes(path).decode(errors="replace")


def form_problem(path: Path) -> str:
    """Return why the form of a file's lines cannot prove anything, or ""."""
    return wrong_form(last_bytes(path))


class ConfiguredSources:
    """The configured sources: one for each file or received connection.

    Implements `jitvault.audit.source.Sources`.
    """

    def __init__(self, paths: Sequence[Path], *, namespace: str = "") -> None:
        self._paths = [path.absolute() for path in paths]
        self._namespace = namespace

    def present(self) -> Sequence[Source]:
        found: list[Source] = []
        for path in self._paths:
            if _is_directory(path):
                found += SpoolSources(path, name=str(path), namespace=self._namespace).present()
            else:
                found.append(FileSource(path, name=str(path), namespace=self._namespace))
        return found


def _is_directory(path: Path) -> bool:
    """Return whether a path is a directory.

    False where that cannot be told. It is then read as a file, which raises AuditUntrusted with the reason.
    """
    try:
        return path.is_dir()
    except OSError:
        return False
