"""The certificate authority whose certificates tasks get: Vault's PKI engine at `pki/`.

Command by command what the comment of the shipped template tells an administrator to do, with a root CA of its own.
"""

from __future__ import annotations

from jitvault.vault.client import Vault

MOUNT = "pki"
ROLE = "service"
DOMAIN = "svc.internal"


def create(admin: Vault) -> str:
    """Mount the engine, make a CA that lives as long as a sandbox can, and the role; the CA's certificate, PEM."""
    admin.write(f"sys/mounts/{MOUNT}", {"type": "pki", "config": {"max_lease_ttl": "8760h"}})
    # an elliptic curve: making an RSA key takes longer than all the rest
    authority = {"common_name": "jitvault sandbox CA", "ttl": "8760h", "key_type": "ec", "key_bits": 256}
    made = admin.write(f"{MOUNT}/root/generate/internal", authority)
    url = public_url(admin)
    lives = {"expiry": "5m", "ocsp_expiry": "5m"}
    admin.write(f"{MOUNT}/config/crl", {"disable": False, "ocsp_disable": False, "auto_rebuild": False, **lives})
    admin.write(
        f"{MOUNT}/config/urls",
        {"crl_distribution_points": [f"{url}/crl"], "ocsp_servers": [f"{url}/ocsp"]},
    )
    admin.write(
        f"{MOUNT}/roles/{ROLE}",
        {
            "allowed_domains": [DOMAIN],
            "allow_subdomains": True,
            "key_type": "ec",
            "key_bits": 256,
            "ttl": "15m",
            "max_ttl": "1h",
            "generate_lease": True,
            "no_store": False,
        },
    )
    return str(made["data"]["certificate"])


def public_url(admin: Vault) -> str:
    """Where everybody finds the CRL and the OCSP responder."""
    return f"{admin.connection.address}/v1/{MOUNT}"


def store_probe(admin: Vault, certificate: str) -> None:
    """Put where the worker asks, and whose signature it believes; `init` has made the mount."""
    document = {"dsn": public_url(admin), "issuer": certificate}
    admin.write("jitvault/data/probes/pki", {"data": document})
