"""The use of a PostgreSQL login while a template is checked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jitvault.engines.postgresql import client
from jitvault.engines.postgresql.refusal import why_failed
from jitvault.errors import NotConfirmed

if TYPE_CHECKING:
    import psycopg


class LoginInUse:
    """A session of the issued login at one server."""

    def __init__(self, dsn: str, issued: Mapping[str, Any]) -> None:
        """Log in.

        Raises NotConfirmed if the target refuses the login or a statement.
        """
        self._dsn = dsn
        self._user = str(issued["username"])
        self._password = str(issued["password"])
        driver = client.driver()
        try:
            self._open = self._login()
        except driver.Error as error:
            conninfo = driver.conninfo.make_conninfo(dsn, user=self._user, password=self._password)
            _, cause = why_failed(error, conninfo)
            raise NotConfirmed(f"the target refuses the new login: {cause}") from None
        try:
            self._open.execute("SELECT 1")
        except driver.Error as error:
            self.close()
            raise NotConfirmed(f"the new login cannot run a statement ({type(error).__name__})") from None

    def still_works(self) -> bool:
        with suppress(client.driver().Error):
            self._open.execute("SELECT 1")
        # A session of a dropped role goes on, and some statements fail in it: only its end counts.
        return not self._open.closed

    def works_anew(self) -> bool:
        try:
            again = self._login()
        except client.driver().Error:
            # an unreachable target lets nobody in either: the probe that asks next notices that
            return False
        again.close()
        return True

    def close(self) -> None:
        self._open.close()

    def _login(self) -> psycopg.Connection[Any]:
        """Log in as the probe does. Raises psycopg.Error."""
        session: psycopg.Connection[Any] = client.driver().connect(
            self._dsn,
            user=self._user,
            password=self._password,
            autocommit=True,
            connect_timeout=client.CONNECT_S,
            application_name="jitvault-check",
        )
        return session
