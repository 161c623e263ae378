"""In the sandbox an agent connects to its PostgreSQL; what gives no login to that keeps its own connection."""

from __future__ import annotations

import msgspec
import pytest

from jitvault import shipped_files as shipped
from jitvault.model.template import AccessTemplate, parse_template
from jitvault.sandbox.connections import connected_to

TEXT = (shipped.templates_dir() / "postgres-readonly.yaml").read_text()
HERE = {"host": "127.0.0.1", "port": 24414, "database": "app", "tls": "disable"}


def used_at(template: AccessTemplate) -> object:
    found = connected_to("127.0.0.1:24414", {template.name: template})[template.name]
    facts = found.spec.fill_connection({"database": "app"})
    return msgspec.to_builtins(facts)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("", "", HERE, id="host, port and TLS are the sandbox's"),
        pytest.param(
            "    tls: verify-full\n", "    tls: verify-ca\n    ca_file: /etc/ca.pem\n", HERE, id="no CA is needed"
        ),
        pytest.param(
            "  mount: database\n",
            "  mount: other\n",
            {"host": "app-db.example.org", "port": 5432, "database": "app", "tls": "verify-full"},
            id="another mount leads to another server",
        ),
        pytest.param(TEXT[TEXT.index("  connection:") : TEXT.index("  tier:")], "", None, id="none stays none"),
    ],
)
def test_where_an_agent_connects(old: str, new: str, expected: object) -> None:
    assert used_at(parse_template(TEXT.replace(old, new, 1).encode())) == expected
