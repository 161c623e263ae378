"""From a request that was written to a wrapping token that can be read, with a worker running."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure
from benchmarks.scene import Scene, scene, spec_of
from jitvault.lifecycle.requests.sign import sign_grant_request, sign_submission
from jitvault.model.spec import parse_spec

TIMES, PAUSE_S = 25, 0.2
_LOOK_S, _PATIENCE_S = 0.002, 20
# the ledger's events of a grant, by what came true with each
_PARTS = {
    "submitted": "seen in the stream, decided, and in the ledger",
    "create_token_intended": "checked, and the intent committed",
    "token_created": "made by Vault, and committed",
    "delivered": "looked up, in the inbox, and committed",
}


def run(directory: Path) -> list[Figure]:
    """`request_to_token_ms`: a low-risk task, from the moment its request and the wish to have it granted are written
    until its wrapping token is in the requester's inbox, polled every 2 ms. The worker is a process of its own.
    """
    with scene(directory / "latency") as world, working(world):
        _once(world)
        taken = [_once(world) for _ in range(TIMES)]
    whole = median(each["readable"] for each in taken)
    said = f"{TIMES} requests, one after the other"
    figures = [Figure("request_to_token_ms", whole, "ms", said, bar=150)]
    before = [0.0] * TIMES
    for part, words in _PARTS.items():
        here = [each[part] for each in taken]
        spent = median(after - earlier for after, earlier in zip(here, before, strict=True))
        figures.append(Figure(f"request_{part}_ms", spent, "ms", f"until it is {words}"))
        before = here
    return figures


@contextmanager
def working(world: Scene, *options: str, program: Sequence[str] = ("jitvault",)) -> Iterator[subprocess.Popen[bytes]]:
    """A worker on the scene's ledger, as a process of its own, from when it works until the block is left.

    `program` is the module that is run in place of jitvault's, with its own arguments.
    """
    base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    argv = [sys.executable, "-m", *program, "worker", "--log", "json", "--sweep-every", "never", *options]
    # a pipe that nobody reads would stop it once it is full
    with (
        tempfile.NamedTemporaryFile("w+b") as log,
        subprocess.Popen(argv, env={**base, **world.environment}, stderr=log) as process,
    ):
        try:
            _wait_until_it_works(process, Path(log.name))
            yield process
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_until_it_works(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the line that says so. Others may stand before it: the loops run by then, and log as well."""
    deadline = time.monotonic() + _PATIENCE_S
    while b'"event": "working"' not in (said := log.read_bytes()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not start: {said[:1000]!r}")
        time.sleep(_LOOK_S)


def _once(world: Scene) -> dict[str, float]:
    """Milliseconds from the written wish to each part, by the clock of this machine."""
    spec = parse_spec(json.dumps(spec_of(f"bench-{secrets.token_hex(6)}")).encode())
    person = world.operator
    sign_submission(person, spec, revise=False)
    sign_grant_request(person, spec)
    written, deadline = datetime.now(UTC), time.monotonic() + _PATIENCE_S
    while person.documents.get(f"inbox/{person.entity}/{spec.id}") is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no token for {spec.id} within {_PATIENCE_S} s")
        time.sleep(_LOOK_S)
    readable = datetime.now(UTC)
    # what follows is not in the way of the next request
    time.sleep(PAUSE_S)
    while not (at := _events(world, spec.id)).keys() >= set(_PARTS):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{spec.id} was delivered, and the ledger does not say so within {_PATIENCE_S} s")
        time.sleep(_LOOK_S)
    return {
        "readable": (readable - written).total_seconds() * 1000,
        **{part: (at[part] - written).total_seconds() * 1000 for part in _PARTS},
    }


def _events(world: Scene, task: str) -> dict[str, datetime]:
    """When each kind of event was last there."""
    record = world.wiring.ledger.record(task)
    return {event.kind: datetime.fromisoformat(event.at) for event in record.events} if record else {}
