"""A login by SPIFFE: the JWT comes from the Workload API of this host.

The API is the socket that SPIFFE_ENDPOINT_SOCKET names. It knows the calling process by the operating system, so
nothing secret is kept on disk. It is asked in a process of its own (`spiffe_fetch.py`), which the API knows as one of
the same user and program. The package `spiffe` is an extra, and is imported there alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import ClassVar

from jitvault.errors import UsageError, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.formats.shorten import one_line, shorten
from jitvault.vault import spiffe_fetch
from jitvault.vault.auth_methods import JWT_HINT, LoginMethod, LoginOwner, LoginToken
from jitvault.vault.client import Vault

SOCKET = "SPIFFE_ENDPOINT_SOCKET"
# The API is on this host and answers at once, from what its agent holds already.
_TIMEOUT_S = 5.0
# until the process has begun, on a busy machine
_START_S = 10.0
_MAX_REASON = 200


class Spiffe(LoginMethod):
    """Login with a JWT-SVID of the Workload API, fetched anew for each login.

    `audience` is the one that the role of the JWT method expects.
    """

    name: ClassVar[str] = "SPIFFE"

    def __init__(self, owner: LoginOwner, mount: str, role: str, audience: str) -> None:
        super().__init__(owner, mount)
        self._role = role
        self._audience = audience

    def open(self, nobody: Vault) -> LoginToken:
        svid = fetch_jwt_svid(self._audience)
        return self.log_in(nobody, {"role": self._role, "jwt": svid.reveal()}, f"{JWT_HINT} See {self.owner.page}.")


def fetch_jwt_svid(audience: str) -> Secret:
    """Return a JWT-SVID for one audience, as the Workload API gives it.

    Raises UsageError where the package or the socket's address is missing, VaultUnavailable where the API does not
    answer within 5 s or has no identity for this process.
    """
    if not os.environ.get(SOCKET):
        raise UsageError(
            f"a login by SPIFFE needs the address of the Workload API, and {SOCKET} is not set",
            hint=f"Set it to the API's socket, such as {SOCKET}=unix:///run/spire/agent.sock",
        )
    command = [sys.executable, "-m", "jitvault.vault.spiffe_fetch", audience, str(_TIMEOUT_S)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S + _START_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise _no_svid(f"no answer within {_TIMEOUT_S:.0f} s") from None
    if done.returncode == spiffe_fetch.OK:
        return Secret(done.stdout.decode())
    said = done.stderr.decode(errors="replace")
    if done.returncode == spiffe_fetch.NOT_INSTALLED:
        raise UsageError(
            "a login by SPIFFE needs the package `spiffe`, which is not installed",
            hint="Install jitvault with its extra `spiffe`: docs/install.md says how.",
        )
    if done.returncode == spiffe_fetch.WRONG_ADDRESS:
        raise UsageError(f"{SOCKET}: {_reason(said)}", hint=f"Correct {SOCKET}, or start the SPIFFE agent.")
    raise _no_svid(_reason(said))


def _no_svid(why: str) -> VaultUnavailable:
    return VaultUnavailable(
        f"the Workload API gave no JWT-SVID: {why}",
        hint=f"Is the SPIFFE agent of {SOCKET} running, and is this process registered with it? Nothing is lost: "
        "run the same command again.",
    )


def _reason(said: str) -> str:
    return one_line(shorten(said.strip(), _MAX_REASON))
