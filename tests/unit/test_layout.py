"""House rules: a module is pure or acts, a page names every package, and a docstring's first line is short."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# room for a whole thought, and an outline of a file still shows it on one line
FIRST_LINE = 100
# what reads files, talks to servers or keeps state; everything else is in the contract of pure modules
ACTING = frozenset(
    {
        "__main__",
        "agent",
        "audit.files",
        "audit.receivers",
        "audit.source",
        "backoff",
        "cli",
        "context",
        "doctor.run",
        "doctor.target_facts",
        "doctor.vault_facts",
        "doctor.vault_health",
        "doctor.worker_facts",
        "engines",
        "held_directory",
        "http",
        "kill_switch",
        "ledger",
        "lifecycle.advance",
        "lifecycle.unexpected_error",
        "lifecycle.confirmation",
        "lifecycle.decision",
        "lifecycle.end_reasons",
        "lifecycle.ending",
        "lifecycle.issuance",
        "lifecycle.read_for_turn",
        "lifecycle.record",
        "lifecycle.keeping",
        "lifecycle.renewal",
        "lifecycle.requests",
        "lifecycle.revocation",
        "login",
        "mcp.access_process",
        "mcp.calls",
        "mcp.runner",
        "mcp.server",
        "mcp.shared_secrets",
        "mcp.task_end",
        "mcp.task_facts",
        "mcp.tool_run",
        "memory_protection",
        "notices",
        "operations",
        "policy.cedar",
        "policy.cedar_request",
        "policy.interface",
        "prctl",
        "provision",
        "recovery",
        "shipped_files",
        "sandbox",
        "schemas",
        "settings",
        "stream",
        "sweep",
        "vault",
        "verification.log_lines",
        "wiring",
        "worker",
    }
)


def modules() -> list[str]:
    """Return the names of all modules below `jitvault`, without the packages themselves."""
    files = (ROOT / "jitvault").rglob("*.py")
    names = (file.relative_to(ROOT / "jitvault").with_suffix("") for file in files if file.name != "__init__.py")
    return sorted(".".join(name.parts) for name in names)


def pure() -> frozenset[str]:
    """Return the modules and packages of the import contract, without the name of the root package."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    names = contracts["importlinter:contract:pure"]["source_modules"].split()
    return frozenset(name.removeprefix("jitvault.") for name in names)


def declared(module: str, names: frozenset[str]) -> str | None:
    """Return the entry of `names` that stands for the module: itself, or the nearest package above it."""
    parts = module.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in names), None)


def test_each_module_is_declared_pure_or_acting() -> None:
    for module in modules():
        found = declared(module, pure() | ACTING)
        assert found is not None, f"{module} is neither in the contract of pure modules nor in ACTING"
    assert not pure() & ACTING


def test_every_declaration_is_about_a_module_that_is_there() -> None:
    for name in pure() | ACTING:
        place = ROOT / "jitvault" / Path(*name.split("."))
        assert place.is_dir() or place.with_suffix(".py").exists(), name


def test_the_page_about_the_layout_names_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    packages = {path.parent.name for path in (ROOT / "jitvault").glob("*/__init__.py")}
    assert [name for name in sorted(packages) if f"`{name}/`" not in page] == []


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """Yield each docstring of a file, with its line number."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def test_the_first_line_of_a_docstring_is_short() -> None:
    seen = 0
    long = []
    for file in sorted((ROOT / "jitvault").rglob("*.py")):
        for line, text in docstrings(file):
            seen += 1
            if len(text.splitlines()[0]) > FIRST_LINE:
                long.append(f"{file.relative_to(ROOT)}:{line}")
    assert seen > 0
    assert long == []
