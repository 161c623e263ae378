"""What a Python program connects with.

That is arguments, an engine, and a TLS context. What these need beside the standard library is imported when they are
made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jitvault.agent.sdk.credentials import HeldCredential, the_only
from jitvault.agent.sdk.driver_frames import forget_login
from jitvault.errors import TaskEnded, UsageError

if TYPE_CHECKING:
    import ssl

    import sqlalchemy
    import sqlalchemy.ext.asyncio

    URL = sqlalchemy.URL
    Engine = sqlalchemy.Engine
    AsyncEngine = sqlalchemy.ext.asyncio.AsyncEngine

_DRIVER = "postgresql+psycopg"
Why = Callable[[], TaskEnded | None]
"""Return the error of a login that failed since its task is over, None where the task lasts."""


def psycopg_kwargs(credentials: Sequence[HeldCredential], name: str | None) -> dict[str, Any]:
    """Return arguments of `psycopg.connect`. Raises InvalidInput."""
    login = _login(credentials, name)
    return {**_address(login), **_user(login)}


def sqlalchemy_engine(
    credentials: Sequence[HeldCredential], name: str | None, url: str | URL | None, options: Mapping[str, Any], why: Why
) -> Engine:
    """Return an engine that asks for its login whenever it connects.

    `why` is asked where a connection is lost or is not made. Raises InvalidInput, UsageError.
    """
    try:
        import sqlalchemy
    except ModuleNotFoundError:
        raise UsageError("SQLAlchemy is not installed", hint="`pip install sqlalchemy psycopg` does it.") from None
    login = _login(credentials, name, needs_address=url is None)
    engine = sqlalchemy.create_engine(url or _url(login), **options)
    _log_in(engine, login, why)
    return engine


def async_sqlalchemy_engine(
    credentials: Sequence[HeldCredential], name: str | None, url: str | URL | None, options: Mapping[str, Any], why: Why
) -> AsyncEngine:
    """Return such an engine for `asyncio`.

    Raises InvalidInput, UsageError.
    """
    try:
        import greenlet  # noqa: F401  (SQLAlchemy would miss it at the first connection)
        from sqlalchemy.ext.asyncio import create_async_engine
    except ModuleNotFoundError:
        raise UsageError(
            "SQLAlchemy is not installed with what its engines for asyncio need",
            hint="`pip install 'sqlalchemy[asyncio]' psycopg` does it.",
        ) from None
    login = _login(credentials, name, needs_address=url is None)
    engine = create_async_engine(url or _url(login), **options)
    _log_in(engine.sync_engine, login, why)
    return engine


def dispose_of(engine: Engine) -> None:
    """Have an engine forget its idle connections.

    They are closed, but for those of an asynchronous driver, which are closed in its event loop alone. What is left
    open ends with its login.
    """
    engine.dispose(close=not engine.dialect.is_async)


def _url(login: HeldCredential) -> URL:
    import sqlalchemy

    address = _address(login)
    return sqlalchemy.URL.create(
        _DRIVER,
        host=address.pop("host"),
        port=address.pop("port"),
        database=address.pop("dbname"),
        query=address,
    )


def _log_in(engine: Engine, login: HeldCredential, why: Why) -> None:
    """Have an engine ask for user and password whenever it connects.

    A connection that the end of the task closed, or prevents, raises TaskEnded.
    """
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _: Any, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> Any:
        before = sys.exc_info()[1]
        try:
            # the engine's own parameters live as long as it does, so the password goes into a copy
            return dialect.connect(*arguments, **{**parameters, **_user(login)})
        except BaseException as error:
            forget_login(error, until=before)
            if isinstance(error, dialect.loaded_dbapi.Error) and (ended := why()):
                raise ended from None
            raise

    @sqlalchemy.event.listens_for(engine, "handle_error")
    def explain(context: Any) -> TaskEnded | None:
        return why() if context.is_disconnect else None


def ssl_context(credentials: Sequence[HeldCredential], name: str | None, ca_file: str | None) -> ssl.SSLContext:
    """Return a context for TLS clients with a certificate.

    Raises InvalidInput, UsageError, TaskEnded.
    """
    import ssl

    held = the_only(credentials, name, "certificate with a private key", _has_key)
    facts = held.connection
    context = ssl.create_default_context(cafile=ca_file or facts.get("ca_file"))
    if ca_file is None and facts.get("tls") == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif facts.get("tls") == "verify-ca":
        context.check_hostname = False
    chain = "ca_chain" if "ca_chain" in held.fields else "issuing_ca"
    parts = [each for each in ("private_key", "certificate", chain) if each in held.fields]
    pem = "\n".join(held.secret(each).reveal().strip() for each in parts) + "\n"
    _load(context, pem.encode())
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a certificate and its key, which OpenSSL takes from a file alone.

    It is a file in memory without a name. Raises UsageError where there are none.
    """
    if not hasattr(os, "memfd_create"):
        raise UsageError(
            "this system has no files in memory, so a private key cannot be given to OpenSSL without a file on disk",
            hint='`Task.secret("TEMPLATE.private_key")` gives the key itself.',
        )
    descriptor = os.memfd_create("jitvault", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _login(credentials: Sequence[HeldCredential], name: str | None, *, needs_address: bool = True) -> HeldCredential:
    """Return the login that is meant. Raises InvalidInput."""
    if needs_address:
        return the_only(credentials, name, "login to a database whose address is known", lambda each: each.is_login)
    return the_only(credentials, name, "login", lambda each: {"username", "password"} <= {*each.fields})


def _has_key(credential: HeldCredential) -> bool:
    return {"certificate", "private_key"} <= {*credential.fields}


def _address(login: HeldCredential) -> dict[str, Any]:
    facts = login.connection
    found = {"host": facts["host"], "port": facts["port"], "dbname": facts["database"], "sslmode": facts["tls"]}
    return {**found, "sslrootcert": facts["ca_file"]} if "ca_file" in facts else found


def _user(login: HeldCredential) -> dict[str, Any]:
    """Return user and password. Raises TaskEnded after the task's end."""
    return {"user": login.secret("username").reveal(), "password": login.secret("password").reveal()}
