"""The login of the worker or of an agent, shared by a process's threads.

    login = Login(connection, method)
    login.token()    # logs in, renews at half-life, logs in anew before the end; `Vault(connection, login)` calls it
    login.due()      # when `token()` has something to do next, for a loop that makes no requests
    login.close()    # revokes the token of this process's own login; a token that was given is left alone

A batch token is neither renewed nor revoked: a new login replaces it, and it expires.

The worker's token is passed to `announce` before it is used. The ledger counts operation ids only in lines of known
sessions, and a task token that an unknown session creates freezes everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from math import inf
from threading import Lock

from jitvault.errors import JitvaultError, LedgerUnavailable, OutcomeUnknown, VaultRefused, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.vault.auth_methods import WORKER, LoginToken, Method, is_over
from jitvault.vault.client import Connection, Vault

# between two logins after a refusal: someone who keeps revoking the worker's tokens must not cause a storm of logins
LOGIN_PAUSE_S = 10.0
_TRY_AGAIN_S = 5.0
# the shortest time to a renewal, so that a token near its maximum life is not renewed more and more often
_LEAST_S = 1.0
_CLOSE_TIMEOUT_S = 3


@dataclass(frozen=True, slots=True)
class _Held:
    """A token with the monotonic times of its renewal and its end."""

    session: LoginToken
    renew_at: float
    ends_at: float
    # its life when it was new, in seconds: a renewal that gives much less has met the maximum
    whole_s: int
    announced: bool = False
    # no further try before this time, after one that failed
    quiet_until: float = -inf


class Login:
    """`client.Bearer`: the one token of a process.

    `namespace` is where its owner logs in, None for the root namespace.
    """

    def __init__(self, connection: Connection, method: Method, *, namespace: str | None = None) -> None:
        self.method = method
        self.trouble: JitvaultError | None = None
        """Why the last renewal or login failed, while the old token still works."""
        self._connection = replace(connection, namespace=namespace)
        self._held: _Held | None = None
        self._announce: Callable[[Vault], object] | None = None
        self._tried_at = -inf
        self._lock = Lock()

    @property
    def is_worker(self) -> bool:
        return self.method.owner is WORKER

    def token(self) -> Secret:
        """Return the token for the next request, renewed where that is due.

        Raises what `Method.open` raises.
        """
        held = self._held
        if held is not None and self._is_good(held):
            return held.session.token
        usable = held is not None and time.monotonic() < held.ends_at
        # while one thread renews, the others use the old token
        if not self._lock.acquire(blocking=not usable):
            assert held is not None  # noqa: S101 (for the type checker)
            return held.session.token
        try:
            return self._up_to_date().session.token
        finally:
            self._lock.release()

    def introduce(self, announce: Callable[[Vault], object]) -> None:
        """Have `announce` called with each token before it is used.

        That includes the present token, and each renewal. An error of `announce` keeps the token from being used. Only
        the first call fails for a ledger that cannot be written; later on the token is used all the same, so that
        access can be revoked, and it is announced as soon as the ledger can be written.
        """
        with self._lock:
            held = self._up_to_date()
            if self._announce is None:
                with self._as(held.session.token) as own:
                    announce(own)
                self._announce = announce
                self._held = replace(held, announced=True)

    def due(self) -> float:
        """Return when `token` has to renew, by `time.monotonic()`.

        `inf` for never.
        """
        held = self._held
        return max(held.renew_at, held.quiet_until) if held else 0.0

    def replaced(self, refused: Secret) -> bool:
        """Report that Vault refused this token; return whether there is another.

        Raises VaultRefused where the login is over for good.
        """
        with self._lock:
            held = self._held
            if held is None or held.session.token is not refused:
                return True
            with self._as(None) as anonymous:
                if not is_over(anonymous, refused):
                    return False
            if self.method.is_login and time.monotonic() - self._tried_at < LOGIN_PAUSE_S:
                whose = f"the {self.method.owner.name}'s"
                raise self.trouble or VaultUnavailable(
                    f"Vault does not know {whose} token, which it issued less than {LOGIN_PAUSE_S:.0f} s ago",
                    hint=f"Somebody revokes {whose} tokens. Run the command again in a moment: it logs in again.",
                )
            # raises for a given token that is over
            return self._replace(held).session.token.reveal() != refused.reveal()

    def close(self) -> None:
        """Revoke the token if this process logged in for it.

        Raises nothing: otherwise the token ends by itself.
        """
        with self._lock:
            held = self._held
            self._held = None
            if held is not None:
                self._end(held)

    def _is_good(self, held: _Held) -> bool:
        if self._announce is not None and not held.announced:
            return False
        now = time.monotonic()
        if now < held.quiet_until:
            return now < held.ends_at
        return now < held.renew_at and not self.method.has_news()

    def _up_to_date(self) -> _Held:
        """Return the token after any renewal, login or announcement due."""
        held = self._held
        if held is None:
            return self._hold(self._open())
        if self._is_good(held):
            return held
        try:
            if self.method.has_news():
                return self._replace(held)
            if time.monotonic() >= held.renew_at:
                return self._renew(held)
            return self._announced(held)
        except JitvaultError as error:
            if time.monotonic() >= held.ends_at:
                raise
            return self._try_later(held, error)

    def _try_later(self, held: _Held, error: JitvaultError) -> _Held:
        """Keep using a token that works; try again after a pause.

        The pause is 5 s, or a tenth of the token's life where that is less.
        """
        self.trouble = error
        wait_s = min(_TRY_AGAIN_S, held.whole_s / 10) if held.whole_s else _TRY_AGAIN_S
        self._held = replace(held, quiet_until=time.monotonic() + wait_s)
        return self._held

    def _renew(self, held: _Held) -> _Held:
        """Renew the token, or replace it where its maximum life is reached."""
        if held.session.renewable:
            try:
                with self._as(held.session.token) as own:
                    auth = own.write("auth/token/renew-self").get("auth") or {}
            except (VaultRefused, OutcomeUnknown):
                # Vault answers 500 past the maximum. Whether the token was renewed does not matter: it is replaced.
                auth = {}
            given = int(auth.get("lease_duration") or 0)
            if given * 2 > held.whole_s or (given and not self.method.is_login):
                return self._hold(replace(held.session, ttl_s=given), whole_s=held.whole_s)
        elif not self.method.is_login:
            # only the operator who gave the token can replace it
            self._held = replace(held, renew_at=inf)
            return self._held
        return self._replace(held)

    def _replace(self, held: _Held) -> _Held:
        new = self._hold(self._open())
        if new.session.token.reveal() != held.session.token.reveal():
            self._end(held)
        return new

    def _open(self) -> LoginToken:
        self._tried_at = time.monotonic()
        try:
            with self._as(None) as anonymous:
                return self.method.open(anonymous)
        except JitvaultError as error:
            self.trouble = error
            raise

    def _hold(self, session: LoginToken, whole_s: int | None = None) -> _Held:
        """Keep a token, new or renewed, once it was announced.

        `whole_s` is the life of the token when it was new; None for a new one.
        """
        now = time.monotonic()
        life = session.ttl_s or inf
        half = life / 2 if self.method.is_login else max(life / 2, _LEAST_S)
        held = _Held(session, now + half, now + life, whole_s or session.ttl_s)
        try:
            return self._announced(held)
        except JitvaultError:
            if whole_s is None:
                self._end(held)
            raise

    def _announced(self, held: _Held) -> _Held:
        """Announce the token; keep it also where the ledger cannot be written."""
        try:
            if self._announce is not None:
                with self._as(held.session.token) as own:
                    self._announce(own)
        except LedgerUnavailable as error:
            self.trouble = error
            self._held = held
            return held
        self.trouble = None
        self._held = replace(held, announced=self._announce is not None)
        return self._held

    def _end(self, held: _Held) -> None:
        if self.method.is_login and not held.session.is_batch:
            with suppress(JitvaultError), self._as(held.session.token, _CLOSE_TIMEOUT_S) as own:
                own.write("auth/token/revoke-self")

    def _as(self, token: Secret | None, timeout_s: int | None = None) -> closing[Vault]:
        """Return a client of its own, to be closed after use.

        Other threads have clients of their own.
        """
        connection = replace(self._connection, timeout_s=timeout_s or self._connection.timeout_s)
        return closing(Vault(connection, token))
