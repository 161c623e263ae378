"""The identities by which agents log in: a world with auth methods for JWTs, certificates and secret ids.

with identities(tmp_path_factory.mktemp("keys")) as place:
    name, there = registered(rig_of(place, tmp_path), place, api, "spiffe", tmp_path)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from commands import EXAMPLE
from keys import Authority, Issuer, Pair
from rig import Rig, own_rig
from stage import staged
from workload_api import WorkloadApi

from jitvault.sandbox.processes import free_port
from jitvault.sandbox.vault_server import VaultServer
from jitvault.sandbox.world import World, env
from jitvault.vault.client import Connection, Vault

SPIFFE = "spiffe://example.org/agents/churn"
# an agent's host has neither the worker's identity nor a ledger
ALONE = {"JITVAULT_WORKER_TOKEN": "", "JITVAULT_LEDGER": ""}


@dataclass
class Place:
    """A world with a TLS listener, an issuer of JWTs and a CA, and the auth methods that an administrator enables."""

    world: World
    tls_address: str
    authority: Authority
    issuer: Issuer
    client: Pair

    @property
    def admin(self) -> Vault:
        return Vault(Connection(self.world.address), self.world.admin_token)


@contextmanager
def identities(directory: Path) -> Iterator[Place]:
    """Start the servers, whose keys lie in `directory`; at the end stop them."""
    authority, port = Authority(directory), free_port()
    server = authority.issue("vault.test", address="127.0.0.1")
    listener = f"""
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{free_port(port)}"
  tls_cert_file = "{server.certificate}"
  tls_key_file = "{server.key}"
}}
"""
    with staged(lambda directory: VaultServer(directory, more_configuration=listener)) as stage:
        client = authority.issue("cert-bot", has_names=False)
        found = Place(stage.world, f"https://127.0.0.1:{port}", authority, Issuer(elliptic=True), client)
        for method in ("approle", "jwt", "cert"):
            found.admin.write(f"sys/auth/{method}", {"type": method}, method="post")
        keys = {"jwt_validation_pubkeys": [found.issuer.public_key], "jwt_supported_algs": ["ES256"]}
        found.admin.write("auth/jwt/config", keys, method="post")
        yield found


def rig_of(place: Place, directory: Path) -> Rig:
    """A rig with a ledger of its own, whose commands speak TLS to Vault."""
    variables = {**env(place.world, "", EXAMPLE), "VAULT_ADDR": place.tls_address}
    variables |= {"VAULT_CACERT": str(place.authority.file), "JITVAULT_SHARED_HOSTS": "127.0.0.0/8"}
    return own_rig(place.world, variables, directory)


def registered(rig: Rig, place: Place, api: WorkloadApi, kind: str, directory: Path) -> tuple[str, dict[str, str]]:
    """Register an agent; return its name and what is set on its host."""
    name, jwt = f"{kind}-bot", directory / "jwt"
    subjects = {"file": SPIFFE + "/file", "kubernetes": "system:serviceaccount:jobs:churn"}
    subjects["github"] = "repo:example/churn:environment:production"
    how = {
        "spiffe": ("--spiffe-id", SPIFFE),
        "file": ("--spiffe-id", subjects["file"]),
        "kubernetes": ("--kubernetes", "jobs/churn"),
        "github": ("--github", "example/churn:production"),
        "cert": ("--cert-cn", "cert-bot", "--ca", str(place.authority.file)),
        "approle": ("--approle",),
    }
    added = rig("admin", "agents", "add", name, *how[kind]).json
    assert added["problems"] == []
    there = dict(added["environment"])
    if kind == "spiffe":
        there["SPIFFE_ENDPOINT_SOCKET"] = api.address
    elif kind == "file":
        # a helper of SPIFFE keeps the SVID in a file
        there = {"JITVAULT_AGENT_LOGIN": "jwt", "JITVAULT_AGENT_LOGIN_ROLE": name}
    if kind in subjects:
        jwt.write_text(place.issuer.jwt(subjects[kind], audience="vault", seconds=60))
        there["JITVAULT_AGENT_JWT_FILE"] = str(jwt)
    if kind == "cert":
        there |= {"VAULT_CLIENT_CERT": str(place.client.certificate), "VAULT_CLIENT_KEY": str(place.client.key)}
    if kind == "approle":
        secret = place.admin.write(f"auth/approle/role/{name}/secret-id")["data"]["secret_id"]
        jwt.write_text(secret)
        there["JITVAULT_AGENT_SECRET_ID_FILE"] = str(jwt)
    return name, there
