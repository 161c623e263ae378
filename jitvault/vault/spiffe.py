"""A login by SPIFFE: the JWT comes from the Workload API of this host.

The API is the socket that SPIFFE_ENDPOINT_SOCKET names. It knows the calling process by the operating system, so
nothing secret is kept on disk. The package `spiffe` is an extra, and is imported here alone.
"""

from __future__ import annotations

import os
from typing import ClassVar

from jitvault.errors import UsageError, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.formats.shorten import one_line, shorten
from jitvault.vault.auth_methods import JWT_HINT, LoginMethod, LoginOwner, LoginToken
from jitvault.vault.client import Vault

SOCKET = "SPIFFE_ENDPOINT_SOCKET"
# The API is on this host and answers at once, from what its agent holds already.
_TIMEOUT_S = 5.0
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
    try:
        from spiffe import WorkloadApiClient
        from spiffe.errors import ArgumentError, PySpiffeError
    except ImportError:
        raise UsageError(
            "a login by SPIFFE needs the package `spiffe`, which is not installed",
            hint="Install it beside jitvault: pip install 'jitvault[spiffe]'",
        ) from None
    if not os.environ.get(SOCKET):
        raise UsageError(
            f"a login by SPIFFE needs the address of the Workload API, and {SOCKET} is not set",
            hint=f"Set it to the API's socket, such as {SOCKET}=unix:///run/spire/agent.sock",
        )
    try:
        with WorkloadApiClient() as client:
            return Secret(client.fetch_jwt_svid({audience}, timeout=_TIMEOUT_S).token)
    except ArgumentError as error:
        raise UsageError(f"{SOCKET}: {_reason(error)}", hint=f"Correct {SOCKET}, or start the SPIFFE agent.") from None
    except PySpiffeError as error:
        raise VaultUnavailable(
            f"the Workload API gave no JWT-SVID: {_reason(error)}",
            hint=f"Is the SPIFFE agent of {SOCKET} running, and is this process registered with it? Nothing is lost: "
            "run the same command again.",
        ) from None


def _reason(error: Exception) -> str:
    return one_line(shorten(str(error), _MAX_REASON))
