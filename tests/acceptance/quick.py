"""The commands as users type them, through the same `main`, without a process for each: ten times as fast.

For tests of what a command decides. Where the process itself matters (its start, its end, two at once, its
output as a whole), tests use the `cli` fixture of conftest.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from unittest import mock

from conftest import Cli, Result

from jitvault.cli import app


class Quick(Cli):
    """`jitvault …` in this process, with one person's environment. Not for two threads at once."""

    def __call__(
        self,
        who: str | None,
        *args: str | Path,
        code: int | None = 0,
        worker: bool = True,
        given: str = "",
        extra: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Result:
        out, err, ended = io.StringIO(), io.StringIO(), 0
        environment = {**self.environment(who, worker=worker), **(extra or {})}
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.object(sys, "argv", ["jitvault", *map(str, args)]),
            mock.patch.object(sys, "stdin", io.StringIO(given)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                app.main()
            except SystemExit as end:
                ended = int(end.code or 0)
        result = Result(ended, out.getvalue(), err.getvalue())
        self.transcript.append((" ".join(map(str, args)), result))
        assert code is None or result.code == code, (args, result)
        assert "Traceback" not in result.stderr, result.stderr
        return result
