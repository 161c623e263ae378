"""What `audit status` says where it cannot tell whether the stream is trusted."""

from __future__ import annotations

import pytest

from jitvault.cli import session
from jitvault.cli.commands.installation import audit_status
from jitvault.stream.status import StreamStatus, Trust


class WithoutWorker:
    has_worker = False


def test_what_would_tell_it_is_said_with_that_it_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = StreamStatus(Trust.UNKNOWN, "nobody may ask", "Set what may ask.", None, None, (), None)
    monkeypatch.setattr(session, "open_session", WithoutWorker)
    monkeypatch.setattr(session, "ledger_to_read", lambda _: None)
    monkeypatch.setattr(audit_status, "stream_status_from_ledger", lambda _: found)
    audit_status.audit_status()
    told = " ".join(capsys.readouterr().out.split())
    assert told == "Whether the audit stream is trusted is unknown because nobody may ask next Set what may ask."
