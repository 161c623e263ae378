"""Which server program a sandbox takes: what is asked for is found or refused with the reason, never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from jitvault.domain.product import Product
from jitvault.errors import UsageError
from jitvault.sandbox import binary
from jitvault.sandbox.binary import VARIABLE, find_binary


def program(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def prints(path: Path, said: str) -> str:
    return program(path, f"#!/bin/sh\n[ \"$1\" = version ] && echo '{said}'\n")


def test_the_program_asked_for_goes_before_the_variable_and_that_before_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert find_binary().product is Product.OPENBAO
    vault = prints(tmp_path / "vault", "Vault v1.99.0 (abc)")
    other = prints(tmp_path / "bao", "OpenBao v9.9.9 (abc)")
    monkeypatch.setenv(VARIABLE, other)
    assert str(find_binary().release) == "OpenBao 9.9.9"
    assert str(find_binary(vault).release) == "HashiCorp Vault 1.99.0"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary("vault").path == tmp_path / "vault"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: str(path / "nothing"), "does not exist"),
        (str, "is no file that can be run"),
        (lambda path: program(path / "p", "#!/bin/sh\n", 0o644), "is no file that can be run"),
        (lambda path: program(path / "p", "no program"), "cannot be run"),
        (lambda path: prints(path / "p", "Consul v1.14.9"), "is neither OpenBao nor HashiCorp Vault"),
        (lambda path: program(path / "p", "#!/bin/sh\nprintf '\\377\\033[2J'\n"), "is neither OpenBao nor HashiCorp"),
        (lambda path: program(path / "p", "#!/bin/sh\nsleep 60\n"), "does not end"),
    ],
)
def test_what_is_no_server_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object, why: str
) -> None:
    monkeypatch.setattr(binary, "_VERSION_SECONDS", 0.5 if why == "does not end" else 10.0)
    with pytest.raises(UsageError, match=why) as caught:
        find_binary(make(tmp_path))  # type: ignore[operator]
    assert str(caught.value).isprintable()
    assert caught.value.hint
