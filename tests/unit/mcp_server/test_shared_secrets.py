"""Each task of a server masks the secrets of all that live, of those that came later, too."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from secrets import token_hex
from threading import Thread

import pytest

from jitvault.mcp.shared_secrets import SharedMasker, hand_out, made, received

ADDS = """
import sys
from jitvault.mcp.shared_secrets import add
add(int(sys.argv[1]), [("pg", "password", sys.argv[2])])
print(flush=True)
sys.stdin.read()
"""


def adding(memory: int, word: str) -> subprocess.Popen[bytes]:
    """A process that adds a secret and lives until its input ends."""
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", ADDS, str(memory), word]
    process = subprocess.Popen(words, stdin=pipe, stdout=pipe, pass_fds=[memory])
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_secrets_are_masked_from_when_they_are_added_until_their_process_ends() -> None:
    memory = made()
    assert memory is not None
    own, first, second = token_hex(), token_hex(), token_hex()
    masker = SharedMasker([("own", "word", own)], memory)
    masked = masker.now().stream()
    assert masked.feed(f"{own} {first}\n".encode()) == f"[jitvault:own.word] {first}\n".encode()
    with adding(memory, first) as one:
        masked.masker = masker.now()
        assert masked.feed(f"{own} {first}\n".encode()) == b"[jitvault:own.word] [jitvault:pg.password]\n"
        assert masker.now() is masker.now(), "it is made once"
        one.kill()
    with adding(memory, second) as other:
        said = masker.now().mask_text(f"{own} {first} {second}")
        assert said == f"[jitvault:own.word] {first} [jitvault:pg.password]"
        other.kill()
    os.close(memory)


def test_processes_that_add_at_once_lose_no_line() -> None:
    memory = made()
    assert memory is not None
    words = [token_hex() for _ in range(6)]
    pipe = subprocess.PIPE
    all_at_once = [
        subprocess.Popen([sys.executable, "-c", ADDS, str(memory), word], stdin=pipe, stdout=pipe, pass_fds=[memory])
        for word in words
    ]
    for each in all_at_once:
        assert each.stdout is not None and each.stdout.readline()
    assert SharedMasker([], memory).now().mask_text(" ".join(words)) == " ".join(["[jitvault:pg.password]"] * 6)
    for each in all_at_once:
        each.communicate()
    os.close(memory)


def test_without_such_memory_a_task_masks_its_own() -> None:
    assert SharedMasker([("own", "word", "hunter22")], None).now().mask_text("hunter22") == "[jitvault:own.word]"


def test_a_process_asks_for_the_memory_by_a_socket_as_often_as_it_likes() -> None:
    memory = made()
    assert memory is not None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answering = Thread(target=lambda: [hand_out(memory, ours) for _ in range(2)])
        answering.start()
        found = [received(theirs.fileno()) for _ in range(2)]
        answering.join()
        for each in found:
            assert each is not None and os.path.sameopenfile(each, memory) and not os.get_inheritable(each)
            os.close(each)
        with pytest.raises(OSError, match="No such device"):
            # what everybody of the same user can try while a program starts
            os.open(f"/proc/self/fd/{theirs.fileno()}", os.O_RDONLY)
        theirs.close()
        assert not hand_out(memory, ours), "nobody asks any more"
    os.close(memory)
