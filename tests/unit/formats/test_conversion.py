"""Values are converted to classes by many threads at once; the first conversions to a class must not meet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jitvault.formats.conversion import converter

JITVAULT = Path(__file__).parents[3] / "jitvault"
# without the work at the converter's making, msgspec reads a null pointer in one of these classes
_MANY_AT_ONCE = """
import sys, threading
from jitvault.formats.conversion import converter

sys.setswitchinterval(1e-6)
THREADS, CLASSES, FIELDS = 8, 100, 30
source = ["from __future__ import annotations", "from msgspec import Struct"]
for n in range(CLASSES):
    source += [f"class Part{n}(Struct): x: int = 0", f"class Whole{n}(Struct):"]
    source += [f"    c{m}: dict[str, Part{n}] | int | None = None" for m in range(FIELDS)]
exec("\\n".join(source))
converters = [converter(globals()[f"Whole{n}"]) for n in range(CLASSES)]
together = threading.Barrier(THREADS)

def convert_all():
    for convert in converters:
        together.wait()
        assert convert({"c7": 7}).c7 == 7

threads = [threading.Thread(target=convert_all) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_convert_to_a_class_for_the_first_time_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MANY_AT_ONCE], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_value_of_another_form_is_refused() -> None:
    assert converter(int)(7) == 7
    with pytest.raises(msgspec.ValidationError):
        converter(int)("7")


def test_nothing_else_converts() -> None:
    users = [path.name for path in JITVAULT.rglob("*.py") if "msgspec.convert" in path.read_text()]
    assert users == ["conversion.py"]
