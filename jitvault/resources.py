"""The files that ship with jitvault: `policies/` and `templates/`, from the wheel or from the checkout."""

from __future__ import annotations

from pathlib import Path

from jitvault.errors import InvalidInput

_PACKAGE = Path(__file__).parent
MAX_BYTES = 64 * 1024


def root() -> Path:
    """The directory that holds `policies/` and `templates/`."""
    wheel = _PACKAGE / "_shipped"
    return wheel if wheel.is_dir() else _PACKAGE.parent


def templates_dir() -> Path:
    return root() / "templates"


def policies_dir() -> Path:
    return root() / "policies"


def vault_policies() -> dict[str, str]:
    """File name → text of `policies/vault`. Raises InvalidInput."""
    return {Path(name).name: data.decode() for name, data in files(policies_dir() / "vault", ".hcl").items()}


def files(directory: Path, *suffixes: str) -> dict[str, bytes]:
    """Name → bytes of the files in `directory` with one of `suffixes`. Raises InvalidInput."""
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix in suffixes and path.is_file())
        # one byte more than is allowed is enough for whoever reads it to refuse it
        return {str(path): _head(path) for path in found}
    except OSError as error:
        raise InvalidInput(f"{directory} cannot be read: {error.strerror}") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
