"""An agent's host: another user of this machine, who can read its own home, the interpreter and the product alone.

    host = AgentHost(tmp_path_factory.mktemp("home"))
    subprocess.Popen(host.argv([sys.executable, "-m", "jitvault", ...]), env=host.environment(VAULT_ADDR=...))

Where the tests run as root, a program gets a file system of its own: nothing else of this machine is in it, and the
user has neither a name, a group, a runtime directory nor a right. It keeps the process id of what was started, so
that it can be killed. Elsewhere a program runs as the user of the tests, and `REASON` says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

PRODUCT = Path(__file__).parent.parent
# nobody's: without an entry in /etc/passwd, as in a container
UID = 61_234
_HOME = "/home/agent"
_PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
_SYSTEM = ("bin", "lib", "lib32", "lib64", "sbin")
# `chroot` replaces the shell, and the program `chroot`
_ENTER = """
set -e
root=$1 home=$2 user=$3 chroot=$4
shift 4
mount -t tmpfs -o mode=0755 none "$root"
for each in /usr /proc /dev; do
    mkdir "$root$each"
    mount --rbind "$each" "$root$each"
done
mkdir -m 1777 "$root/tmp"
mkdir -p "$root/home/agent"
mount --bind "$home" "$root/home/agent"
while [ "$1" != -- ]; do
    if [ -L "$1" ]; then
        cp -P "$1" "$root$1"
    else
        mkdir -p "$root$1"
        mount --bind "$1" "$root$1"
    fi
    shift
done
shift
exec "$chroot" --userspec="$user:$user" --groups= "$root" "$@"
"""


def _why_not() -> str:
    """Return why programs run as the user of the tests, "" where they do not."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "the tests do not run as root"
    if any(shutil.which(each, path=_PROGRAMS) is None for each in ("unshare", "chroot", "mount")):
        return "unshare, chroot or mount is missing"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "this root may not mount anything"
    return ""


REASON = _why_not()
"""Why an agent's programs run as the user of the tests; empty where they run as another one."""
KIND = f"as the user of the tests, since {REASON}" if REASON else f"as uid {UID}"


class AgentHost:
    """The home of the other user, which is at `home` for the tests and at `inside` for its programs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.inside = Path(str(home) if REASON else _HOME)
        self._root = home.parent / f"{home.name}-root"
        self._root.mkdir()
        if not REASON:
            home.chmod(0o700)
            os.chown(home, UID, UID)

    def put(self, source: Path, name: str = "") -> str:
        """Copy a file into its home with mode 0600; return its path there."""
        path = self.home / (name or source.name)
        shutil.copyfile(source, path)
        self.own(path)
        return str(self.inside / path.name)

    def own(self, path: Path) -> None:
        """Make a file in its home its own, and nobody else's."""
        path.chmod(0o600)
        if not REASON:
            os.chown(path, UID, UID)

    def environment(self, **more: str) -> dict[str, str]:
        """A user's variables that has no session: no runtime directory, no language."""
        return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.inside), **more}

    def argv(self, words: Sequence[str | Path]) -> list[str]:
        """Return what root starts, so that the program in `words` runs as the other user."""
        plain = [str(each) for each in words]
        if REASON:
            return plain
        whose = [str(self._root), str(self.home), str(UID), shutil.which("chroot", path=_PROGRAMS) or ""]
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "enter"]
        return [*enter, *whose, *_readable(), "--", *plain]

    def processes(self) -> list[int]:
        """The living processes of the other user; none where that is the user of the tests."""
        if REASON:
            return []
        return [pid for pid, uid in _users() if uid == UID]

    def files_in_memory(self) -> list[Path]:
        """What its programs left in memory."""
        left = Path("/dev/shm").glob("jitvault-exec-*")
        return [] if REASON else [path for path in left if path.lstat().st_uid == UID]


def _readable() -> list[str]:
    """The interpreter, the product and the parts of the system that are no links."""
    links = [f"/{each}" for each in _SYSTEM if Path(f"/{each}").exists()]
    own = {Path(sys.prefix), Path(sys.base_prefix), *(PRODUCT / each for each in ("jitvault", "policies", "templates"))}
    return [*links, *(str(each) for each in sorted(own) if not each.is_relative_to("/usr"))]


def _users() -> Iterator[tuple[int, int]]:
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with suppress(OSError):
                status = (directory / "status").read_text()
                fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
                if fields["State"].split()[0] not in "ZX":
                    yield int(directory.name), int(fields["Uid"].split()[0])
