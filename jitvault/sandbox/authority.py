"""The certificate authority of the sandbox: Vault's PKI engine at `pki/`.

It is set up as the comment of the shipped template tells an administrator to do, with a root CA of its own.
"""

from __future__ import annotations

from jitvault.vault.client import Vault

MOUNT = "pki"
ROLE = "service"
DOMAIN = "svc.internal"


def create(admin: Vault) -> str:
    """Mount the engine, create a CA and a role, and return the certificate.

    The CA outlives any sandbox. Its certificate is PEM.
    """
    admin.write(f"sys/mounts/{MOUNT}", {"type": "pki", "config": {"max_lease_ttl": "8760h"}})
    # an elliptic curve key, because generating an RSA key takes longer than everything else here
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
    """Return the mount's URL; the CRL and the OCSP responder are below it."""
    return f"{admin.connection.address}/v1/{MOUNT}"


def store_probe(admin: Vault, certificate: str) -> None:
    """Store the URL that the worker asks and the CA that it trusts.

    `init` has created the mount.
    """
    document = {"dsn": public_url(admin), "issuer": certificate}
    admin.write("jitvault/data/probes/pki", {"data": document})
