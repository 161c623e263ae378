"""Settings that jitvault needs on the administrator's mounts, which templates use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from jitvault.engines.interface import Engine
from jitvault.errors import InvalidInput
from jitvault.formats.time_window import format_duration, server_duration
from jitvault.model.read_limit import Quota, name_of, normalized_quota, quota_body, wanted_quota
from jitvault.model.template import AccessTemplate
from jitvault.provision.item import Action, Item, Step, changed
from jitvault.provision.live import Live
from jitvault.vault.client import Vault


@dataclass(frozen=True, slots=True)
class PlainKeys(Item):
    """Response keys of a mount that audit lines show in plain text.

    A template's probe needs them.
    """

    kind = "mount tuning"
    mount: str
    type: str
    keys: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.mount}/"

    def step(self, live: Live) -> Step | None:
        if not live.is_mount(self.mount, self.type):
            return None
        added = sorted(set(self.keys) - set(live.plain_response_keys(self.mount)))
        return self.update(f"audit_non_hmac_response_keys: add {key}" for key in added)

    def carry_out(self, vault: Vault, action: Action) -> None:
        # read again, so that keys which others need on this mount stay
        keys = sorted({*Live(vault).plain_response_keys(self.mount), *self.keys})
        vault.write(f"sys/mounts/{self.mount}/tune", {"audit_non_hmac_response_keys": keys}, method="post")


@dataclass(frozen=True, slots=True)
class Shortened(Item):
    """Durations in a mount's configuration that must not exceed `longest`.

    The mount is one that templates use.
    """

    kind = "engine configuration"
    mount: str
    type: str
    path: str
    longest: tuple[tuple[str, timedelta], ...]
    renew: str
    effect: str

    @property
    def label(self) -> str:
        return self.path

    def step(self, live: Live) -> Step | None:
        if not live.is_mount(self.mount, self.type):
            return None
        longest = dict(self.longest)
        too_long = self._too_long(live)
        lines = [f"{field}: {now} → {format_duration(longest[field])}" for field, now in too_long.items()]
        return self.update([*lines, self.effect] if lines else ())

    def carry_out(self, vault: Vault, action: Action) -> None:
        # only these fields: Vault keeps the fields that a write leaves out
        longest = dict(self.longest)
        vault.write(self.path, {field: format_duration(longest[field]) for field in self._too_long(Live(vault))})
        vault.read(self.renew)

    def _too_long(self, live: Live) -> dict[str, object]:
        """Return the fields that exceed the limits, or have none, with their present values."""
        found = live.data(self.path) or {}
        lives = {field: server_duration(found.get(field)) for field, _ in self.longest}
        return {
            field: found.get(field)
            for field, longest in self.longest
            if not (duration := lives[field]) or duration > longest
        }


@dataclass(frozen=True, slots=True)
class ReadLimit(Item):
    """Vault's rate limit for the requests of credentials of one path."""

    kind = "read limit"
    quota: Quota

    @property
    def label(self) -> str:
        return self.quota.path

    def step(self, live: Live) -> Step | None:
        """Return the step; None where an administrator limits the path: Vault accepts one quota for it."""
        path = live.full_path(self.quota.path)
        if self.quota.mount not in live.mounts or live.limited_by_others(path):
            return None
        found = live.quotas.get(name_of(path))
        if found is None:
            return self.create(f"at most {self.quota.rate} reads a second of one address")
        lines = changed(normalized_quota(found), wanted_quota(self.quota, path))
        return self.update(
            f"{line} reads a second of one address" if line.startswith("rate: ") else line for line in lines
        )

    def carry_out(self, vault: Vault, action: Action) -> None:
        path = Live(vault).full_path(self.quota.path)
        vault.at_root().write(f"sys/quotas/rate-limit/{name_of(path)}", quota_body(self.quota, path))


def plain_keys(templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]) -> Iterator[PlainKeys]:
    """Yield the plain response keys of each mount, which are none where no engine has a probe.

    Raises InvalidInput where templates disagree on its type.
    """
    types: dict[str, str] = {}
    keys = defaultdict[str, set[str]](set)
    for name, template in sorted(templates.items()):
        mount = template.spec.mount
        engine = engines[template.spec.engine]
        if types.setdefault(mount, engine.mount_type) != engine.mount_type:
            raise InvalidInput(f"template {name}: {mount}/ is of the type {types[mount]} in another template")
        if engine.probe is not None:
            keys[mount].add(engine.probe.credential_key)
    for mount in sorted(types):
        yield PlainKeys(mount, types[mount], tuple(sorted(keys[mount])))


def shortened(templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]) -> Iterator[Shortened]:
    """Yield the limits for each mount's configuration.

    Each field is limited to the shortest duration that one of the mount's templates needs.
    """
    found: dict[str, Shortened] = {}
    for template in templates.values():
        spec = template.spec
        engine = engines[spec.engine]
        limits = engine.limits(spec)
        if limits is None:
            continue
        before = dict(found[limits.path].longest) if limits.path in found else {}
        least = {field: min(most, before.get(field, most)) for field, most in limits.longest.items()}
        longest = tuple(sorted((before | least).items()))
        found[limits.path] = Shortened(spec.mount, engine.mount_type, limits.path, longest, limits.renew, limits.effect)
    yield from (found[path] for path in sorted(found))
