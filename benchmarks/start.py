"""How fast a command starts: `jitvault --help`, and one that asks Vault."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure, alternate, milliseconds, ratio

PAIRS = 20
BAR = 2.0

_BARE = """\
#!{interpreter}
import typer

app = typer.Typer()


@app.command()
def greet(name: str = "world") -> None:
    \"\"\"Greet somebody.\"\"\"
    typer.echo(f"Hello {{name}}")


if __name__ == "__main__":
    app()
"""

_ASKING = """\
#!{interpreter}
import hvac
import typer


def main() -> None:
    try:
        hvac.Client(url="{address}", token="s.nobody").secrets.kv.v2.read_secret("tasks/some-task")
    except OSError:
        raise typer.Exit(5) from None


typer.run(main)
"""
_NOBODY = "http://127.0.0.1:9"
_UNREACHABLE = 5


def run(directory: Path) -> list[Figure]:
    """`jitvault --help` against `--help` of a Typer program with one command and nothing else; and `jitvault status`,
    as whoever has no ledger runs it, against one that asks with hvac. At their address nobody listens.

    All are scripts of the same interpreter in the same environment, so all pay for Python and typer, two for hvac.
    """
    ours = Path(sys.executable).with_name("jitvault")
    bare = _script(directory / "bare-typer", _BARE.format(interpreter=sys.executable))
    asking = _script(directory / "bare-hvac", _ASKING.format(interpreter=sys.executable, address=_NOBODY))
    own, reference = alternate(PAIRS, lambda: _help_ms(ours), lambda: _help_ms(bare))
    said = f"a bare Typer program's --help, {PAIRS} pairs"
    status, asked = alternate(PAIRS, lambda: _ask_ms(ours, "status", "some-task"), lambda: _ask_ms(asking))
    beside = f"a bare Typer program that asks with hvac, {PAIRS} pairs"
    return [
        Figure("help_start_ratio", ratio(own, reference), "ratio", said, bar=BAR),
        Figure("help_start_ms", median(own), "ms", said),
        Figure("bare_help_start_ms", median(reference), "ms", "itself"),
        Figure("status_start_ratio", ratio(status, asked), "ratio", beside),
        Figure("status_start_ms", median(status), "ms", beside),
    ]


def _script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def _help_ms(program: Path) -> float:
    return _run_ms([program, "--help"], 0)


def _ask_ms(program: Path, *arguments: str) -> float:
    return _run_ms([program, *arguments], _UNREACHABLE)


def _run_ms(argv: Sequence[Path | str], code: int) -> float:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": os.environ.get("HOME", "/"),
        "COLUMNS": "100",
        "VAULT_ADDR": _NOBODY,
        "VAULT_TOKEN": "s.nobody",
    }

    def show() -> None:
        done = subprocess.run(argv, env=environment, capture_output=True, check=False)
        if done.returncode != code:
            raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr.decode()}")

    return milliseconds(show)
