"""Which server a program or an answer belongs to: what both print, and what neither does."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from jitvault.formats.server_product import (
    Product,
    Release,
    another_server,
    commands_of,
    late_lines,
    product_by_lines,
    product_of,
    release_of,
    release_of_program,
    with_commands,
)

RECORDED = Path(__file__).parent.parent / "audit" / "recorded"


@pytest.mark.parametrize(
    ("said", "release", "numbers"),
    [
        ("OpenBao v2.7.2 (9e0a0d3c35), committed 2026-10-26T20:32:27Z\n", Release(Product.OPENBAO, "2.7.2"), (2, 7)),
        ("Vault v1.14.9 (cgo)\n", Release(Product.VAULT, "1.14.9"), (1, 14)),
        ("Vault v1.18.3+ent (f5ad5d0), built 2024-12-16", Release(Product.VAULT, "1.18.3+ent"), (1, 18)),
        ("Vault v1.15.0-rc1 (b4d0727)", Release(Product.VAULT, "1.15.0-rc1"), (1, 15)),
    ],
)
def test_both_programs_are_told_by_what_they_print(said: str, release: Release, numbers: tuple[int, int]) -> None:
    assert release_of_program(said) == release
    assert release.numbers == numbers
    assert str(release) == f"{release.product} {release.version}"


LATE = timedelta(seconds=20)
BAO = {"commit_date": "2026-10-26T20:32:27Z"}


@pytest.mark.parametrize(
    ("health", "seal_status", "late"),
    [
        ({"version": "2.7.2"}, BAO, timedelta(0)),
        ({"version": "2.4.1"}, {}, timedelta(0)),
        # it hides its version, and no OpenBao is late
        ({}, BAO, timedelta(0)),
        ({"version": "1.14.9"}, {}, timedelta(0)),
        ({"version": "1.9.10"}, {}, timedelta(0)),
        ({"version": "1.15.0"}, {}, LATE),
        ({"version": "1.18.3+ent", "enterprise": True}, {}, LATE),
        # one day its numbers are those of OpenBao
        ({"version": "2.0.0", "enterprise": False}, {}, LATE),
        # it hides what it is
        ({"version": "", "enterprise": False}, {}, LATE),
        ({"version": "redacted"}, {}, LATE),
        ({}, {}, LATE),
    ],
)
def test_how_late_the_lines_of_a_server_may_come(
    health: dict[str, object], seal_status: dict[str, object], late: timedelta
) -> None:
    assert late_lines(release_of(health, seal_status)) == late


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Vault",
        "Vault vx.y",
        "vault 1.14.9",
        "Consul v1.14.9",
        "Not OpenBao v2.7.2",
        "\x1b[31mVault v1.14.9",
    ],
)
def test_what_is_neither_is_neither(said: str) -> None:
    assert release_of_program(said) is None


@pytest.mark.parametrize(
    ("health", "seal", "product"),
    [
        ({"version": "2.7.2"}, {"commit_date": "2026-10-26T20:32:27Z", "version": "2.7.2"}, Product.OPENBAO),
        ({"version": "1.14.9", "performance_standby": False}, {"build_date": ""}, Product.VAULT),
        # both had the same keys before 2.6
        ({"version": "2.5.0", "performance_standby": False}, {"build_date": ""}, Product.OPENBAO),
        ({"version": "2.0.1+ent", "enterprise": True}, {"build_date": ""}, Product.VAULT),
        ({"version": "2.0.1", "enterprise": False}, {"build_date": ""}, Product.VAULT),
        # a hidden version
        ({"version": ""}, {"commit_date": "", "version": ""}, Product.OPENBAO),
        ({"version": "", "enterprise": False}, {}, Product.VAULT),
        ({"version": ""}, {"build_date": ""}, None),
        ({"version": "something"}, {}, None),
        ({}, {}, None),
    ],
)
def test_a_server_is_told_by_its_keys_before_its_version(
    health: dict[str, object], seal: dict[str, object], product: Product | None
) -> None:
    assert product_of(health, seal) is product


@pytest.mark.parametrize(("server", "product"), [("openbao", Product.OPENBAO), ("vault", Product.VAULT)])
def test_the_recorded_lines_of_a_server_say_whose_they_are(server: str, product: Product) -> None:
    lines = next(RECORDED.glob(f"{server}-*.jsonl")).read_text()
    assert product_by_lines(lines) is product


def test_words_of_a_stranger_in_a_line_say_nothing_of_the_server() -> None:
    assert product_by_lines('{"request":{"path":"x/\\"mount_running_version\\":\\"v1.1.1+builtin.vault\\""}}') is None
    assert product_by_lines("") is None


@pytest.mark.parametrize(
    ("product", "there", "commands"),
    [
        (Product.OPENBAO, {"bao", "vault"}, "bao"),
        (Product.VAULT, {"bao", "vault"}, "vault"),
        (Product.VAULT, {"bao"}, "bao"),
        (Product.OPENBAO, {"vault"}, "vault"),
        (Product.VAULT, set(), "vault"),
        (None, {"vault"}, "vault"),
        (None, {"bao"}, "bao"),
        (None, {"bao", "vault"}, "bao vault"),
        (None, set(), "bao vault"),
    ],
)
def test_a_hint_names_a_program_that_is_there(product: Product | None, there: set[str], commands: str) -> None:
    assert commands_of(product, there.__contains__) == tuple(commands.split())


def test_only_commands_are_put_into_other_words() -> None:
    hint = "Log in (`bao login`, not `baobab`) to bao; `jitvault init` first, then `bao kv get x`."
    assert with_commands(hint, ["vault"]) == (
        "Log in (`vault login`, not `baobab`) to bao; `jitvault init` first, then `vault kv get x`."
    )
    assert with_commands(hint, ["bao"]) == hint
    both = with_commands("See `bao status`.", ["bao", "vault"])
    assert both == "See `bao status` or `vault status`."
    assert with_commands(both, ["bao", "vault"]) == both


@pytest.mark.parametrize("before", [None, *Product])
@pytest.mark.parametrize("now", [None, *Product])
def test_another_server_is_only_told_where_both_are_known(before: Product | None, now: Product | None) -> None:
    both = {before, now} == set(Product)
    expected = f"this ledger was used with {before}, and the server is {now}" if both else ""
    assert another_server(before, now) == expected


@pytest.mark.parametrize(
    ("health", "seal_status", "has"),
    [
        ({"version": "1.14.9"}, {}, False),
        ({"version": "1.18.3", "enterprise": False}, {}, False),
        ({"version": "1.14.9+ent.hsm"}, {}, True),
        ({"version": "", "enterprise": True}, {}, True),
        ({"version": "2.7.2"}, {"commit_date": "2026-10-26"}, True),
        ({"version": "2.1.0"}, {}, True),
    ],
)
def test_openbao_and_vault_enterprise_have_namespaces(
    health: dict[str, object], seal_status: dict[str, object], has: bool
) -> None:
    release = release_of(health, seal_status)
    assert release is not None and release.has_namespaces is has
