"""How fast `jitvault --help` starts."""

from __future__ import annotations

import os
import subprocess
import sys
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


def run(directory: Path) -> list[Figure]:
    """`jitvault --help` against `--help` of a Typer program with one command and nothing else.

    Both are scripts of the same interpreter in the same environment, so both pay for Python, typer and rich.
    """
    bare = directory / "bare-typer"
    bare.write_text(_BARE.format(interpreter=sys.executable))
    bare.chmod(0o755)
    ours = Path(sys.executable).with_name("jitvault")
    own, reference = alternate(PAIRS, lambda: _help_ms(ours), lambda: _help_ms(bare))
    said = f"a bare Typer program's --help, {PAIRS} pairs"
    return [
        Figure("help_start_ratio", ratio(own, reference), "ratio", said, bar=BAR),
        Figure("help_start_ms", median(own), "ms", said),
        Figure("bare_help_start_ms", median(reference), "ms", "itself"),
    ]


def _help_ms(program: Path) -> float:
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), "COLUMNS": "100"}

    def show() -> None:
        done = subprocess.run([program, "--help"], env=environment, capture_output=True, check=True)
        if b"Usage" not in done.stdout:
            raise RuntimeError(f"{program.name} --help shows no usage")

    return milliseconds(show)
