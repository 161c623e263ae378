"""What JITVAULT_AUDIT_FILE names: files of Vault's audit device, and directories that a receiver fills."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jitvault.audit.audit_form import wrong_form
from jitvault.audit.files.file_source import FileSource
from jitvault.audit.files.log_file import last_bytes
from jitvault.audit.files.spool import SpoolSources
from jitvault.audit.source import Source


def why_unreadable(path: Path) -> str:
    """Why what JITVAULT_AUDIT_FILE names cannot be read; empty where it can."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def is_unmarked(path: Path) -> bool:
    """Whether it is a receiver's directory in which we cannot say which sender is Vault."""
    return path.is_dir() and not os.access(path, os.W_OK)


def last_lines(path: Path) -> str:
    """The end of an audit file; nothing where there is none to be read. They are no proof: nobody vouched for them."""
    return last_bytes(path).decode(errors="replace")


def form_problem(path: Path) -> str:
    """Why nothing can be proven by the lines that a file has now, by their form; empty where nothing is wrong."""
    return wrong_form(last_bytes(path))


class ConfiguredSources:
    """`jitvault.audit.source.Sources`: each file is one, each connection in a directory is one."""

    def __init__(self, paths: Sequence[Path], *, namespace: str = "") -> None:
        self._paths = [path.absolute() for path in paths]
        self._namespace = namespace

    def present(self) -> Sequence[Source]:
        found: list[Source] = []
        for path in self._paths:
            if path.is_dir():
                found += SpoolSources(path, name=str(path), namespace=self._namespace).present()
            else:
                found.append(FileSource(path, name=str(path), namespace=self._namespace))
        return found
