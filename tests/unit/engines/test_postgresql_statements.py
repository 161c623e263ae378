"""What runs at a PostgreSQL target as somebody stronger than an agent calls nothing that an agent can make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jitvault import shipped_files as shipped
from jitvault.engines import database
from jitvault.engines.postgresql import sessions, spare_session
from jitvault.sandbox import target

QUERIES = {
    name: text
    for module in (sessions, spare_session, database)
    for name, text in vars(module).items()
    if name.startswith("_") and isinstance(text, str) and "SELECT" in text
}
PARTS = dict(zip(("groups", "login", "sessions", "little", "owned", "drop"), target.REVOCATION, strict=True))
# what the grammar itself knows: none of it is looked for in a schema
KEYWORDS = {"and", "any", "array", "exists", "operator", "select", "when", "not", "in", "over", "from", "coalesce"}


@pytest.mark.parametrize("text", [*QUERIES.values(), *PARTS.values()], ids=[*QUERIES, *PARTS])
def test_every_name_has_its_schema(text: str) -> None:
    bare = re.sub(r"'[^']*'", "''", text)
    calls = {name.lower() for name in re.findall(r"(?<![\w.])(\w+)\s*\(", bare)}
    assert calls <= KEYWORDS, calls - KEYWORDS
    # relations and types
    assert re.findall(r"\b(?:FROM|JOIN)\s+(?!pg_catalog\.)(?![%\"'(])\w+", bare) == []
    assert re.findall(r"::(?!pg_catalog\.)\w+", bare) == []
    # operators: what stands between two values is written with its schema
    outside = re.sub(r"OPERATOR\(pg_catalog\.[-=<>+/~]+\)", "", bare)
    outside = re.sub(r"SET LOCAL \w+ =", "", outside)
    assert re.findall(r"[=<>+|!~]", outside) == []


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_every_part_looks_into_no_schema_of_others_and_waits_for_nobody_for_long(part: str) -> None:
    assert re.match(r"SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = '(5|15)s';", part)


@pytest.mark.parametrize("kind", ["readonly", "readwrite"])
def test_the_files_of_statements_are_those_of_the_sandbox_and_of_the_templates_comment(kind: str) -> None:
    files = Path(__file__).parents[3] / "docs" / "examples" / "postgresql"
    comment = "\n".join(
        line.removeprefix("#") for line in (shipped.templates_dir() / f"postgres-{kind}.yaml").read_text().splitlines()
    )
    expected = {
        f"create-{kind}.sql": " ".join([target.CREATION[0], target.CREATION[1] % f"app_{kind}"]),
        "revoke.sql": " ".join(target.REVOCATION),
    }
    for name, statements in expected.items():
        text = " ".join((files / name).read_text().split())
        assert text == " ".join(statements.split()), name
        assert text in " ".join(comment.split()), name


def test_every_part_but_the_last_is_committed_by_itself() -> None:
    assert [part.endswith("COMMIT AND CHAIN;") for part in target.REVOCATION] == [True, True, True, True, True, False]
