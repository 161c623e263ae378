"""A token is printed in one piece also where it is longer than a terminal is wide: HashiCorp Vault's are 95 long."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import pytest

from jitvault.agent.unwrap import TaskToken
from jitvault.cli.views import output, task_token
from jitvault.cli.views import task as render
from jitvault.formats.secret import Secret

# of 95 characters, some of which a folding terminal may break at
TOKEN = "hvs.CAES-_" + secrets.token_urlsafe(96)[:85]
WRAPPING = {"token": TOKEN, "ttl": 120, "reads": ["database/creds/app-readonly"], "sends": {}}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    # what is no terminal folds nothing
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")


def test_a_wrapping_token_is_in_one_line_and_is_no_argument(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_wrappings(output.console(), [WRAPPING], None)
    shown = capsys.readouterr().out
    assert f"  token    {TOKEN}\n" in shown
    assert " jitvault unwrap -\n" in shown and f"unwrap {TOKEN}" not in shown


def test_a_task_token_is_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    held = TaskToken("t", Secret(TOKEN), datetime(2030, 1, 1, tzinfo=UTC), ())
    task_token.print_task_token(held, out=None, as_json=False)
    assert f" {TOKEN}\n" in capsys.readouterr().out
