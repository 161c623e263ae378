"""What is misspelt is answered with what was most likely meant, and a missing file with that it is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from commands import EXAMPLE
from forked import run_forked

SPEC = EXAMPLE.read_text()


def run(home: Path, *args: str, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "COLUMNS": "80", **extra}
    return run_forked(args, environment, cwd=home)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("criticality:", "critcality:", "spec.critcality: unknown field (did you mean criticality?)"),
        ("criticality: low", "criticality: lwo", "got 'lwo' (did you mean low?)"),
        ("postgres-readonly", "postgres-readonl", "postgres-readonl (did you mean postgres-readonly?); the templates"),
        ("database: app", "databse: app", "unknown parameter 'databse' (did you mean database?)"),
        ("database: app", "database: ap", "got 'ap' (did you mean app?)"),
    ],
)
def test_a_misspelt_name_or_value_of_a_spec(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(SPEC.replace(old, new, 1))
    done = run(tmp_path, "spec", "check", "task.yaml")
    assert done.returncode == 8 and said in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("for: 15m", "for: 5h", "for: 5h", "spec.window.for: expected a window of at most 1h"),
        ("for: 15m", "for: 5s", "for: 5s", "spec.window.for: expected at least 10s"),
        ("for: 15m", 'until: "2020-01-01T00:00:00Z"', "until:", "spec.window.until: expected a time to come"),
        ("postgres-readonly", "postgres-readonl", "- template: postgres-readonl", "spec.access[0].template: unknown"),
        ("database: app", "database: ap", "- template: postgres-readonly", "spec.access[0].with: template"),
    ],
    ids=["long", "short", "past", "template", "choice"],
)
def test_what_depends_on_time_and_templates_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, place: str, said: str
) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(SPEC.replace(old, new, 1))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if place in text)
    done = run(tmp_path, "spec", "check", "task.yaml")
    assert done.returncode == 8 and f"task.yaml:{line}: {said}" in done.stderr, done.stderr


def test_a_valid_spec_says_what_was_not_looked_up(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(SPEC.replace("research-agent", "reserch-agent", 1))
    done = run(tmp_path, "spec", "check", "task.yaml")
    assert done.returncode == 0
    assert "not checked here: whether Vault has reserch-agent and data-owner; `grant` does" in done.stdout


def test_what_resembles_nothing_is_answered_with_what_is_allowed_alone(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(SPEC.replace("criticality: low", "criticality: xyzzy", 1))
    done = run(tmp_path, "spec", "check", "task.yaml")
    assert "expected 'low', 'medium', 'high' or 'critical', got 'xyzzy'" in done.stderr
    assert "did you mean" not in done.stderr


def test_a_misspelt_field_of_a_template(tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    shipped = run(tmp_path, "templates", "show", "postgres-readonly", "--json")
    assert shipped.returncode == 0
    text = Path(__file__).parents[2].joinpath("templates", "postgres-readonly.yaml").read_text()
    (templates / "a.yaml").write_text(text.replace("lease_budget:", "lease_bugdet:", 1))
    done = run(tmp_path, "templates", "list", JITVAULT_TEMPLATES=str(templates))
    assert done.returncode == 8 and "lease_bugdet: unknown field (did you mean lease_budget?)" in done.stderr


@pytest.mark.parametrize("command", [("spec", "check"), ("policy", "explain"), ("policy", "test")], ids=" ".join)
def test_a_missing_file_is_missing_and_not_to_be_corrected(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "fix-orders.yaml").write_text("")
    done = run(tmp_path, *command, "fix-oders.yaml")
    assert done.returncode == 8 and "Correct the file" not in done.stderr
    assert "there is no file fix-oders.yaml (did you mean fix-orders.yaml?)" in done.stderr
    assert "did you mean" not in run(tmp_path, *command, "quite-another.yaml").stderr


def test_a_missing_directory_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path, "templates", "list", JITVAULT_TEMPLATES="/nowhere")
    assert done.returncode == 8 and "there is no directory /nowhere" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("VAULT_ADDR", "127.0.0.1:8200", "begins with http:// or https://, such as https://vault.example:8200"),
        ("BAO_ADDR", "ftp://x", "begins with http:// or https://, such as https://vault.example:8200"),
        ("JITVAULT_WORKER_LOGIN", "aprole", "expected 'approle', 'jwt', 'spiffe' or 'cert' (did you mean approle?)"),
        ("JITVAULT_DENIED_LIMIT", "0", "expected 1 or more"),
        ("JITVAULT_DENIED_LIMIT", "401", "expected 400 or less"),
        ("JITVAULT_OPEN_REQUESTS", "many", "expected a whole number"),
        ("JITVAULT_PERSON_KEY", "a b", "expected the name of a metadata key, at most 64 of"),
    ],
)
def test_a_wrong_setting_is_answered_in_words(tmp_path: Path, name: str, value: str, said: str) -> None:
    done = run(tmp_path, "list", **{name: value})
    assert done.returncode == 2 and f"error: {name}: " in done.stderr and said in done.stderr
    assert "^" not in done.stderr and value not in done.stderr.replace(said, "")


def test_a_misspelt_setting_is_warned_of(tmp_path: Path) -> None:
    done = run(tmp_path, "templates", "list", JITVAULT_LEDGRE="/tmp/x", JITVAULT_AGENT_TOKEN="x", JITVAULT_OTHER="y")
    assert done.returncode == 0
    assert done.stderr == "warning: JITVAULT_LEDGRE is no setting of jitvault; did you mean JITVAULT_LEDGER?\n"


def test_an_option_of_a_program_of_exec_is_told_where_it_belongs(tmp_path: Path) -> None:
    done = run(tmp_path, "exec", "t-1", "--preset", "postgres", "psql", "-Atc", "select 1")
    assert done.returncode == 125 and "The program and its options come after `--`" in done.stderr
    assert run(tmp_path, "exec", "t-1", "--wait", "forever", "--", "true").returncode == 125
    assert "come after" not in run(tmp_path, "exec", "t-1", "--prest", "postgres", "--", "psql").stderr


def test_a_command_line_that_cannot_be_meant_is_answered_with_an_example(tmp_path: Path) -> None:
    for args in (("extend", "t-1", "15m"), ("extend", "t-1", "--by", "15m")):
        done = run(tmp_path, *args)
        assert done.returncode == 2 and "For example: `jitvault extend count-orders --for 30m --reason" in done.stderr
        assert "See `jitvault extend --help`." in done.stderr
    # a group of commands has none
    assert "example" not in run(tmp_path, "approvers", "ad").stderr
