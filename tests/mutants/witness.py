"""A pytest plugin that sees to it that the mutated copy is what is tested, and writes down what really failed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jitvault
from jitvault.errors import NotConfirmed

ROOT, FAILURES = "JITVAULT_MUTANT_ROOT", "JITVAULT_MUTANT_FAILURES"
# what does not import, or names what does not exist, is broken in another way than the mutation says
_NO_VERDICT = (ImportError, SyntaxError, NameError)


def pytest_configure() -> None:
    root = Path(os.environ[ROOT]).resolve()
    if not Path(jitvault.__file__).resolve().is_relative_to(root):
        raise pytest.UsageError(f"{jitvault.__file__} is tested, and not the copy in {root}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    # a template that fails its check while a fixture makes the sandbox: the product has caught it before the test
    in_fixture = call.excinfo is not None and call.excinfo.errisinstance((NotConfirmed, AssertionError))
    is_tested = call.when == "call" or in_fixture
    if is_tested and call.excinfo is not None and not call.excinfo.errisinstance(_NO_VERDICT):
        with Path(os.environ[FAILURES]).open("a") as file:
            file.write(item.nodeid + "\n")
    return (yield)
