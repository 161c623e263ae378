"""Keys made at run time: an authority with certificates for servers and clients, and an issuer of JWTs."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PEM, _PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass(frozen=True)
class Pair:
    """Files of PEM: a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A CA of one test, in a directory of its own."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._name = directory, _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = self._builder(self._name, self._key.public_key(), hours=1)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        made = made.add_extension(usage, critical=True)
        self.file = directory / "ca.pem"
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(_PEM))

    def issue(self, name: str, *, address: str | None = None, file: str | None = None, has_names: bool = True) -> Pair:
        """A certificate for the DNS name, and for the IP address; two with the same `file` replace each other.

        One that has no names has the DNS name as its common name only.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        if address:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = self._builder(_name(name), key.public_key(), hours=1)
        if has_names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = made.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        pair = Pair(self._directory / f"{file or name}.pem", self._directory / f"{file or name}.key")
        pair.certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(_PEM))
        pair.key.write_bytes(key.private_bytes(_PEM, _PKCS8, serialization.NoEncryption()))
        return pair

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, hours: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
        made = made.not_valid_after(now + datetime.timedelta(hours=hours))
        return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


class Issuer:
    """Signs JWTs, as a cluster or a SPIFFE server does for its workloads.

    SPIFFE's own libraries take no EdDSA, which `elliptic` replaces by ES256.
    """

    def __init__(self, *, elliptic: bool = False) -> None:
        self.algorithm = "ES256" if elliptic else "EdDSA"
        self._key = ec.generate_private_key(ec.SECP256R1()) if elliptic else ed25519.Ed25519PrivateKey.generate()

    @property
    def public_key(self) -> str:
        return self._key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

    def jwt(self, subject: str, *, audience: str, seconds: float, since: float = -60) -> str:
        """A JWT that is valid from `since` to `seconds` from now."""
        now = int(time.time())
        claims = {
            "sub": subject,
            "aud": audience,
            "iat": int(now + since),
            "nbf": int(now + since),
            "exp": int(now + seconds),
        }
        signed = ".".join(
            _encoded(json.dumps(part).encode()) for part in ({"alg": self.algorithm, "typ": "JWT"}, claims)
        )
        return f"{signed}.{_encoded(self._signature(signed.encode()))}"

    def _signature(self, signed: bytes) -> bytes:
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(signed)
        r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
