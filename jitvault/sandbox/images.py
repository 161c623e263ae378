"""The server's program out of a container image, for whom an image is at hand and no program.

It is copied out of the image, once for each, and runs as any other program does: so it can be killed and comes back,
and uses files and ports of this machine, whatever the engine. No container is ever started.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from jitvault.errors import UsageError
from jitvault.formats.product import Product
from jitvault.formats.strict_yaml import place

# NAME:TAG or NAME@sha256:…; what has neither is taken for a program
_IMAGE = re.compile(r"[a-z0-9][\w.\-/:]*(:[\w][\w.\-]*|@sha256:[0-9a-f]{64})")
_PLACES = ("/bin", "/usr/local/bin", "/usr/bin")
_CHUNK = 2 * 1024 * 1024


def is_image(asked: str) -> bool:
    """Whether this names an image and no program: `hashicorp/vault:1.14.9`."""
    return _IMAGE.fullmatch(asked) is not None


def program_of(image: str) -> Path:
    """The server's program of an image, which the engine pulls where it has none.

    Raises UsageError without an engine, without the image, and where it has no such program.
    """
    try:
        from docker.errors import DockerException
        from testcontainers.core.docker_client import DockerClient
    except ImportError:
        raise UsageError(
            f"the image {place(image)} needs testcontainers, which is not installed", hint="pip install testcontainers"
        ) from None
    try:
        engine = DockerClient().client
        engine.ping()
    except DockerException:
        raise UsageError(
            f"the sandbox's server is the image {place(image)}, and no container engine answers",
            hint="Start an engine that speaks Docker's API (DOCKER_HOST says where), or name a program.",
        ) from None
    try:
        found = _pulled(engine, image)
        kept = _kept_in(found.id.removeprefix("sha256:"))
        there = next((path for path in map(kept.joinpath, _names()) if path.exists()), None)
        return there or _copied(engine, image, kept)
    except DockerException as error:
        raise UsageError(
            f"the container engine does not give the image {place(image)} ({type(error).__name__})",
            hint=f"Can it pull it? `docker pull {place(image)}`",
        ) from None
    finally:
        engine.close()


def _names() -> Iterable[str]:
    return (product.command for product in Product)


def _pulled(engine: Any, image: str) -> Any:
    from docker.errors import ImageNotFound

    with suppress(ImageNotFound):
        return engine.images.get(image)
    return engine.images.pull(image)


def _kept_in(image_id: str) -> Path:
    """A directory of our own for the programs of one image: below the user's cache, for nobody else."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = cache / "jitvault" / "images" / f"{platform.machine()}-{image_id[:32]}"
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{kept} cannot be made: {error.strerror}") from None
    if kept.stat().st_uid != os.geteuid() or kept.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"others may write into {kept}: what they put there would run as the sandbox's server")
    return kept


def _copied(engine: Any, image: str, kept: Path) -> Path:
    """Copy the program out of a container that is made for it and never started."""
    from docker.errors import NotFound

    container = engine.containers.create(image, command=["version"])
    try:
        for name in _names():
            for directory in _PLACES:
                with suppress(NotFound):
                    archive, _ = container.get_archive(f"{directory}/{name}", chunk_size=_CHUNK)
                    return _unpacked(archive, kept / name)
    finally:
        container.remove(force=True)
    raise UsageError(f"the image {place(image)} has no program {' or '.join(_names())} in {', '.join(_PLACES)}")


def _unpacked(archive: Iterable[bytes], target: Path) -> Path:
    """Write the one file of a tar archive; it appears whole or not at all. Raises UsageError for anything else."""
    with tempfile.TemporaryFile() as packed, tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
        path = Path(part.name)
        try:
            packed.writelines(archive)
            packed.seek(0)
            with tarfile.open(fileobj=packed) as files:
                member = files.next()
                content = files.extractfile(member) if member is not None and member.isfile() else None
                if member is None or content is None:
                    raise _no_file(target)
                shutil.copyfileobj(content, part)
            part.flush()
            if path.stat().st_size != member.size:
                raise _no_file(target)
            path.chmod(0o700)
            return path.rename(target)
        except tarfile.TarError:
            raise _no_file(target) from None
        finally:
            path.unlink(missing_ok=True)


def _no_file(target: Path) -> UsageError:
    return UsageError(f"what the engine gave for {target.name} is no whole file", hint="Name the program itself.")
