"""A SPIFFE Workload API on a socket of this machine, as the agent of a SPIFFE server runs one.

    with workload_api(directory, issuer, "spiffe://example.org/agents/churn") as api:
        os.environ["SPIFFE_ENDPOINT_SOCKET"] = api.address

It is a process of its own: gRPC's threads are not to be in a process that forks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keys import Issuer

_PATIENCE_S = 20.0


class WorkloadApi:
    """What the server answers, from its next call on, and how many calls there were."""

    def __init__(self, directory: Path, issuer: Issuer, subject: str | None) -> None:
        self.address = f"unix://{directory / 'workload.sock'}"
        self._directory, self._issuer = directory, issuer
        self.answer(subject)

    def answer(self, subject: str | None, *, audience: str = "vault", delay_s: float = 0) -> None:
        """Answer with a JWT-SVID of this subject; without one the process is registered for nothing."""
        svid = self._issuer.jwt(subject, audience=audience, seconds=3600) if subject else None
        part = self._directory / "answer.part"
        part.write_text(json.dumps({"subject": subject, "svid": svid, "delay_s": delay_s}))
        part.rename(self._directory / "answer.json")

    @property
    def calls(self) -> int:
        path = self._directory / "calls"
        return len(path.read_bytes()) if path.exists() else 0


@contextmanager
def workload_api(directory: Path, issuer: Issuer, subject: str | None) -> Iterator[WorkloadApi]:
    """Serve on a socket in `directory`, until the end."""
    api = WorkloadApi(directory, issuer, subject)
    with subprocess.Popen([sys.executable, __file__, str(directory)]) as server:
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while not (directory / "ready").exists():
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            yield api
        finally:
            server.terminate()


def _serve(directory: Path) -> None:
    import grpc
    from spiffe._proto import workload_pb2, workload_pb2_grpc

    class Servicer(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
        def FetchJWTSVID(self, request: Any, context: grpc.ServicerContext) -> Any:
            with (directory / "calls").open("ab") as file:
                file.write(b".")
            headers = {str(key): str(value) for key, value in context.invocation_metadata()}
            if headers.get("workload.spiffe.io") != "true":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
            answer = json.loads((directory / "answer.json").read_text())
            time.sleep(answer["delay_s"])
            if answer["svid"] is None:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
            one = workload_pb2.JWTSVID(spiffe_id=answer["subject"], svid=answer["svid"])
            return workload_pb2.JWTSVIDResponse(svids=[one])

    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(Servicer(), server)
    server.add_insecure_port(f"unix://{directory / 'workload.sock'}")
    server.start()
    (directory / "ready").touch()
    server.wait_for_termination()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
