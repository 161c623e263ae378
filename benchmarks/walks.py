"""`python -m benchmarks.walks`: count the files that three flows of docs/architecture.md go through.

A reader who follows a flow opens each file in which one of its functions runs. Files whose functions are only values
(`errors.py`, `formats/`) count as well. `--files` names them.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import jitvault
from benchmarks.scene import Scene, scene
from jitvault.model.states import State

PACKAGE = str(Path(jitvault.__file__).parent) + os.sep
# the first argument is where the result goes; the command sees the rest
_REVOKE = """
import json, sys
from pathlib import Path
from benchmarks.walks import visited
from jitvault.cli.app import main
result = Path(sys.argv.pop(1))
with visited() as files:
    try:
        main()
    except SystemExit as end:
        result.write_text(json.dumps([end.code, sorted(files)]))
"""


@contextmanager
def visited() -> Iterator[set[str]]:
    """Collect the files of jitvault in which a function is called, relative to the package.

    What runs because a module is imported just then does not count: a reader of the flow does not go there.
    """
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(PACKAGE):
            return
        file = name.removeprefix(PACKAGE)
        if file not in files and _is_function(frame) and not _is_import(frame):
            files.add(file)

    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(None)


def _is_function(frame: FrameType) -> bool:
    """Return whether a frame runs a function, and not the body of a class or module."""
    return bool(frame.f_code.co_flags & inspect.CO_OPTIMIZED)


def _is_import(frame: FrameType) -> bool:
    """Return whether a frame was called, however indirectly, by the body of a module of jitvault."""
    caller = frame.f_back
    while caller is not None:
        if caller.f_code.co_name == "<module>" and caller.f_code.co_filename.startswith(PACKAGE):
            return True
        caller = caller.f_back
    return False


def grant(world: Scene) -> set[str]:
    """Return the files of the way from a signed request to a delivered token."""
    spec = world.asked()
    with visited() as files:
        world.advance(spec, State.ISSUED)
    return files


def confirm(world: Scene) -> set[str]:
    """Return the files of the way from the end's audit lines to `confirmed`."""
    spec = world.used()
    with visited() as files:
        world.advance(spec, State.CONFIRMED)
    return files


def revoke(world: Scene) -> set[str]:
    """Return the files that the command `revoke` goes through, from its arguments to the printed proof."""
    spec = world.asked()
    world.advance(spec, State.ISSUED)
    environment = {**os.environ, **world.environment, "VAULT_TOKEN": world.world.operator_token.reveal()}
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [sys.executable, "-c", _REVOKE, result.name, "revoke", spec.id, "--reason", "a walk", "--yes"]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        status, files = json.loads(Path(result.name).read_text())
    if status:
        raise RuntimeError(f"revoke ended with {status}")
    return set(files)


WALKS: dict[str, Callable[[Scene], set[str]]] = {
    "from a request to a grant": grant,
    "from audit lines to confirmed": confirm,
    "the command revoke": revoke,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.walks", description=__doc__.partition("\n")[0])
    parser.add_argument("--files", action="store_true", help="name the files")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, scene(Path(name) / "scene") as world:
        for title, walk in WALKS.items():
            files = walk(world)
            print(f"{len(files):4} files  {title}")
            if asked.files:
                print("".join(f"            {file}\n" for file in sorted(files)), end="")


if __name__ == "__main__":
    main()
