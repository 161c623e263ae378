"""`jitvault audit receive`: receive the audit lines that Vault pushes."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from jitvault.cli.options import Debug, Json, seconds
from jitvault.cli.quiet import note

if TYPE_CHECKING:
    from jitvault.audit.files.spool import Spool
    from jitvault.audit.receivers.receiver import Notices, Receiver

audit_app = typer.Typer(help="Receive, check and repair the audit stream.", no_args_is_help=True)


Into = Annotated[Path, typer.Option("--into", metavar="DIR", help="The spool directory, for this receiver alone.")]
SocketUrl = Annotated[
    str | None,
    typer.Option("--socket", metavar="URL", help="Listen for a socket device: tcp://HOST:PORT, unix:///PATH."),
]
HttpUrl = Annotated[
    str | None,
    typer.Option("--http", metavar="URL", help="Listen for OpenBao's http device: http://HOST:PORT/PATH, or https."),
]
Stdin = Annotated[bool, typer.Option("--stdin", help="Read the lines from standard input, up to its end.")]
Prefix = Annotated[
    str,
    typer.Option("--prefix", metavar="TEXT", help="With --stdin: read only lines that begin with this text and `{`."),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="With https: the certificate and its chain, PEM.")
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="With https: the certificate's key, PEM.")
]
BearerFile = Annotated[
    Path | None,
    typer.Option("--bearer-file", metavar="FILE", help="With --http: a file with the bearer token that senders use."),
]
NoBearer = Annotated[bool, typer.Option("--no-bearer", help="With --http: let anyone who reaches the port add lines.")]
MaxConnections = Annotated[
    int, typer.Option("--max-connections", min=1, max=1024, help="How many senders may be connected at once.")
]
Untrusted = Annotated[
    str,
    typer.Option("--untrusted", metavar="SIZE", help="How much disk space all untrusted senders together may use."),
]
Keep = Annotated[
    float,
    typer.Option(
        "--keep",
        metavar="DURATION",
        parser=seconds(least=1, most=30 * 86_400),
        show_default="7d",
        help="How long to keep the files of senders that are gone.",
    ),
]


@audit_app.command("receive")
def receive(
    into: Into,
    socket: SocketUrl = None,
    http: HttpUrl = None,
    stdin: Stdin = False,
    prefix: Prefix = "",
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    bearer_file: BearerFile = None,
    no_bearer: NoBearer = False,
    max_connections: MaxConnections = 64,
    untrusted: Untrusted = "256MiB",
    keep: Keep = 7 * 86_400.0,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Receive what Vault's audit devices push.

    The lines are kept in files that jitvault reads like those of Vault's file device: name the spool directory in
    JITVAULT_AUDIT_FILE. The command runs until SIGTERM or Ctrl-C, with --stdin until the end of standard input.

    Example: jitvault audit receive --into /srv/spool --socket tcp://127.0.0.1:9090
    """
    from jitvault.audit.files.spool import Spool
    from jitvault.audit.files.untrusted import parse_quota
    from jitvault.audit.receivers import receiver as receiving
    from jitvault.errors import UsageError

    if [socket is not None, http is not None, stdin].count(True) != 1:
        raise UsageError("audit receive needs one of --socket, --http and --stdin")
    if prefix and not stdin:
        raise UsageError("--prefix goes with --stdin")
    if http is None and (tls_cert or tls_key or bearer_file or no_bearer):
        raise UsageError("--tls-cert, --tls-key, --bearer-file and --no-bearer go with --http")
    if http is not None and (bearer_file is None) != no_bearer:
        # anyone may connect like an http device: nothing else shows who sent a line
        raise UsageError("--http needs either --bearer-file or --no-bearer")
    receiving.allow_open_files(max_connections)
    notices = receiving.Notices(lambda text: typer.echo(text, err=True))
    spool = Spool(into, quota=parse_quota(untrusted))
    receiver: Receiver
    if http is not None:
        receiver = _http(http, spool, notices, max_connections, tls_cert, tls_key, bearer_file)
    elif socket is not None:
        receiver = _socket(socket, spool, notices, max_connections)
    else:
        receiver = _stream(prefix, spool, notices)
    with _stop_signals() as stopping:
        _announce(receiver.listening, into, as_json=json_)
        receiving.receive(receiver, spool, keep=timedelta(seconds=keep), stopping=stopping, notices=notices)


def _http(
    url: str,
    spool: Spool,
    notices: Notices,
    max_connections: int,
    certificate: Path | None,
    key: Path | None,
    bearer_file: Path | None,
) -> Receiver:
    from jitvault.audit.receivers.http_device import Endpoint, HttpReceiver

    endpoint = Endpoint.parse(url, certificate=certificate, key=key, bearer_file=bearer_file)
    return HttpReceiver(endpoint, spool, notices, max_connections=max_connections)


def _socket(url: str, spool: Spool, notices: Notices, max_connections: int) -> Receiver:
    from jitvault.audit.receivers.socket_device import Address, SocketReceiver

    return SocketReceiver(Address.parse(url), spool, notices, max_connections=max_connections)


def _stream(prefix: str, spool: Spool, notices: Notices) -> Receiver:
    from jitvault.audit.receivers.stdin import StreamReceiver

    return StreamReceiver(spool, notices, prefix=prefix)


def _announce(listening: str, into: Path, *, as_json: bool) -> None:
    if as_json:
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
