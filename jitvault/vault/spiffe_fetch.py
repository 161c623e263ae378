"""Print a JWT-SVID of the Workload API, in a process of its own.

gRPC's threads and memory are not to be in a worker, nor in a process that forks. What went wrong is on stderr, and the
exit code says of which kind it is.
"""

from __future__ import annotations

import sys

OK, WRONG_ADDRESS, NOT_INSTALLED, UNAVAILABLE = 0, 2, 3, 5


def main(audience: str, timeout_s: float) -> int:
    """Print the JWT-SVID, and return the exit code."""
    try:
        from spiffe import WorkloadApiClient
        from spiffe.errors import ArgumentError, PySpiffeError
    except ImportError:
        return NOT_INSTALLED
    try:
        with WorkloadApiClient() as client:
            sys.stdout.write(client.fetch_jwt_svid({audience}, timeout=timeout_s).token)
    except ArgumentError as error:
        sys.stderr.write(str(error))
        return WRONG_ADDRESS
    except PySpiffeError as error:
        sys.stderr.write(str(error))
        return UNAVAILABLE
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
