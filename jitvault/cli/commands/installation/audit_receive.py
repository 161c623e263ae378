"""`jitvault audit receive`: receive the audit lines that Vault pushes."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Annotated

import typer

from jitvault.audit.files.spool import Spool
from jitvault.audit.receivers import receiver as receiving
from jitvault.audit.receivers.http_device import Endpoint, HttpReceiver
from jitvault.audit.receivers.receiver import Notices, Receiver
from jitvault.audit.receivers.socket_device import Address, SocketReceiver
from jitvault.audit.receivers.stdin import StreamReceiver
from jitvault.cli.options import duration
from jitvault.cli.quiet import is_for_program, note
from jitvault.errors import UsageError

Into = Annotated[Path, typer.Option("--into", metavar="DIR", help="The spool directory, for this receiver alone.")]
SocketUrl = Annotated[
    str | None,
    typer.Option("--socket", metavar="URL", help="Listen for a socket device: unix:///PATH."),
]
AllowUser = Annotated[
    list[str] | None,
    typer.Option("--allow-user", metavar="USER", help="With --socket: who may send besides this user and root."),
]
HttpUrl = Annotated[
    str | None,
    typer.Option("--http", metavar="URL", help="Listen for OpenBao's http device: https://HOST:PORT/PATH."),
]
Stdin = Annotated[bool, typer.Option("--stdin", help="Read the lines from standard input, up to its end.")]
Prefix = Annotated[
    str,
    typer.Option("--prefix", metavar="TEXT", help="With --stdin: read only lines that begin with this text and `{`."),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="With --http: the certificate and its chain, PEM.")
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="With --http: the certificate's key, PEM.")
]
BearerFile = Annotated[
    Path | None,
    typer.Option("--bearer-file", metavar="FILE", help="With --http: a file with the bearer token that senders use."),
]
ClientCa = Annotated[
    Path | None,
    typer.Option("--client-ca", metavar="FILE", help="With --http: the CA whose certificates senders need, PEM."),
]
Keep = Annotated[
    float,
    duration("--keep", "How long to keep the files of senders that are gone.", shown="7d", least=1, most=30 * 86_400),
]


def receive(
    into: Into,
    socket: SocketUrl = None,
    allow_user: AllowUser = None,
    http: HttpUrl = None,
    stdin: Stdin = False,
    prefix: Prefix = "",
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    bearer_file: BearerFile = None,
    client_ca: ClientCa = None,
    keep: Keep = 7 * 86_400.0,
) -> None:
    """Receive what Vault's audit devices push.

    Only those may send who know the bearer, have a certificate, or may connect to the socket.

    The lines are kept in files that jitvault reads like those of Vault's file device: name the spool directory in
    JITVAULT_AUDIT_FILE. The command runs until SIGTERM or Ctrl-C, with --stdin until the end of standard input.

    Example: jitvault audit receive --into /srv/spool --socket unix:///run/jitvault.sock
    """
    if [socket is not None, http is not None, stdin].count(True) != 1:
        raise UsageError("audit receive needs one of --socket, --http and --stdin")
    if prefix and not stdin:
        raise UsageError("--prefix goes with --stdin")
    if allow_user and socket is None:
        raise UsageError("--allow-user goes with --socket")
    if http is None and (tls_cert or tls_key or bearer_file or client_ca):
        raise UsageError("--tls-cert, --tls-key, --bearer-file and --client-ca go with --http")
    begin: Callable[[Spool, Notices], Receiver]
    if http is not None:
        endpoint = Endpoint.parse(http, certificate=tls_cert, key=tls_key, bearer_file=bearer_file, client_ca=client_ca)
        begin = partial(HttpReceiver, endpoint)
    elif socket is not None:
        address = Address.parse(socket, users=allow_user or ())
        begin = partial(SocketReceiver, address)
    else:
        begin = partial(StreamReceiver, prefix=prefix)
    notices = receiving.Notices(lambda text: typer.echo(text, err=True))
    spool = Spool(into)
    with spool.held():
        receiver = begin(spool, notices)
        with _stop_signals() as stopping:
            _announce(receiver.listening, into)
            receiving.receive(receiver, spool, keep=timedelta(seconds=keep), stopping=stopping, notices=notices)


def _announce(listening: str, into: Path) -> None:
    if is_for_program():
        # on one line: the process that started this one waits for it while this one goes on running
        sys.stdout.write(json.dumps({"listening": listening, "into": str(into)}, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    else:
        note(f"Receiving from {listening} into {into}")


@contextmanager
def _stop_signals() -> Iterator[Event]:
    """Yield an event that SIGTERM, SIGINT and SIGHUP set."""
    stopping = Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
