"""Which groups may do what at a path, by the policies of `init`.

Vault's refusal names the path alone. Only jitvault's own mounts are looked at: nobody is in a group for another path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from jitvault.documents.paths import INBOX_MOUNT
from jitvault.provision.names import GROUPS, KV_MOUNT, TRANSIT_MOUNT

_STANZA = re.compile(r'^path "([^"]+)" \{(.*?)^\}', re.MULTILINE | re.DOTALL)
_CAPABILITIES = re.compile(r"capabilities\s*=\s*\[([^][]*)\]")
_WORD = re.compile(r'"(\w+)"')
# a KV mount takes a write as one or the other, by what is there
_NEEDED = {"get": {"read"}, "list": {"list"}, "delete": {"delete"}}
_WRITES = {"create", "update"}


def groups_that_may(method: str, path: str, policies: Mapping[str, str]) -> list[str]:
    """Return the groups whose members may send such a request.

    `policies` are the texts of `policies/vault` by file name.
    """
    if path.partition("/")[0] not in (KV_MOUNT, INBOX_MOUNT, TRANSIT_MOUNT):
        return []
    needed = _NEEDED.get(method.lower(), _WRITES)
    able = {f"jitvault-{name.removesuffix('.hcl')}" for name, text in policies.items() if _allows(text, path, needed)}
    return [group for group, policy in GROUPS.items() if policy in able]


def stanzas(text: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each path pattern of a policy of ours, with its capabilities."""
    for pattern, body in _STANZA.findall(text):
        if found := _CAPABILITIES.search(body):
            yield pattern, frozenset(_WORD.findall(found[1]))


def _allows(text: str, path: str, needed: set[str]) -> bool:
    return any(needed & given and _matches(pattern, path) for pattern, given in stanzas(text))


def _matches(pattern: str, path: str) -> bool:
    """Return whether a path of a policy covers `path`.

    `+` is one segment, `*` at the end is the rest, and the entity's id is somebody's.
    """
    rest = pattern.endswith("*")
    parts = re.split(r"\{\{identity\.entity\.id\}\}|\+", pattern.removesuffix("*"))
    return re.fullmatch("[^/]+".join(map(re.escape, parts)) + (".*" if rest else ""), path) is not None
