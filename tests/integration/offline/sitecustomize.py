"""End a Python process that would speak to another host.

Python imports this first of all where its directory is in PYTHONPATH, and so do the processes that it starts.
"""

import ipaddress
import os
import sys

CODE = 86
_HERE = {None, "", "localhost", b"localhost"}


def _is_here(host: object) -> bool:
    try:
        return host in _HERE or ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError:
        return False


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[-1], tuple):
        host = arguments[-1][0]
    else:
        # something else, or a socket of this machine
        return
    if not _is_here(host):
        # no exception, which a library could catch
        os.write(2, f"OFFLINE: {event} to {host}\n".encode())
        os._exit(CODE)


sys.addaudithook(_watch)
