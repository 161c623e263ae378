"""Copy the server's program out of a container image.

This is for machines that have an image and no program. The program is copied once for each image and runs as any other
program: it can be killed and restarted, and uses files and ports of this machine, whatever the container engine. No
container is ever started.
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
from jitvault.formats.server_product import Product
from jitvault.formats.strict_yaml import place

# NAME:TAG or NAME@sha256:…; a name without either is taken for a program
_IMAGE = re.compile(r"[a-z0-9][\w.\-/:]*(:[\w][\w.\-]*|@sha256:[0-9a-f]{64})")
_PLACES = ("/bin", "/usr/local/bin", "/usr/bin")
_CHUNK = 2 * 1024 * 1024


def is_image(asked: str) -> bool:
    """Return whether `asked` names an image and not a program.

    An example is `hashicorp/vault:1.14.9`.
    """
    return _IMAGE.fullmatch(asked) is not None


def program_of(image: str) -> Path:
    """Return the path of the server program of an image.

    The container engine pulls the image if it does not have it. Raises UsageError without a container engine, without
    the image, and where the image has no such program.
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
            hint="Start a container engine with Docker's API (DOCKER_HOST names its address), or name a program with "
            "--server.",
        ) from None
    try:
        found = _pulled(engine, image)
        directory = _cache_directory(found.id.removeprefix("sha256:"))
        for name in _names():
            if (directory / name).exists():
                return directory / name
        return _copied(engine, image, directory)
    except DockerException as error:
        raise UsageError(
            f"the container engine cannot provide the image {place(image)} ({type(error).__name__})",
            hint=f"Find out whether the engine can pull it: `docker pull {place(image)}`.",
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


def _cache_directory(image_id: str) -> Path:
    """Return the private directory for one image's programs.

    It is below the user's cache. Raises UsageError.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "jitvault" / "images" / f"{platform.machine()}-{image_id[:32]}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory} cannot be created: {error.strerror}") from None
    if directory.stat().st_uid != os.geteuid() or directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"other users may write into {directory}: their files would run as the sandbox's server")
    return directory


def _copied(engine: Any, image: str, kept: Path) -> Path:
    """Copy the program out of a container.

    The container is created for this and never started. Raises UsageError.
    """
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
    """Write the single file of a tar archive, complete or not at all.

    Raises UsageError for any other archive.
    """
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
    return UsageError(
        f"the container engine did not return a complete file for {target.name}", hint="Name the program itself."
    )
