"""Runs jitvault commands that die by SIGKILL at a chosen point. A program of the crash tests, not a test.

It imports jitvault once and forks for each order, so that a death costs milliseconds. An order is a line of JSON
on stdin, `{arguments, environment, point, within, in_a_hurry, output}`; the answer is a line `{signal, code, points}`.
A point is passed before and after every request to Vault, and before and after every commit to the ledger; 0 is never
reached, so `points` then names them all: the requests' paths, and `commit`. `within` names a function as
`module:function`: only the points within it count.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Points:
    """Counts the points that were passed, and ends the process at one of them."""

    def __init__(self, last: int, tally: Path) -> None:
        self.last = last
        self.passed: list[str] = []
        self.tally = tally
        self.counts = True

    def __call__(self, name: str) -> None:
        if not self.counts:
            return
        self.passed.append(name)
        if len(self.passed) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: type, name: str, what_of: Callable[..., str]) -> None:
        act: Callable[..., Any] = getattr(owner, name)

        def observed(*args: Any, **kwargs: Any) -> Any:
            what = what_of(*args)
            self(what)
            done = act(*args, **kwargs)
            self(what)
            return done

        setattr(owner, name, observed)

    def only_within(self, function: str) -> None:
        module, _, name = function.partition(":")
        owner = import_module(module)
        act: Callable[..., Any] = getattr(owner, name)
        self.counts = False

        def observed(*args: Any, **kwargs: Any) -> Any:
            self.counts = True
            try:
                return act(*args, **kwargs)
            finally:
                self.counts = False

        setattr(owner, name, observed)


def run(order: dict[str, Any]) -> None:
    """In the forked process: one command, whole or not, with the worker's turns."""
    from beside import at_work, looks_at, turn

    from jitvault.cli import app
    from jitvault.ledger.storage.database import Database
    from jitvault.lifecycle import ending as finish
    from jitvault.vault.http_transport import Session

    points = Points(order["point"], Path(order["output"] + ".points"))
    points.around(Session, "send", lambda _session, _method, url, *_: urlsplit(url).path)
    points.around(Database, "write", lambda *_: "commit")
    if order["within"]:
        points.only_within(order["within"])
    if order["in_a_hurry"]:
        finish._TRIES = 1
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["jitvault", *order["arguments"]]
    for number, name in ((1, ".out"), (2, ".err")):
        file = os.open(order["output"] + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
    code = 0
    try:
        if (task := looks_at(order["arguments"])) is not None:
            turn(order["environment"], task)
        with at_work():
            app.main()
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    points.tally.write_text(json.dumps(points.passed))
    os._exit(code)


def main() -> None:
    import psycopg  # noqa: F401 - so that no fork has to

    # a program has no more than its own directory on its path
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from forked import modules

    for name in (*modules(), "beside"):
        import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            run(order)
        _, status = os.waitpid(child, 0)
        tally = Path(order["output"] + ".points")
        answer = {
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "points": json.loads(tally.read_text()) if tally.exists() else None,
        }
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
