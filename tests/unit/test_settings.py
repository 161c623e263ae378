"""The environment becomes settings in one place, and a value that is wrong is told by its variable's name."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from jitvault.errors import UsageError
from jitvault.settings import Settings, load


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("JITVAULT_", "VAULT_", "BAO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def loaded(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load()


def test_without_an_environment_there_are_defaults() -> None:
    found = load()
    assert (found.audit_file, found.shared_hosts, found.denied_limit) == ((), (), 1)
    assert found.settle_window == timedelta(seconds=90)
    assert (found.has_worker, found.person, found.admin) == (False, None, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/var/log/audit.log", ["/var/log/audit.log"]),
        ("/a/audit.log:/b/audit.log:/c", ["/a/audit.log", "/b/audit.log", "/c"]),
        # in the order in which they are named
        ("/b:/a", ["/b", "/a"]),
        ("relative/audit.log", ["relative/audit.log"]),
        ("/with space/a,b", ["/with space/a,b"]),
        # an empty part would be the working directory
        (":/a::/b:", ["/a", "/b"]),
        (":", []),
        ("", []),
    ],
)
def test_the_audit_file_can_be_several(monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]) -> None:
    assert loaded(monkeypatch, JITVAULT_AUDIT_FILE=value).audit_file == tuple(map(Path, expected))


def test_a_path_that_looks_like_json_is_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, JITVAULT_AUDIT_FILE='["/a"]').audit_file == (Path('["/a"]'),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.0.0.0/8", ("10.0.0.0/8",)),
        ("10.0.0.0/8,fd00::/8", ("10.0.0.0/8", "fd00::/8")),
        (" 10.0.0.0/8 , 192.0.2.7 ,", ("10.0.0.0/8", "192.0.2.7/32")),
        ("::1", ("::1/128",)),
        ("0.0.0.0/0", ("0.0.0.0/0",)),
        (",", ()),
        ("", ()),
    ],
)
def test_shared_hosts_are_networks(monkeypatch: pytest.MonkeyPatch, value: str, expected: tuple[str, ...]) -> None:
    assert loaded(monkeypatch, JITVAULT_SHARED_HOSTS=value).shared_hosts == expected


@pytest.mark.parametrize(
    ("value", "seconds"), [("90", 90), ("90s", 90), ("2m", 120), ("1h30m", 5400), ("30d", 2592000)]
)
def test_a_duration_is_taken_as_in_an_option(monkeypatch: pytest.MonkeyPatch, value: str, seconds: int) -> None:
    names = ("SETTLE_WINDOW", "ROLLING_STEP", "NOTIFY_TIMEOUT")
    found = loaded(monkeypatch, **{f"JITVAULT_{name}": value for name in names})
    assert {found.settle_window, found.rolling_step, found.notify_timeout} == {timedelta(seconds=seconds)}


def test_the_limit_of_denied_requests_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, JITVAULT_DENIED_LIMIT="7").denied_limit == 7
    assert loaded(monkeypatch, JITVAULT_DENIED_LIMIT="").denied_limit == 1


@pytest.mark.parametrize(
    ("value", "days"), [("", 30), ("7d", 7), ("30d", 30), ("365d", 365), ("9999d", 9999), ("never", None)]
)
def test_what_is_published_stays_for_whole_days_or_for_ever(
    monkeypatch: pytest.MonkeyPatch, value: str, days: int | None
) -> None:
    expected = None if days is None else timedelta(days=days)
    assert loaded(monkeypatch, JITVAULT_RETENTION=value).retention == expected


BAD = [
    ("JITVAULT_SHARED_HOSTS", "secret-nonsense"),
    ("JITVAULT_SHARED_HOSTS", "10.0.0.1/8"),
    ("JITVAULT_SHARED_HOSTS", "10.0.0.0/8,300.1.2.3"),
    ("JITVAULT_SHARED_HOSTS", "10.0.0.0/8;192.0.2.0/24"),
    ("JITVAULT_DENIED_LIMIT", "0"),
    ("JITVAULT_DENIED_LIMIT", "-1"),
    ("JITVAULT_DENIED_LIMIT", "secret-many"),
    ("JITVAULT_DENIED_LIMIT", "1.5"),
    ("JITVAULT_SETTLE_WINDOW", "secret-soon"),
    ("JITVAULT_SETTLE_WINDOW", "0"),
    ("JITVAULT_SETTLE_WINDOW", "1.5"),
    ("JITVAULT_SETTLE_WINDOW", "31d"),
    # shorter than a request can begin something, or not to be read in two ways
    ("JITVAULT_RETENTION", "6d"),
    ("JITVAULT_RETENTION", "0d"),
    ("JITVAULT_RETENTION", "720h"),
    ("JITVAULT_RETENTION", "30"),
    ("JITVAULT_RETENTION", "secret-for-ever"),
    ("VAULT_ADDR", "secret-vault.example"),
]


@pytest.mark.parametrize(("variable", "value"), [*BAD, pytest.param("BAO_ADDR", "secret-vault.example")])
def test_a_value_that_is_wrong_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(monkeypatch, **{variable: value})
    assert str(caught.value).startswith(f"{variable}: ")
    assert variable in caught.value.hint
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param("JITVAULT_SHARED_HOSTS", "secret-nonsense"),
        pytest.param("JITVAULT_SETTLE_WINDOW", "secret-soon"),
        ("JITVAULT_DENIED_LIMIT", "secret-many"),
        ("VAULT_ADDR", "secret-vault.example"),
    ],
)
def test_a_value_that_is_wrong_is_not_shown(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    # it may be a secret that was put into the wrong variable
    with pytest.raises(UsageError) as caught:
        loaded(monkeypatch, **{variable: value})
    assert "secret" not in str(caught.value) + caught.value.hint


def test_of_several_bad_values_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^JITVAULT_\w+: "):
        loaded(monkeypatch, JITVAULT_DENIED_LIMIT="x", JITVAULT_SHARED_HOSTS="y")


@pytest.mark.parametrize(
    "name",
    ["ADDR", "NAMESPACE", "CACERT", "CAPATH", "CLIENT_CERT", "CLIENT_KEY", "TLS_SERVER_NAME", "SKIP_VERIFY"],
)
def test_two_spellings_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(UsageError, match=f"VAULT_{name} and BAO_{name} are both set") as caught:
        loaded(monkeypatch, **{f"VAULT_{name}": "https://secret-a", f"BAO_{name}": "https://secret-b"})
    assert "secret" not in str(caught.value) + caught.value.hint
    if name != "SKIP_VERIFY":
        loaded(monkeypatch, **{f"VAULT_{name}": "https://a", f"BAO_{name}": "https://a"})


@pytest.mark.parametrize("name", ["CACERT", "CAPATH", "CLIENT_CERT", "CLIENT_KEY", "TLS_SERVER_NAME", "NAMESPACE"])
def test_either_spelling_counts(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    found = loaded(monkeypatch, **{f"BAO_{name}": "there"})
    assert str(getattr(found, f"vault_{name.lower()}")) == "there"


@pytest.mark.parametrize("prefix", ["VAULT", "BAO"])
@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "t"])
def test_nobody_is_spoken_to_unverified(monkeypatch: pytest.MonkeyPatch, prefix: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{prefix}_SKIP_VERIFY: "):
        loaded(monkeypatch, **{f"{prefix}_SKIP_VERIFY": value})
    for harmless in ("", "0", "false", "F"):
        loaded(monkeypatch, **{f"{prefix}_SKIP_VERIFY": harmless})


def test_more_nodes_are_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = loaded(monkeypatch, JITVAULT_NODES="https://a:8200, https://b:8200,")
    assert found.nodes == ("https://a:8200", "https://b:8200")
    with pytest.raises(UsageError, match=r"^JITVAULT_NODES: "):
        loaded(monkeypatch, JITVAULT_NODES="a:8200")


def test_of_two_tokens_the_first_spelling_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = loaded(monkeypatch, VAULT_TOKEN="operator", BAO_TOKEN="administrator").person
    assert found is not None and found.reveal() == "operator"
