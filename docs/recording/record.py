"""Record a command in a terminal as an SVG that plays: `record.py OUT.svg COMMAND [ARGUMENT…]`.

The command runs in a pseudo-terminal of 80 columns. Each line of its output appears when the command printed it; what
does not fit scrolls up. Only output that never moves the cursor back can be recorded, which is so for all of jitvault.
`make recording` records `jitvault demo` for the README.
"""

from __future__ import annotations

import os
import pty
import sys
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 80
ROWS = 26
CELL_WIDTH = 8.4
LINE_HEIGHT = 18
MARGIN = 12
LONGEST_PAUSE_S = 1.5
"""A longer pause is shortened to this, so that nobody watches a server start."""
COLOURS = {1: "#ff7b72", 2: "#7ee787", 3: "#e3b341", 6: "#79c0ff"}
"""By the numbers that terminals give red, green, yellow and cyan."""


def recorded(command: Sequence[str]) -> Iterator[tuple[float, str]]:
    """Run the command, and yield each line with the seconds from the start at which it was complete.

    Raises SystemExit where the command fails.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm"}
        os.execvp(command[0], list(command))  # noqa: S606 (the command is the argument of whoever records)
    begun = time.monotonic()
    rest = b""
    while chunk := _read(terminal):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield time.monotonic() - begun, line.decode().rstrip("\r")
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)} failed")


def _read(terminal: int) -> bytes:
    """Return what is there; nothing at the end, which Linux reports as an error."""
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""


def without_long_pauses(lines: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the lines with the seconds at which each is shown."""
    shown = list[tuple[float, str]]()
    before = at = 0.0
    for printed, line in lines:
        at += min(printed - before, LONGEST_PAUSE_S)
        before = printed
        shown.append((at, line))
    return shown


def as_svg(lines: Sequence[tuple[float, str]]) -> str:
    """Return an SVG that shows the lines one after the other, and stays at the last ones."""
    duration = lines[-1][0] + 1
    width = COLUMNS * CELL_WIDTH + 2 * MARGIN
    height = ROWS * LINE_HEIGHT + 2 * MARGIN
    rows = "\n".join(_row(number, at, line) for number, (at, line) in enumerate(lines))
    end = max(0, len(lines) - ROWS) * LINE_HEIGHT
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">
<title>jitvault demo: one task from its request to its seal</title>
<style>
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #e6edf3; white-space: pre }}
.bold {{ font-weight: 700 }} .dim {{ opacity: .65 }}
{" ".join(f".c{number} {{ fill: {value} }}" for number, value in COLOURS.items())}
.line {{ visibility: hidden; animation: show 1ms forwards }}
@keyframes show {{ to {{ visibility: visible }} }}
.all {{ animation: scroll {duration:.2f}s step-end forwards }}
@keyframes scroll {{ {_scrolling(lines, duration)} to {{ transform: translateY(-{end}px) }} }}
@media (prefers-reduced-motion) {{
.line {{ animation: none; visibility: visible }} .all {{ animation: none; transform: translateY(-{end}px) }}
}}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<svg x="{MARGIN}" y="{MARGIN}" width="{COLUMNS * CELL_WIDTH:.0f}" height="{ROWS * LINE_HEIGHT}"><g class="all">
{rows}
</g></svg>
</svg>
"""


def _scrolling(lines: Sequence[tuple[float, str]], duration: float) -> str:
    """Return the key frames that move everything up by one line for each that does not fit."""
    frames = {f"{100 * lines[number][0] / duration:.2f}%": number + 1 - ROWS for number in range(ROWS, len(lines))}
    return " ".join(f"{when} {{ transform: translateY(-{up * LINE_HEIGHT}px) }}" for when, up in frames.items())


def _row(number: int, at: float, line: str) -> str:
    text = Text.from_ansi(line)
    parts = list[str]()
    for segment in text.render(Console(width=COLUMNS)):
        style = segment.style
        words = [word for word in ("bold", "dim") if style is not None and getattr(style, word)]
        if style is not None and style.color is not None:
            words.append(f"c{style.color.number}")
        shown = escape(segment.text.rstrip("\n"))
        parts.append(f'<tspan class="{" ".join(words)}">{shown}</tspan>' if words else shown)
    y = number * LINE_HEIGHT + 14
    return f'<text class="line" y="{y}" style="animation-delay:{at:.2f}s">{"".join(parts)}</text>'


def main() -> None:
    out, *command = sys.argv[1:]
    Path(out).write_text(as_svg(without_long_pauses(list(recorded(command)))))


if __name__ == "__main__":
    main()
