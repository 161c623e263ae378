"""How much output a masker passes, and how long one write of a program waits for it."""

from __future__ import annotations

import random
from base64 import b64encode
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure, alternate, milliseconds
from jitvault.agent.masking import Masker

TIMES = 20
CHUNK, CHUNKS = 64 * 1024, 128
WRITE = 4 * 1024
BAR_MB_PER_S, BAR_MS = 50, 20


def run(directory: Path) -> list[Figure]:
    """A masker of three short secrets and a private key, and output that is half log lines, half base64.

    None of the secrets is in it, and base64 is what a masker has most forms of.
    """
    del directory
    numbers = random.Random(1)
    secrets = _secrets(numbers)
    output = _output(numbers)
    chunks = [output[start : start + CHUNK] for start in range(0, len(output), CHUNK)]
    writes = [output[start : start + WRITE] for start in range(0, len(output), WRITE)]
    built, passed, written = alternate(
        TIMES,
        lambda: milliseconds(lambda: Masker(secrets)),
        lambda: _passing(secrets, chunks),
        lambda: sorted(_waits(secrets, writes))[-len(writes) // 100],
    )
    said = f"3 secrets of 20 to 40 bytes and one of {len(secrets[-1][2]):,}, {TIMES} times"
    rate = len(output) / 1e6 / (median(passed) / 1000)
    return [
        Figure("masking_mb_per_s", rate, "MB/s", f"chunks of 64 KiB; {said}", "higher", bar=BAR_MB_PER_S),
        Figure("masking_write_ms", median(written), "ms", f"of 100 writes of 4 KiB the slowest; {said}", bar=BAR_MS),
        Figure("masker_build_ms", median(built), "ms", said),
    ]


def _secrets(numbers: random.Random) -> list[tuple[str, str, str]]:
    key = b64encode(numbers.randbytes(1218)).decode()
    lines = [key[start : start + 64] for start in range(0, len(key), 64)]
    pem = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])
    short = [numbers.randbytes(size).hex() for size in (10, 15, 20)]
    return [("bench", f"field_{number}", value) for number, value in enumerate([*short, pem])]


def _output(numbers: random.Random) -> bytes:
    lines = []
    size = 0
    while size < CHUNK * CHUNKS:
        log = f"2026-01-31T09:00:00Z INFO request {numbers.randrange(10**6)} took {numbers.random():.3f} s\n".encode()
        lines += [log, b64encode(numbers.randbytes(48)) + b"\n"]
        size += len(lines[-1]) + len(lines[-2])
    return b"".join(lines)[: CHUNK * CHUNKS]


def _passing(secrets: list[tuple[str, str, str]], chunks: list[bytes]) -> float:
    stream = Masker(secrets).stream()
    passed: list[bytes] = []
    took = milliseconds(lambda: passed.extend(map(stream.feed, chunks)))
    if b"".join([*passed, stream.finish()]) != b"".join(chunks):
        raise RuntimeError("output without a secret came out as something else")
    return took


def _waits(secrets: list[tuple[str, str, str]], writes: list[bytes]) -> list[float]:
    stream = Masker(secrets).stream()
    return [milliseconds(partial(stream.feed, data)) for data in writes]
