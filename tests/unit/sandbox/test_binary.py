"""Which server program a sandbox takes: what is asked for is found or refused with the reason, never replaced."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest

from jitvault.errors import UsageError
from jitvault.formats.server_product import Product
from jitvault.sandbox import binary, images
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


# -- out of an image ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "image"),
    [
        ("hashicorp/vault:1.14.9", True),
        ("openbao/openbao:2.7.2", True),
        ("vault:1.13.3", True),
        ("registry.example.org:5000/team/vault:1.14.9", True),
        ("openbao/openbao@sha256:" + "0a" * 32, True),
        ("registry.example.org/team/vault", False),
        ("vault", False),
        ("./vault:1", False),
        ("/opt/vault", False),
        ("hashicorp/vault:", False),
        ("hashicorp/vault:1 --privileged", False),
    ],
)
def test_an_image_is_told_from_a_program_by_its_tag_or_digest(asked: str, image: bool) -> None:
    assert images.is_image(asked) is image


def test_an_image_that_is_asked_for_without_an_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is run in its place."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock")
    monkeypatch.setenv(VARIABLE, "hashicorp/vault:1.14.9")
    with pytest.raises(UsageError, match=r"hashicorp/vault:1\.14\.9, and no container engine answers") as caught:
        find_binary()
    assert "DOCKER_HOST" in caught.value.hint


def archive(name: str, content: bytes | None) -> list[bytes]:
    """A tar archive in pieces, as an engine sends it: one file, or a link where there is no content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as files:
        entry = tarfile.TarInfo(name)
        if content is None:
            entry.type, entry.linkname = tarfile.SYMTYPE, "/elsewhere"
        else:
            entry.size = len(content)
        files.addfile(entry, io.BytesIO(content or b""))
    data = packed.getvalue()
    return [data[n : n + 700] for n in range(0, len(data), 700)]


def test_the_program_of_an_image_appears_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    found = images._unpacked(archive("../../bin/bao", b"\x7fELF" * 5000), tmp_path / "bao")
    assert found.read_bytes() == b"\x7fELF" * 5000
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == [found]


@pytest.mark.parametrize("sent", [archive("bao", None), [], archive("bao", b"x" * 5000)[:2], [b"no archive" * 100]])
def test_of_what_is_no_whole_program_nothing_stays(tmp_path: Path, sent: list[bytes]) -> None:
    with pytest.raises(UsageError, match="did not return a complete file"):
        images._unpacked(sent, tmp_path / "bao")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_others_may_write_into_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = images._cache_directory("ab" * 32)
    assert images._cache_directory("ab" * 32) == kept
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    kept.chmod(0o770)
    with pytest.raises(UsageError, match="other users may write into"):
        images._cache_directory("ab" * 32)
