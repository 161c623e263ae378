"""The secrets engines that are installed."""

from __future__ import annotations

from importlib.metadata import entry_points

from jitvault.engines.interface import Engine


def installed_engines() -> dict[str, Engine]:
    """Return a new one of each engine by name, from the entry points `jitvault.engines`."""
    return {point.name: point.load()() for point in entry_points(group="jitvault.engines")}
