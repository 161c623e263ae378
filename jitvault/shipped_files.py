"""The files that ship with jitvault: `policies/` and `templates/`.

From the wheel, or from a checkout.
"""

from __future__ import annotations

from pathlib import Path

from jitvault.errors import InvalidInput

_PACKAGE = Path(__file__).parent
MAX_BYTES = 64 * 1024


def root() -> Path:
    """Return the directory that holds `policies/` and `templates/`."""
    wheel = _PACKAGE / "_shipped"
    return wheel if wheel.is_dir() else _PACKAGE.parent


def templates_dir() -> Path:
    """Return the directory of the shipped access templates."""
    return root() / "templates"


def policies_dir() -> Path:
    """Return the directory of the shipped policies."""
    return root() / "policies"


def vault_policies() -> dict[str, str]:
    """Return the texts of `policies/vault` by file name. Raises InvalidInput."""
    return {Path(name).name: data.decode() for name, data in files(policies_dir() / "vault", ".hcl").items()}


def files(directory: Path, *suffixes: str) -> dict[str, bytes]:
    """Return the contents of the files in `directory` by their path.

    Of files with one of `suffixes`, at most MAX_BYTES + 1 bytes each. Raises InvalidInput.
    """
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix in suffixes and path.is_file())
        # one byte more than is allowed lets the caller detect a file that is too long
        return {str(path): _head(path) for path in found}
    except FileNotFoundError:
        raise InvalidInput(f"there is no directory {directory}", hint="Name a directory that exists.") from None
    except OSError as error:
        raise InvalidInput(f"{directory} cannot be read: {error.strerror}", hint="Name another directory.") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
