"""`make mutants`: break each check once and see its tests turn red.

`python -m mutants [WORD…]` takes the mutations whose table, file or words have one of these in them. Ends with 1 when a
mutant survives, when it is stale, and when its tests are not green without it.
"""

from __future__ import annotations

import queue
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mutants.mutation import Mutation, mutations
from mutants.trial import Copy, Run, Verdict, is_of

T = TypeVar("T")
# as many as the processes of the suite, which wait most of the time
_AT_ONCE = 4


def main(words: Sequence[str]) -> int:
    begun = time.monotonic()
    wanted = [m for m in mutations() if not words or any(w in f"{m.table} {m.file} {m.breaks}" for w in words)]
    if not wanted:
        print("no such mutation")
        return 2
    with tempfile.TemporaryDirectory(prefix="jitvault-mutants-") as place:
        copies: queue.Queue[Copy] = queue.Queue()
        for n in range(_AT_ONCE):
            copies.put(Copy(Path(place) / str(n)))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            red_before = _not_green(pool, copies, wanted)
            verdicts = list(pool.map(lambda m: _judged(copies, m, red_before), wanted))
    alive = [verdict for verdict in verdicts if verdict.why]
    for verdict in alive:
        print(f"\n{verdict.why}: {verdict.mutation.breaks}\n{verdict.said[-2000:]}")
    print(f"\n{len(verdicts) - len(alive)} of {len(verdicts)} mutants caught in {time.monotonic() - begun:.0f} s")
    return 1 if alive else 0


def _not_green(
    pool: ThreadPoolExecutor, copies: queue.Queue[Copy], wanted: Sequence[Mutation]
) -> dict[tuple[str, ...], Run]:
    """Return the runs of those selections of tests that are not green on the code as it is.

    All tests run once, beside each other; the selections of those that failed run again, alone.
    """
    selections = sorted({mutation.tests for mutation in wanted})
    tests = sorted({test for selection in selections for test in selection})
    red, seconds = _with_a_copy(copies, lambda copy: copy.run_all(tests))
    print(
        f"{len(tests)} files and tests, seen before in {seconds:.0f} s: {len(red)} failed beside the others\n",
        flush=True,
    )
    doubtful = [selection for selection in selections if any(is_of(name, selection) for name in red)]
    runs = list(pool.map(lambda tests: _with_a_copy(copies, lambda copy: copy.run(tests)), doubtful))
    return {tests: run for tests, run in zip(doubtful, runs, strict=True) if not run.is_green}


def _judged(copies: queue.Queue[Copy], mutation: Mutation, red_before: dict[tuple[str, ...], Run]) -> Verdict:
    if before := red_before.get(mutation.tests):
        verdict = Verdict(mutation, "not green without it", "", before.seconds, before.said)
    else:
        verdict = _with_a_copy(copies, lambda copy: copy.judge(mutation))
    mark, by = ("ok ", verdict.caught_by.partition("::")[2]) if not verdict.why else ("BAD", verdict.why)
    print(f"{mark} {verdict.seconds:5.1f} s  {mutation.table:<13} {mutation.breaks}\n{'':16}{by[:100]}", flush=True)
    return verdict


def _with_a_copy(copies: queue.Queue[Copy], act: Callable[[Copy], T]) -> T:
    copy = copies.get()
    try:
        return act(copy)
    finally:
        copies.put(copy)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
