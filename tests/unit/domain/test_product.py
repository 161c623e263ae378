"""Which server a program or an answer belongs to: what both print, and what neither does."""

from __future__ import annotations

import pytest

from jitvault.domain.product import Product, Release, of_program


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
    assert of_program(said) == release
    assert release.numbers == numbers
    assert str(release) == f"{release.product} {release.version}"


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
    assert of_program(said) is None
