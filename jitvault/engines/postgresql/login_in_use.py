"""The use of a PostgreSQL login while a template is checked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from jitvault.engines.postgresql import client
from jitvault.errors import NotConfirmed


class LoginInUse:
    """A session of the issued login at one server."""

    def __init__(self, dsn: str, issued: Mapping[str, Any]) -> None:
        """Log in.

        Raises NotConfirmed if the target refuses the login or a statement.
        """
        self._dsn = dsn
        self._login = {"user": str(issued["username"]), "password": str(issued["password"])}
        self._open = client.checked_login(dsn, **self._login)
        try:
            self._open.execute("SELECT 1")
        except client.driver().Error as error:
            self.close()
            raise NotConfirmed(f"the new login cannot run a statement ({type(error).__name__})") from None

    def still_works(self) -> bool:
        with suppress(client.driver().Error):
            self._open.execute("SELECT 1")
        # A session of a dropped role goes on, and some statements fail in it: only its end counts.
        return not self._open.closed

    def works_anew(self) -> bool:
        try:
            again = client.connected(self._dsn, client.CHECK, **self._login)
        except client.driver().Error:
            # an unreachable target lets nobody in either: the probe that asks next notices that
            return False
        again.close()
        return True

    def close(self) -> None:
        self._open.close()
