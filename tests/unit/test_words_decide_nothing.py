"""Nothing decides by a text that jitvault wrote for people: what is decided by is a field, a class or a code.

Two nets find the next one. Whatever uses a regular expression stands in `EXPRESSIONS` with what it reads, and whatever
asks what a hint, a message or an error says stands in `ASKED` with whose words these are. None may be jitvault's own.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TYPED = "what people or programs wrote: names, ids and values of a form that is documented"
PATHS = "paths of Vault"
VAULTS = "Vault's own error, in its answer or in an audit line: Vault says it in no other way"
SERVERS = "what another program says of itself, in no other way"
SHOWN = "a text that is about to be shown is written otherwise, and nothing follows from it"
RULES = "ACL rules in HCL, which Vault keeps as text"
EXPRESSIONS = {
    "agent.credential": TYPED,
    "agent.execution.allowed_program": "the names of Python programs",
    "agent.execution.mapping": TYPED,
    "audit.audit_form": "the prefix of an audit line",
    "audit.classify": PATHS,
    "audit.decoding.json_tokens": "JSON",
    "audit.entry_facts": VAULTS,
    "audit.files.file_identity": "the beginning of an audit file",
    "audit.files.log_directory": "names of rotated files",
    "audit.files.spool": "names of files",
    "audit.hazard_paths": PATHS,
    "audit.observation": "ids of leases",
    "audit.observation_detail": VAULTS,
    "audit.tripwires.trip": "tokens, which are left out of what is stored",
    "cli.app": "the word TASK in a hint, in whose place the task's id is shown",
    "cli.commands.ends.findings": TYPED,
    "cli.folding": SHOWN,
    "cli.options": TYPED,
    "cli.views.output": SHOWN,
    "doctor.server": "a server's version",
    "documents.paths": PATHS,
    "documents.signed": "a time in a document that somebody signed",
    "engines": "names, serial numbers, connection strings and PostgreSQL's error codes",
    "formats.fields": "names and texts of a spec; the values that pydantic allows, to name the nearest",
    "formats.server_product": "a server's version; `bao` in a hint, in whose place the server's program is shown",
    "formats.strict_yaml": "YAML",
    "formats.time_window": "durations and times",
    "formats.token_pattern": "tokens, which are never shown",
    "http.connection": "headers, and the alert by which OpenSSL names a refused certificate",
    "lifecycle.record.csv_export": "cells that a spreadsheet would calculate",
    "lifecycle.record.report_filter": TYPED,
    "model.connection": TYPED,
    "model.spec_draft": TYPED,
    "model.spec_file": TYPED,
    "model.template": TYPED,
    "model.token_limits": "the metadata of a token, which Vault keeps as text",
    "model.vault_access": TYPED,
    "policy.cedar": "the positions by which Cedar names its policies",
    "policy.rule": TYPED,
    "provision.agent_login": TYPED,
    "provision.desired": TYPED,
    "provision.in_use": RULES,
    "provision.items": RULES,
    "provision.names": TYPED,
    "provision.who_may": RULES,
    "recovery.outcomes": "ids in a token's metadata",
    "sandbox.images": "names of images",
    "settings": "values of variables; the values that pydantic allows, to name the nearest",
    "vault.responses": VAULTS,
    "verification": "labels and ids of keys",
}
ASKED = {
    "audit.entry_facts": VAULTS,
    "audit.observation_detail": VAULTS,
    "audit.tripwires.task_rules": VAULTS,
    "cli.commands.requests.spec": SHOWN,
    "formats.conversion": "msgspec names a place in its message alone; it is shown, and decides nothing",
    "ledger.findings": "a finding is stored once: by equal words, whatever they say",
    "ledger.rows": VAULTS,
    "ledger.storage.postgres": SHOWN,
    "ledger.storage.sqlite": SERVERS,
    "lifecycle.confirmation.timeline": VAULTS,
    "policy.cedar": SERVERS,
    "sandbox.vault_server": VAULTS,
    "settings": SHOWN,
    "sweep.untracked_proof": VAULTS,
    "verification.line_claims": VAULTS,
    "worker.loop_base": "the same trouble is logged once: by equal words, whatever they say",
    "worker.loops": "the same trouble is logged once: by equal words, whatever they say",
}
# these are left until evidence is data
UNTIL_EVIDENCE_IS_DATA = {"model.proof_check"}
FOR_PEOPLE = {"hint", "default_hint", "message", "evidence", "why", "mend", "error"}
QUESTIONS = {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "find", "rfind"}
QUESTIONS |= {"index", "count", "split", "rsplit", "splitlines", "match", "fullmatch", "search"}


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of each module."""
    files = sorted((ROOT / "jitvault").rglob("*.py"))
    return {
        ".".join(each.relative_to(ROOT / "jitvault").with_suffix("").parts): ast.parse(each.read_text())
        for each in files
    }


@cache
def imports_re(module: str) -> bool:
    tree = trees()[module]
    return any(
        (isinstance(node, ast.Import) and any(each.name == "re" for each in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "re")
        for node in ast.walk(tree)
    )


def is_for_people(node: ast.AST) -> bool:
    """Whether an expression is a text for people: an attribute of that name, or the text of an exception."""
    if isinstance(node, ast.Attribute):
        return node.attr in FOR_PEOPLE
    is_text = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str"
    return is_text and any("error" in ast.unparse(each) for each in node.args)  # type: ignore[attr-defined]


def asks_words(tree: ast.AST) -> list[str]:
    """Return each place that compares a text for people, or asks what it consists of."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and not any(isinstance(each, ast.Is | ast.IsNot) for each in node.ops):
            is_one = any(map(is_for_people, (node.left, *node.comparators)))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            is_one = node.func.attr in QUESTIONS and any(map(is_for_people, (node.func.value, *node.args)))
        else:
            continue
        if is_one:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def listed(module: str, reasons: dict[str, str]) -> str | None:
    """Return the entry for a module: its own, or that of a package above it."""
    parts = module.split(".")
    above = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((each for each in above if each in reasons), None)


def test_each_use_of_a_regular_expression_has_a_reason() -> None:
    for module in trees():
        assert not imports_re(module) or listed(module, EXPRESSIONS), f"{module} uses `re`: on whose words, and why?"


def test_nothing_asks_what_a_text_for_people_says() -> None:
    for module, tree in trees().items():
        if module not in UNTIL_EVIDENCE_IS_DATA and listed(module, ASKED) is None:
            assert asks_words(tree) == [], f"{module} decides by words: make what it asks a field"


def test_each_reason_is_about_a_module_that_does_so() -> None:
    using = {listed(module, EXPRESSIONS) for module in trees() if imports_re(module)}
    asking = {listed(module, ASKED) for module, tree in trees().items() if asks_words(tree)}
    assert EXPRESSIONS.keys() - using == set() and ASKED.keys() - asking == set()


@pytest.mark.parametrize(
    "code",
    [
        "if 'settles' in error.hint: pass",
        "if error.hint == Denied.default_hint: pass",
        "if check.evidence.endswith(ENDING): pass",
        "_WAITS.fullmatch(check.evidence)",
        "if 'denied' in str(error): pass",
        "said = str(error).partition(':')",
        "match = document.error.message.startswith('no')",
    ],
)
def test_a_decision_by_words_is_found(code: str) -> None:
    assert asks_words(ast.parse(code))


@pytest.mark.parametrize(
    "code", ["shown = f'{error}. {error.hint}'", "if error is None: pass", "if error.exit_code == 3: pass"]
)
def test_words_that_are_shown_and_codes_are_no_decision_by_words(code: str) -> None:
    assert asks_words(ast.parse(code)) == []
