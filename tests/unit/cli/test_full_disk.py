"""What a command prints where there is no room for it: no bug, and the command says what is full."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("options", [("--version",), ("policy", "check", "--json")])
def test_a_result_that_cannot_be_printed_is_no_bug_of_jitvaults(options: tuple[str, ...]) -> None:
    policies = Path(__file__).parents[3] / "policies" / "cedar"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "jitvault", *options],
            env={"JITVAULT_POLICIES": str(policies)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 2, ended.stderr
    said = json.loads(ended.stderr)["error"] if "--json" in options else {"message": ended.stderr, "hint": ended.stderr}
    assert "No space left on device" in said["message"] and "Free space" in said["hint"]
    assert "bug" not in ended.stderr
