"""Vault's PKI secrets engine, with the proof from CRL and OCSP.

Some configurations of a mount are refused. Measured behaviour and its reasons: docs/vault-facts.md, "Certificates".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from jitvault.engines.interface import Engine, Limits, Read, Upkeep
from jitvault.engines.pki.certificate import USAGES
from jitvault.engines.pki.probe import PkiProbe
from jitvault.engines.pki.trial import PkiTrial
from jitvault.errors import InvalidInput, VaultRejected
from jitvault.formats.strict_yaml import shown
from jitvault.formats.time_window import format_duration, server_duration
from jitvault.model.template import TemplateBody
from jitvault.model.vault_access import Capability

_ISSUE = re.compile(r"issue/([^/]+)")
# Paths of a mount that issue certificates as well, by how they begin.
_OTHER_PATHS = {
    "sign-verbatim": "takes names and usages from the request, whatever the role allows",
    "sign": "signs a key that somebody else made, and may have kept",
    "acme": "gives certificates without a lease, which nothing ends with the task",
    "issuer": "chooses the issuer in the path: name it in the role's issuer_ref instead",
    "root": "makes certificate authorities",
    "intermediate": "makes certificate authorities",
}
# Settings that do not affect a certificate, and those that the check looks at by itself.
_UNREGARDED_TUNING = frozenset(
    {"description", "listing_visibility", "audit_non_hmac_request_keys", "audit_non_hmac_response_keys"}
)
_NEVER_SIGNS = frozenset({"certsign", "crlsign"})
# How many renewals may fail before a list expires.
_RENEWALS_IN_ONE_LIFE = 3


class PkiEngine(Engine):
    """The engine of `pki/` mounts."""

    name = "pki"
    capability: Capability = "update"
    probe = PkiProbe()
    trial = PkiTrial()

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        """Return the snapshot of `jitvault.engines.interface.Engine.snapshot`.

        Raises InvalidInput also for a configuration by which nothing is ever granted.
        """
        name = role_of(mount, path)
        found = read(f"{mount}/roles/{name}")
        if found is None:
            raise InvalidInput(
                f"Vault has no role {mount}/roles/{name}",
                hint="An administrator creates it: the template's comment has the commands.",
            )
        role: dict[str, Any] = dict(found["data"])
        crl = _data(read(f"{mount}/config/crl"))
        acme = _data_if_known(read, f"{mount}/config/acme")
        _refuse_endless(f"{mount}/roles/{name}", role, f"{mount}/config/crl", crl)
        _refuse_powers(f"{mount}/roles/{name}", role)
        _refuse_acme(f"{mount}/config/acme", acme)
        tuning = _data(read(f"sys/mounts/{mount}/tune"))
        return {
            "role": role,
            "crl": crl,
            "urls": _data(read(f"{mount}/config/urls")),
            "issuer": _data(read(f"{mount}/issuer/{role.get('issuer_ref') or 'default'}")),
            "acme": acme,
            "cluster": _data_if_known(read, f"{mount}/config/cluster"),
            "tuning": {key: value for key, value in tuning.items() if key not in _UNREGARDED_TUNING},
        }

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        """Return the paths that `snapshot` and `upkeep` read."""
        return (
            f"{mount}/roles/{role_of(mount, path)}",
            f"{mount}/config/crl",
            f"{mount}/config/urls",
            f"{mount}/config/acme",
            f"{mount}/config/cluster",
            f"{mount}/issuer/*",
            f"{mount}/crl/rotate",
            f"sys/mounts/{mount}/tune",
        )

    def check_template(self, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:
        """Check a template.

        See `jitvault.engines.interface.Engine.check_template`.
        """
        bounded = self.limits(spec)
        if bounded is None:
            raise InvalidInput(
                "a pki template says in accepted_after_end how long servers may accept a certificate after its end",
                hint="Add `accepted_after_end: 5m` to spec, run `jitvault init`, and have a worker running.",
            )
        _refuse_longer(spec)
        if snapshot is not None:
            _refuse_saved(bounded, snapshot["crl"])

    def limits(self, spec: TemplateBody) -> Limits | None:
        """Return how long the mount's saved answers may be believed.

        Those are CRLs and OCSP answers.
        """
        longest = spec.accepted_after_end
        if longest is None:
            return None
        return Limits(
            path=f"{spec.mount}/config/crl",
            longest={"expiry": longest, "ocsp_expiry": longest},
            renew=f"{spec.mount}/crl/rotate",
            effect="a worker renews the list in time; where none runs it is over then, and whoever reads it refuses "
            "every certificate of the mount",
        )

    def upkeep(self, read: Read, mount: str) -> Upkeep | None:
        """Return the path that has the CRL renewed.

        Vault renews a CRL at a revocation and otherwise never, unless `auto_rebuild` is on (measured).
        """
        crl = _data(read(f"{mount}/config/crl"))
        lives = server_duration(crl.get("expiry"))
        if not lives or crl.get("disable") or crl.get("auto_rebuild"):
            return None
        return Upkeep(f"{mount}/crl/rotate", lives / _RENEWALS_IN_ONE_LIFE)


def role_of(mount: str, path: str) -> str:
    """Return the role by which a template's path issues.

    Raises InvalidInput for any other path.
    """
    found = _ISSUE.fullmatch(path)
    if found is None:
        why = _OTHER_PATHS.get(path.partition("/")[0], "")
        raise InvalidInput(f"a pki template's path is issue/<role>, not {path}" + (f", which {why}" if why else ""))
    if mount.rpartition("/")[2] == "issue":
        # what is issued at x/issue/y could not be told from a change of the engine at x/issue
        raise InvalidInput(f"a pki template's mount cannot end with issue, as {mount} does")
    return found[1]


def _refuse_longer(spec: TemplateBody) -> None:
    """Raise InvalidInput if a template requests a longer life than it says."""
    for choices in spec.combinations():
        data = spec.fill_data(choices)
        if "not_after" in data:
            raise InvalidInput(
                "data.not_after sets a certificate's end whatever the template's ttl says",
                hint="Remove data.not_after and set data.ttl.",
            )
        lives = server_duration(data["ttl"]) if "ttl" in data else timedelta(0)
        if lives is None or lives > spec.ttl:
            raise InvalidInput(
                f"data.ttl asks for {shown(data['ttl'])}, and the template says that a credential lives at most "
                f"{format_duration(spec.ttl)}",
                hint="Set data.ttl to the template's ttl, or less.",
            )


def _refuse_saved(bounded: Limits, crl: Mapping[str, Any]) -> None:
    """Raise InvalidInput if a saved answer or CRL is believed for too long.

    The template says how long that may be. A server without configuration has 72h and 12h. An OCSP answer without
    an end (`ocsp_expiry` 0) is believed for ever.
    """
    for field, longest in bounded.longest.items():
        lives = server_duration(crl.get(field))
        if not lives or lives > longest:
            raise InvalidInput(
                f"{bounded.path} has {field}={crl.get(field)}: a saved answer is valid for that long after a "
                f"certificate's end; the template says accepted_after_end: {format_duration(longest)}",
                hint=f"`jitvault init` shortens it, or: vault write {bounded.path} {field}={format_duration(longest)}",
            )


def _refuse_endless(role_path: str, role: Mapping[str, Any], crl_path: str, crl: Mapping[str, Any]) -> None:
    """Raise InvalidInput if certificates could not be revoked."""
    if not role.get("generate_lease") or role.get("no_store"):
        raise InvalidInput(
            f"{role_path} makes certificates without a lease, which cannot be revoked",
            hint=f"vault write {role_path} … generate_lease=true no_store=false",
        )
    if crl.get("disable"):
        raise InvalidInput(
            f"{crl_path} has disable=true: whatever is revoked is on no CRL",
            hint=f"vault write {crl_path} disable=false",
        )
    if role.get("not_after"):
        raise InvalidInput(
            f"{role_path} has not_after={shown(role['not_after'])}: its certificates end then, whatever their ttl",
            hint=f'vault write {role_path} … not_after=""',
        )


def _refuse_powers(role_path: str, role: Mapping[str, Any]) -> None:
    """Raise InvalidInput if a role's certificates could vouch for others.

    Certificates that could vouch for themselves are refused as well.
    """
    if found := sorted(_powers(role)):
        raise InvalidInput(
            f"{role_path} gives usages by which a certificate vouches for others, or for itself: {', '.join(found)}",
            hint=f'vault write {role_path} … without them; docs/vault-facts.md, "Certificates" has those that are '
            "taken",
        )


def _powers(role: Mapping[str, Any]) -> Iterator[str]:
    for name in _texts(role, "key_usage"):
        if name.lower() in _NEVER_SIGNS:
            yield f"key_usage={shown(name)}"
    taken = {name.lower() for name in USAGES.values()}
    for name in _texts(role, "ext_key_usage"):
        if name.lower() not in taken:
            yield f"ext_key_usage={shown(name)}"
    for oid in _texts(role, "ext_key_usage_oids"):
        if oid not in USAGES:
            yield f"ext_key_usage_oids={shown(oid)}"


def _refuse_acme(path: str, acme: Mapping[str, Any]) -> None:
    if acme.get("enabled"):
        raise InvalidInput(
            f"{path} has enabled=true: anybody who reaches Vault gets certificates of the same issuer by ACME, "
            "without a lease, a task or an approval",
            hint=f"vault write {path} enabled=false; use another mount for ACME.",
        )


def _texts(role: Mapping[str, Any], key: str) -> list[str]:
    found = role.get(key) or ()
    return [text.strip() for text in (found.split(",") if isinstance(found, str) else map(str, found)) if text.strip()]


def _data_if_known(read: Read, path: str) -> dict[str, Any]:
    """Return the data at `path`; empty if the server is too old for it.

    An older server answers 404 with a reason.
    """
    try:
        return _data(read(path))
    except VaultRejected as error:
        if not any("unsupported path" in reason for reason in error.reasons):
            raise
        return {}


def _data(answer: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict((answer or {}).get("data") or {})
