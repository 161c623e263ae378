"""Each task of a server masks the secrets of all that live, of those that came later, too."""

from __future__ import annotations

import os
import subprocess
import sys
from secrets import token_hex

from jitvault.mcp.shared_secrets import SharedMasker, made

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
