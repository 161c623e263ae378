"""Settings that jitvault needs on the mounts that templates use.

The mounts are the administrator's. This module is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from jitvault.engines.interface import Engine
from jitvault.errors import InvalidInput
from jitvault.model.template import AccessTemplate


@dataclass(frozen=True, slots=True)
class PlainKeys:
    """Response keys of a mount that audit lines show in plain text.

    A template's probe needs them.
    """

    mount: str
    engine: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shortened:
    """Durations in a mount's configuration that must not exceed `longest`.

    The mount is one that templates use.
    """

    mount: str
    engine: str
    path: str
    longest: tuple[tuple[str, timedelta], ...]
    renew: str
    effect: str


def plain_keys(templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]) -> Iterator[PlainKeys]:
    """Yield the plain response keys of each mount.

    Raises InvalidInput where templates disagree on its engine.
    """
    kinds: dict[str, str] = {}
    for name, template in sorted(templates.items()):
        mount = template.spec.mount
        engine = template.spec.engine
        if kinds.setdefault(mount, engine) != engine:
            raise InvalidInput(f"template {name}: {mount}/ is engine {kinds[mount]} in another template")
    for mount, engine in sorted(kinds.items()):
        if (probe := engines[engine].probe) is not None:
            yield PlainKeys(mount, engine, (probe.credential_key,))


def shortened(templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]) -> Iterator[Shortened]:
    """Yield the limits for each mount's configuration.

    Each field is limited to the shortest duration that one of the mount's templates needs.
    """
    found: dict[str, Shortened] = {}
    for template in templates.values():
        spec = template.spec
        limits = engines[spec.engine].limits(spec)
        if limits is None:
            continue
        before = dict(found[limits.path].longest) if limits.path in found else {}
        least = {field: min(most, before.get(field, most)) for field, most in limits.longest.items()}
        longest = tuple(sorted((before | least).items()))
        found[limits.path] = Shortened(spec.mount, spec.engine, limits.path, longest, limits.renew, limits.effect)
    yield from (found[path] for path in sorted(found))
