"""`jitvault` in a test's shell: the tests' own process is asked to fork for it (`forked.py`), which need not import.

What the command prints goes to this program's streams. It gets the signals of this program, which ends with its code.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

# pathlib would take longer than all of this
asked = {"arguments": sys.argv[2:], "environment": dict(os.environ), "cwd": os.getcwd()}  # noqa: PTH109
with socket.socket(socket.AF_UNIX) as door:
    door.connect(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: door.sendall(bytes([number])))
    socket.send_fds(door, [b" "], [0, 1, 2])
    door.sendall(json.dumps(asked).encode() + b"\n")
    code = door.recv(1)
sys.exit(code[0] if code else 1)
