"""Whatever a program made of its directory, it is removed, and nothing beside it is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from jitvault.agent.execution.removal import remove_tree
from jitvault.agent.execution.secret_files import secret_files, sweep


def nested(place: Path, depth: int, name: str = "d") -> None:
    """Make directories that no path reaches, each with a file beside the next."""
    opened = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=opened))
        os.mkdir(name, dir_fd=opened)
        inner = os.open(name, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = inner
    os.close(opened)


@pytest.mark.parametrize(
    "make",
    [
        lambda place: nested(place, 2100),
        lambda place: nested(place, 300, "n" * 200),
        lambda place: [(place / f"{n}").touch() for n in range(3000)],
    ],
    ids=["deep", "long", "wide"],
)
def test_a_directory_is_removed_with_all_that_is_in_it(tmp_path: Path, make: Callable[[Path], object]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    make(place)
    assert remove_tree(place, 20) and not place.exists()


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Without root's right to pass every mode."""
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_rights_that_were_taken_away_keep_nothing() -> None:
    # not below pytest's own directory, where only its user may look
    with ordinary_user(), TemporaryDirectory(dir="/tmp") as top:
        place = Path(top) / "place"
        place.mkdir()
        nested(place, 3)
        for each in (place / "d" / "d", place / "d", place):
            each.chmod(0)
        assert remove_tree(place, 5)


def test_a_link_in_its_place_and_links_in_it_lead_nowhere(tmp_path: Path) -> None:
    other, place = tmp_path / "other", tmp_path / "place"
    other.mkdir(mode=0o755)
    (other / "file").touch()
    place.mkdir()
    (place / "link").symlink_to(other)
    assert remove_tree(place, 5)
    place.symlink_to(other)
    assert not remove_tree(place, 5)
    assert (other / "file").exists() and other.stat().st_mode & 0o777 == 0o755


def test_it_ends_when_its_time_is_over(tmp_path: Path) -> None:
    nested(tmp_path, 20)
    assert not remove_tree(tmp_path, 0) and (tmp_path / "d" / "d").is_dir()
    assert remove_tree(tmp_path, 20)


# a run that is killed whole, after its program put something else in the place of each name that it knows
KILLED = """
import os, sys
from jitvault.agent.execution.secret_files import secret_files
made = secret_files({"XDG_RUNTIME_DIR": sys.argv[1]})
made.write("word", b"hunter22")
os.chdir(made.directory)
for name in os.listdir() if sys.argv[2] != "mode" else ():
    os.unlink(name)
    os.mkdir(name) if sys.argv[2] == "directory" else os.symlink("/", name)
if sys.argv[2] == "mode":
    os.chmod(".", 0)
os._exit(7)
"""


@pytest.mark.parametrize("how", ["link", "directory", "mode"])
def test_whatever_a_program_made_of_its_files_they_are_swept_once_nobody_holds_them(how: str) -> None:
    with TemporaryDirectory(dir="/dev/shm") as memory:
        done = subprocess.run([sys.executable, "-c", KILLED, memory, how], check=False)
        assert done.returncode == 7 and len(list(Path(memory).iterdir())) == 1
        held = secret_files({"XDG_RUNTIME_DIR": memory})
        assert list(Path(memory).iterdir()) == [held.directory]
        sweep(Path(memory))
        assert held.directory.exists()
        held.remove()
        assert not list(Path(memory).iterdir())
