"""A SPIFFE Workload API on a socket of this machine, as the agent of a SPIFFE server runs one.

with workload_api(directory, issuer, "spiffe://example.org/agents/churn") as api:
    os.environ["SPIFFE_ENDPOINT_SOCKET"] = api.address
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from keys import Issuer
from spiffe._proto import workload_pb2, workload_pb2_grpc


@dataclass
class WorkloadApi:
    """What the server answers: JWT-SVIDs of this subject, for `seconds`, after `delay_s`.

    Without a subject this process is registered for nothing.
    """

    address: str
    issuer: Issuer
    subject: str | None
    seconds: float = 60
    delay_s: float = 0
    audience: str | None = None
    """The audience of the SVIDs, where it is not the one that was asked for."""
    calls: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)


class _Servicer(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    def __init__(self, api: WorkloadApi) -> None:
        self._api = api

    def FetchJWTSVID(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._api.calls += 1
        headers = {str(key): str(value) for key, value in context.invocation_metadata()}
        self._api.headers.append(headers)
        if headers.get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        time.sleep(self._api.delay_s)
        if self._api.subject is None:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        audience = self._api.audience or next(iter(request.audience))
        svid = self._api.issuer.jwt(str(self._api.subject), audience=audience, seconds=self._api.seconds)
        one = workload_pb2.JWTSVID(spiffe_id=self._api.subject, svid=svid)
        return workload_pb2.JWTSVIDResponse(svids=[one])


@contextmanager
def workload_api(directory: Path, issuer: Issuer, subject: str | None) -> Iterator[WorkloadApi]:
    """Serve on a socket in `directory`, until the end."""
    api = WorkloadApi(f"unix://{directory / 'workload.sock'}", issuer, subject)
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(_Servicer(api), server)
    server.add_insecure_port(api.address)
    server.start()
    try:
        yield api
    finally:
        server.stop(grace=0).wait()
