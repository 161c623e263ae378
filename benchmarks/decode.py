"""How fast, and in how much memory, the audit stream is read.

`python -m benchmarks.decode FILE` reads one file and prints the kilobytes of memory that took at most: `run` starts
it, for a process never gives back what it once had.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure, alternate, milliseconds, ratio
from jitvault.audit.decoding.decoder import decode, scan
from jitvault.audit.observation import Observation, Place

LINES = 300_000
RELEVANT = LINES // 50
TIMES = 5
# what malloc takes from its heap: from 128 KiB on it may map and unmap memory for each chunk
CHUNK = 112 * 1024
SMALL, LARGE = 10_000_000, 1_000_000_000


def run(audit_file: Path, directory: Path) -> list[Figure]:
    """Reading 300,000 lines of which 2 % matter, and whose they are, against json.loads and against bare iteration.

    The lines are the server's own, from the run so far, each with a request id of its own. What is found in them is
    decoded, hashed and linked to its task; what the ledger does with it is not part of this.
    """
    path = directory / "audit.log"
    with path.open("wb") as file:
        file.writelines(_lines(audit_file))
    tasks = _tasks(path)
    own, reference, bare = alternate(
        TIMES,
        lambda: milliseconds(lambda: _read_and_link(path, tasks)),
        lambda: milliseconds(lambda: _by_json(path)),
        lambda: milliseconds(lambda: _bare(path)),
    )
    mean = path.stat().st_size // LINES
    lines = f"{LINES:,} lines of {mean:,} bytes on average, {TIMES} times in turn"
    memory = _memory_growth(path, directory)
    path.unlink()
    return [
        Figure("audit_decode_lines_per_s", _rate(own), "lines/s", lines, better="higher"),
        Figure("json_decode_lines_per_s", _rate(reference), "lines/s", "itself", better="higher"),
        Figure("audit_decode_ratio", ratio(reference, own), "ratio", f"json.loads of {lines}", "higher", bar=4),
        Figure("audit_iterate_ratio", ratio(own, bare), "ratio", f"for line in file: pass, over {lines}", bar=5),
        Figure("audit_memory_growth_mb", memory, "MB", "the peak of reading 1 GB less that of 10 MB", bar=40),
    ]


def _lines(audit_file: Path) -> Iterator[bytes]:
    """The server's lines over and over: 1 of 50 is one that matters, the others are of people who are not ours."""
    relevant: list[bytes] = []
    others: list[bytes] = []
    with audit_file.open("rb") as file:
        for n, line in enumerate(file):
            if decode(line, Place("bench", 1, n)):
                relevant.append(line)
            elif not any(p.startswith("jitvault-") for p in json.loads(line).get("auth", {}).get("policies", [])):
                others.append(line)
    ours, theirs = itertools.cycle(relevant), itertools.cycle(others)
    for n in range(LINES):
        line = next(ours) if n % (LINES // RELEVANT) == 0 else next(theirs)
        known = json.loads(line)["request"].get("id", "")
        yield line.replace(known.encode(), str(uuid.uuid4()).encode()) if known else line


def _rate(measures: list[float]) -> float:
    return LINES / median(measures) * 1000


def _observations(path: Path) -> Iterator[tuple[int, list[Observation]]]:
    """The lines of each chunk, and what they say."""
    offset = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found = scan(chunk + file.readline(), Place("bench", 1, offset))
            if found.bad:
                raise RuntimeError(f"a line is not an audit entry: {found.bad}")
            offset += found.consumed
            yield found.lines, found.observations


def _tasks(path: Path) -> dict[str, str]:
    """A task for each accessor, as the ledger would know it."""
    return {o.stands_for: f"task {n}" for n, (_, found) in enumerate(_observations(path)) for o in found}


def _read_and_link(path: Path, tasks: dict[str, str]) -> None:
    lines = seen = linked = 0
    aliases: dict[str, str] = {}
    for number, found in _observations(path):
        lines += number
        seen += len(found)
        for o in found:
            if o.alias:
                aliases[o.alias] = o.stands_for
            token = aliases.get(o.token, o.token) if o.token else ""
            linked += any(name in tasks for name in (o.subject, o.actor, token))
    if (lines, seen) != (LINES, RELEVANT) or not linked:
        raise RuntimeError(f"{lines} lines were read, {seen} were found to matter, and {linked} were linked")


def _by_json(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            json.loads(line)


def _bare(path: Path) -> None:
    with path.open("rb") as file:
        for _ in file:
            pass


def _memory_growth(path: Path, directory: Path) -> float:
    """In megabytes, between reading 10 MB and 1 GB of the same lines."""
    with path.open("rb") as file:
        block = file.read(SMALL) + file.readline()
    peaks: list[float] = []
    for size in (SMALL, LARGE):
        log = directory / "memory.log"
        with log.open("wb") as file:
            file.writelines(itertools.repeat(block, size // SMALL))
        read = [sys.executable, "-m", "benchmarks.decode", str(log)]
        told = subprocess.run(read, cwd=Path(__file__).parent.parent, check=True, capture_output=True, text=True)
        peaks.append(float(told.stdout) * 1024 / 1e6)
        log.unlink()
    return peaks[1] - peaks[0]


if __name__ == "__main__":
    for _ in _observations(Path(sys.argv[1])):
        pass
    # not getrusage: there a new process inherits the peak of the one that started it
    status = Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]
