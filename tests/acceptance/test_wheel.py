"""The built wheel, installed elsewhere, is the whole product."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


# a wheel is built, compiled as it is run, and shows the whole demo: how long that takes says something of the machine
@pytest.mark.timeout(600)
def test_the_wheel_runs_the_demo_from_another_place(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=300, cwd=tmp_path)
    (wheel,) = tmp_path.glob("jitvault-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]
    elsewhere = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(elsewhere)
    where = {"PYTHONPATH": str(elsewhere), "HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}

    code = "import jitvault; print(jitvault.__file__)"
    asked = [sys.executable, "-c", code]
    found = subprocess.run(asked, env=where, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(elsewhere))

    demo = [sys.executable, "-m", "jitvault", "demo", "--json"]
    done = subprocess.run(demo, env=where, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["state"] == "sealed"
    assert told["proof"]["confirmed"] is True
    assert Path(told["report"]).is_file()
    assert Path(told["receipt"]).is_file()
