"""Where agents connect in the sandbox.

Its PostgreSQL listens on a port that is free at the start, without TLS. A template names the host of a real target, and
its author edits it while the sandbox runs. So the files stay as they are, and each process of the sandbox puts the
address that is true there in the place of theirs as it reads them.
"""

from __future__ import annotations

from collections.abc import Mapping

from jitvault.model.connection import DATABASE_ENGINE
from jitvault.model.template import AccessTemplate

MOUNT = "database"
"""The only mount whose credentials are logins to the sandbox's PostgreSQL."""


def connected_to(target: str, templates: Mapping[str, AccessTemplate]) -> dict[str, AccessTemplate]:
    """Return the templates with the connection that is true in the sandbox.

    Those that give logins to its PostgreSQL are changed; `target` is its `HOST:PORT`. Host and port become that, and
    there is no TLS; the database stays the template's. A template without a connection stays without one.
    """
    return {name: _connected(target, template) for name, template in templates.items()}


def _connected(target: str, template: AccessTemplate) -> AccessTemplate:
    written = template.spec.connection
    is_here = (template.spec.engine, template.spec.mount) == (DATABASE_ENGINE, MOUNT)
    if written is None or not is_here:
        return template
    host, _, port = target.rpartition(":")
    here = written.model_copy(update={"host": host, "port": int(port), "tls": "disable", "ca_file": None})
    return template.model_copy(update={"spec": template.spec.model_copy(update={"connection": here})})
