"""The built wheel, installed elsewhere, is the whole product."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from newcomer import COMMAND, ELSEWHERE, environment

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not pytest's own: as root, PostgreSQL runs as somebody else, who has to get to its files."""
    with tempfile.TemporaryDirectory(prefix="jitvault-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def unpacked(directory: Path) -> Path:
    """Build the wheel, and install it in `directory`."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(directory), str(ROOT)]
    subprocess.run(build, check=True, timeout=300, cwd=directory)
    (wheel,) = directory.glob("jitvault-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]
    zipfile.ZipFile(wheel).extractall(directory / "site")
    return directory / "site"


# a wheel is built, compiled as it is run, and shows the whole demo: how long that takes says something of the machine
@pytest.mark.timeout(600)
@pytest.mark.thorough
def test_a_demo_of_the_wheel_elsewhere_and_one_of_the_checkout_at_once_each_give_a_sealed_task_with_report_and_receipt(
    directory: Path,
) -> None:
    site = unpacked(directory)
    of_wheel = {"PYTHONPATH": str(site), "PATH": os.environ["PATH"], "HOME": str(directory)}
    code = "import jitvault; print(jitvault.__file__)"
    asked = [sys.executable, "-c", code]
    found = subprocess.run(asked, env=of_wheel, cwd=directory, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(site))

    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    homes = [directory / name for name in ("wheel", "checkout")]
    demos = [
        subprocess.Popen(
            [*COMMAND, "demo", "--json"],
            env={**ELSEWHERE, **environment(home), **more},
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for home, more in zip(homes, ({"PYTHONPATH": str(site)}, {"PYTHONPATH": str(ROOT)}), strict=True)
    ]
    # what others do on the machine makes it longer, and says nothing of the demo
    ended = [demo.communicate(timeout=300) for demo in demos]
    over = resource.getrusage(resource.RUSAGE_CHILDREN)
    took_s = over.ru_utime + over.ru_stime - began.ru_utime - began.ru_stime
    assert took_s < 80, "40 s of a processor for each"
    for home, demo, (out, err) in zip(homes, demos, ended, strict=True):
        assert (demo.returncode, err) == (0, "")
        told = json.loads(out)
        assert told["state"] == "sealed" and told["proof"]["confirmed"] is True
        assert told["proof"]["leases"][0]["verdict"] == "target_confirmed"
        (row,) = json.loads(Path(told["report"]).read_text())["leases"]
        assert (row["state"], row["verdict"]) == ("sealed", "target_confirmed")
        envelope = json.loads(Path(told["receipt"]).read_text())
        assert envelope["signatures"] and envelope["payload"]
        left = {path.name for path in Path(home / "tmp").iterdir()}
        assert left == {Path(told["report"]).parent.name}, "nothing stays but what is told"
