"""`python -m jitvault.schemas`: write the JSON Schemas of the models.

Those of spec and template go to `docs/schemas/`. The models are the source; the files are for editors and other
programs, and are checked in. With `--check` nothing is written, each file that differs from the models is named, and
the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jitvault.model.spec_file import TaskFile
from jitvault.model.template import AccessTemplate

SCHEMAS: dict[str, type[BaseModel]] = {
    "task.schema.json": TaskFile,
    "access-template.schema.json": AccessTemplate,
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of what the parser of `model` accepts.

    Rules between fields cannot be expressed and are left to the parser.
    """
    return {"$schema": DIALECT, **model.model_json_schema(by_alias=True, mode="validation")}


def rendered() -> dict[str, str]:
    """Return the contents of all schema files by file name."""
    return {name: json.dumps(schema_of(model), indent=2, ensure_ascii=False) + "\n" for name, model in SCHEMAS.items()}


def stale(directory: Path) -> list[str]:
    """Return the names of files that are missing or differ from the models."""
    return [name for name, text in rendered().items() if _contents(directory / name) != text]


def main(arguments: Sequence[str] | None = None, directory: Path | None = None) -> int:
    """Return the exit code: 1 if `--check` found a stale file, else 0."""
    parser = argparse.ArgumentParser(prog="python -m jitvault.schemas", description="Write the JSON Schemas.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a file is stale")
    options = parser.parse_args(arguments)
    target = directory or Path(__file__).resolve().parents[1] / "docs" / "schemas"
    if not options.check:
        target.mkdir(parents=True, exist_ok=True)
        for name, text in rendered().items():
            (target / name).write_text(text, encoding="utf-8")
        return 0
    stale_names = stale(target)
    for name in stale_names:
        sys.stderr.write(f"docs/schemas/{name} is stale: run `make schemas`\n")
    return 1 if stale_names else 0


def _contents(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
