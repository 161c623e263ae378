"""Output of `spec check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.cli.views import output
from jitvault.model.vault_access import Fetch


def print_spec_check(name: str, spec: Mapping[str, Any], fetches: Sequence[Fetch]) -> None:
    """Print that a spec is valid, and what its task would read.

    `name` is the task's id, or the pattern of the ids that are made of the spec.
    """
    reads = [fetch.path for fetch in fetches]
    sends = {fetch.path: dict(fetch.data) for fetch in fetches if fetch.data}
    shown = {"ok": True, "spec": spec, "reads": reads, "sends": sends}
    # the id of a task that is not submitted yet is not known
    ids = [spec["metadata"]["id"]] if "id" in spec["metadata"] else []
    if output.print_for_scripts(shown, *ids):
        return
    console = output.console()
    console.print(f"{name}: the spec is valid")
    for fetch in fetches:
        console.print(f"  {fetch.template} reads {fetch.path}")
        if fetch.data:
            console.print(f"    sending {output.pairs(fetch.data)}")
    agent, owner = (spec["spec"][part] for part in ("agent", "owner"))
    console.print(
        output.indented(f"not checked here: whether Vault has {agent} and {owner}; `grant` does", console.width)
    )
