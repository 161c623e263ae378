"""The worker's login, held for as long as a process runs and shared by its threads.

login = Login(connection, method)
login.token()       # logs in, renews at half-life, logs in anew before the end; what `Vault(connection, login)` asks
login.due()         # when `token()` has something to do next, for a loop that makes no requests
login.close()       # ends what this process logged in for; a token that was given stays

A token is told to `announce` before anything is done with it: the ledger counts operation ids in the lines of known
sessions only, and a token that is created by an unknown one freezes everything.
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
from jitvault.vault.auth_methods import Method, Session, is_over
from jitvault.vault.client import Connection, Vault

# between two logins that follow a refusal: whoever keeps ending our tokens gets no storm of logins
LOGIN_PAUSE_S = 10.0
_TRY_AGAIN_S = 5.0
# a life that cannot be made longer is not renewed more and more often towards its end
_LEAST_S = 1.0
_CLOSE_TIMEOUT_S = 3


@dataclass(frozen=True, slots=True)
class _Held:
    """A token and, by the monotonic clock, when it is to be renewed and when it ends."""

    session: Session
    renew_at: float
    ends_at: float
    # how long it lived when it was new: a renewal that gives much less has met its maximum
    whole_s: int
    announced: bool = False
    # what could not be done is left alone until then
    quiet_until: float = -inf


class Login:
    """`client.Bearer`: the one token of a process. `namespace` is where the login is, None for the root namespace."""

    def __init__(self, connection: Connection, method: Method, *, namespace: str | None = None) -> None:
        self.method = method
        self.trouble: JitvaultError | None = None
        """Why it could not be renewed or replaced the last time, while the old one still works."""
        self._connection = replace(connection, namespace=namespace)
        self._held: _Held | None = None
        self._announce: Callable[[Vault], object] | None = None
        self._tried_at = -inf
        self._lock = Lock()

    def token(self) -> Secret:
        """The token as it is now, for the next request. Raises what `Method.open` raises."""
        held = self._held
        if held is not None and self._is_good(held):
            return held.session.token
        usable = held is not None and time.monotonic() < held.ends_at
        # while one thread renews, the others go on with the old one
        if not self._lock.acquire(blocking=not usable):
            assert held is not None  # noqa: S101 (for the type checker)
            return held.session.token
        try:
            return self._kept().session.token
        finally:
            self._lock.release()

    def introduce(self, announce: Callable[[Vault], object]) -> None:
        """Have `announce` called with each token before it is used, the present one included, and after each renewal.

        What it raises keeps the token from being used. A ledger that takes no word does so now, and not later on:
        access can be taken away all the same, and it is told as soon as that is possible.
        """
        with self._lock:
            held = self._kept()
            if self._announce is None:
                with self._as(held.session.token) as own:
                    announce(own)
                self._announce, self._held = announce, replace(held, announced=True)

    def due(self) -> float:
        """By `time.monotonic()`, when `token` has something to do without being asked; `inf` for never."""
        held = self._held
        return max(held.renew_at, held.quiet_until) if held else 0.0

    def replaced(self, refused: Secret) -> bool:
        """That token was refused: whether there is another one. Raises VaultRefused where it is over for good."""
        with self._lock:
            held = self._held
            if held is None or held.session.token is not refused:
                return True
            with self._as(None) as nobody:
                if not is_over(nobody, refused):
                    return False
            if self.method.is_login and time.monotonic() - self._tried_at < LOGIN_PAUSE_S:
                raise self.trouble or VaultUnavailable(
                    f"Vault does not know the worker's token, which was made less than {LOGIN_PAUSE_S:.0f} s ago",
                    hint="Somebody ends the worker's tokens. Run it again in a moment: it logs in anew.",
                )
            # of a token that was given this says that it is over
            return self._replace(held).session.token.reveal() != refused.reveal()

    def close(self) -> None:
        """End the token if this process logged in for it. Raises nothing: it ends by itself otherwise."""
        with self._lock:
            held, self._held = self._held, None
            if held is not None:
                self._end(held)

    def _is_good(self, held: _Held) -> bool:
        if self._announce is not None and not held.announced:
            return False
        now = time.monotonic()
        if now < held.quiet_until:
            return now < held.ends_at
        return now < held.renew_at and not self.method.has_news()

    def _kept(self) -> _Held:
        """What is held, after what had to be done about it."""
        held = self._held
        if held is None:
            return self._hold(self._open())
        if self._is_good(held):
            return held
        try:
            if self.method.has_news():
                return self._replace(held)
            if time.monotonic() >= held.renew_at:
                return self._renewed(held)
            return self._told(held)
        except JitvaultError as error:
            if time.monotonic() >= held.ends_at:
                raise
            return self._left_alone(held, error)

    def _left_alone(self, held: _Held, error: JitvaultError) -> _Held:
        """What works is used on, and what failed is tried again in a while."""
        self.trouble = error
        wait_s = min(_TRY_AGAIN_S, held.whole_s / 10) if held.whole_s else _TRY_AGAIN_S
        self._held = replace(held, quiet_until=time.monotonic() + wait_s)
        return self._held

    def _renewed(self, held: _Held) -> _Held:
        """The same token with a new life, or another one where it has reached the end of what it can get."""
        if held.session.renewable:
            try:
                with self._as(held.session.token) as own:
                    auth = own.write("auth/token/renew-self").get("auth") or {}
            except (VaultRefused, OutcomeUnknown):
                # past the maximum Vault answers with a 500; whether it was renewed makes no difference to another one
                auth = {}
            given = int(auth.get("lease_duration") or 0)
            if given * 2 > held.whole_s or (given and not self.method.is_login):
                return self._hold(replace(held.session, ttl_s=given), whole_s=held.whole_s)
        elif not self.method.is_login:
            # nobody but its giver can do anything about it
            self._held = replace(held, renew_at=inf)
            return self._held
        return self._replace(held)

    def _replace(self, held: _Held) -> _Held:
        new = self._hold(self._open())
        if new.session.token.reveal() != held.session.token.reveal():
            self._end(held)
        return new

    def _open(self) -> Session:
        self._tried_at = time.monotonic()
        try:
            with self._as(None) as nobody:
                return self.method.open(nobody)
        except JitvaultError as error:
            self.trouble = error
            raise

    def _hold(self, session: Session, whole_s: int | None = None) -> _Held:
        """A token, new or renewed, as soon as it was told of."""
        now, life = time.monotonic(), session.ttl_s or inf
        half = life / 2 if self.method.is_login else max(life / 2, _LEAST_S)
        held = _Held(session, now + half, now + life, whole_s or session.ttl_s)
        try:
            return self._told(held)
        except JitvaultError:
            if whole_s is None:
                self._end(held)
            raise

    def _told(self, held: _Held) -> _Held:
        try:
            if self._announce is not None:
                with self._as(held.session.token) as own:
                    self._announce(own)
        except LedgerUnavailable as error:
            self.trouble, self._held = error, held
            return held
        self.trouble, self._held = None, replace(held, announced=self._announce is not None)
        return self._held

    def _end(self, held: _Held) -> None:
        if self.method.is_login:
            with suppress(JitvaultError), self._as(held.session.token, _CLOSE_TIMEOUT_S) as own:
                own.write("auth/token/revoke-self")

    def _as(self, token: Secret | None, timeout_s: int | None = None) -> closing[Vault]:
        """A connection of its own: whoever makes requests meanwhile has theirs."""
        connection = replace(self._connection, timeout_s=timeout_s or self._connection.timeout_s)
        return closing(Vault(connection, token))
