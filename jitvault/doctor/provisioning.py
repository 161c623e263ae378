"""Checks of what `jitvault init` provisioned, and of the audit devices.

`init` does not create audit devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jitvault.doctor.check import EVERYTHING, Ability, About, Check, Known, Unknown
from jitvault.doctor.identity import RIGHTS
from jitvault.doctor.policies import TEMPLATES
from jitvault.doctor.stream import TRUST
from jitvault.errors import AuditUntrusted, SecurityFinding, WrongState
from jitvault.formats.plural import listed
from jitvault.formats.server_product import Product

_GRANT, _PROVE = frozenset({Ability.GRANT}), frozenset({Ability.PROVE})
AREA = "provisioned"
_DOCUMENT = About(AREA, "document", WrongState, EVERYTHING)
KINDS: Mapping[str, About] = {
    about.name: about
    for about in (
        # without them the worker finds no installation, signs no receipt and delivers nothing
        About(AREA, "mount", WrongState, EVERYTHING, covered_by=_DOCUMENT),
        _DOCUMENT,
        # no act of the worker's would be found in the stream
        About(AREA, "audited header", WrongState, _GRANT | _PROVE, covered_by=TRUST),
        About(AREA, "access policy", WrongState, _GRANT),
        About(AREA, "policy", WrongState, EVERYTHING, covered_by=RIGHTS),
        About(AREA, "token role", WrongState, _GRANT),
        About(AREA, "group", WrongState, _GRANT),
        About(AREA, "signing key", WrongState, _PROVE),
        # a template's check tries it
        About(AREA, "mount tuning", WrongState, _PROVE, covered_by=TEMPLATES),
        # it affects the templates of one mount, whose own checks report it, and others can still be granted; or how
        # long an inbox keeps a wrapping, which lives no longer than ten minutes
        About(AREA, "engine configuration", WrongState),
        About(AREA, "read limit", WrongState),
    )
}
PLAN = About(AREA, "as a whole", WrongState, EVERYTHING, covered_by=RIGHTS)
DEVICES = About("audit", "devices", AuditUntrusted, EVERYTHING, covered_by=TRUST)
RAW = About("audit", "secrets in the log", SecurityFinding)

NO_ADMIN = Unknown("only an administrator can look", "Set JITVAULT_ADMIN_TOKEN.")
_INIT = (
    "`jitvault init --plan` shows the difference, `jitvault init` corrects it. If you changed no template and no "
    "setting, it was changed in Vault: the audit log shows by whom."
)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that jitvault needs in Vault.

    `action` is what `init` would do (keep, create, update), `detail` what differs.
    """

    kind: str
    name: str
    action: str
    detail: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """An audit device. `raw` says that it writes secrets in plain."""

    name: str
    type: str
    raw: bool


def judge(parts: Mapping[str, Known[Sequence[Part]]], notes: Known[Sequence[str]]) -> Iterator[Check]:
    """Yield a check for each kind.

    `notes` are what is missing or left over that `init` neither makes nor removes.
    """
    for kind, about in KINDS.items():
        found = parts.get(kind, ())
        yield about.skipped(found) if isinstance(found, Unknown) else _kind(about, found)
    if isinstance(notes, Unknown):
        yield PLAN.skipped(notes)
    elif notes:
        yield PLAN.warn("; ".join(notes), "Read each difference: `jitvault init` does not correct all of them.")
    else:
        yield PLAN.ok("everything is as `jitvault init` makes it")


def _kind(about: About, parts: Sequence[Part]) -> Check:
    off = [part for part in parts if part.action != "keep"]
    if off:
        return about.fail(listed(map(_deviation, off)), _INIT)
    return about.ok(f"{len(parts)} as needed")


def _deviation(part: Part) -> str:
    if part.action == "create":
        return f"{part.name} is missing"
    return f"{part.name} differs ({listed([' '.join(line.split()) for line in part.detail], 4)})"


_ONE_ALONE = "Vault answers 500 to every request if no device takes its line"
_BY_CONFIGURATION = "declare a second one in the server's configuration"
_BY_API = "`vault audit enable -path=second file file_path=/var/log/vault/second.log` makes a second one"


def _second_device(product: Product | None) -> str:
    """Return how a second audit device is created.

    OpenBao takes audit devices from its configuration, Vault by its API alone.
    """
    ways = {Product.OPENBAO: _BY_CONFIGURATION, Product.VAULT: _BY_API}
    how = ways.get(product) if product else f"on OpenBao {_BY_CONFIGURATION}; on Vault {_BY_API}"
    return f"{_ONE_ALONE}: {how}."


def judge_devices(devices: Known[Sequence[Device]], ours: str, product: Product | None) -> Iterator[Check]:
    """`ours` is the device whose lines are read."""
    if isinstance(devices, Unknown):
        yield DEVICES.skipped(devices)
        yield RAW.skipped(devices)
        return
    names = listed([f"{device.name} ({device.type})" for device in devices]) or "none"
    if ours not in {device.name for device in devices}:
        yield DEVICES.fail(
            f"there is no audit device {ours}; there is {names}",
            "Set it up before anything else: docs/operations/audit-sources.md.",
        )
    elif len(devices) == 1:
        yield DEVICES.warn(f"{names} alone", _second_device(product))
    else:
        yield DEVICES.ok(names)
    raw = [device.name for device in devices if device.raw]
    if raw:
        yield RAW.fail(
            f"log_raw is on for {listed(raw)}: the log shows every token and secret in plain", "Remove that device."
        )
    else:
        yield RAW.ok("every device keeps only HMACs of them")
