"""List the byte strings by which programs commonly write a secret.

A program that prints a secret by mistake seldom prints it bare: it stands in a JSON answer, in a URL, in a Kubernetes
manifest as base64. Each of these spellings is a form. What a form does not cover is shown as it is.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 6
"""The shortest secret with forms, in bytes. A shorter one is found in too much that is no secret."""
LONGEST_ENCODED = 16 * 1024
"""The longest secret with encoded forms, in bytes. Of a longer one the forms would take too much memory."""
# what programs leave unescaped besides letters, digits and "_.-~": nothing, a path's "/", JavaScript's signs
_URL_SAFE = ("", "/", "!*'()")
_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")
# the characters of a line of base64: PEM's, and MIME's, which base64(1) writes too
_FOLDED_AT = (64, 76)
# how many bytes a line of 76 characters holds
_ONE_FOLDED_LINE = 57


def forms(value: str | bytes) -> frozenset[bytes]:
    """Return all forms of a secret; none if it is too short.

    Space around it and around its lines belongs to no form. The forms are those of the whole value, with either line
    end, and of each line: as it is, as base64 in both alphabets at each of its three alignments, as hexadecimal
    digits, escaped for a URL, for JSON and for a shell's single quotes. The two lines around a PEM block are no
    secret. Base64 that is folded at 64 or 76 characters is recognised where it begins with the secret, and each full
    line of it; of a secret that is no longer than one such line, anywhere. Hexadecimal digits that are folded are not.
    """
    whole = (value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value).strip()
    if len(whole) < SHORTEST:
        return frozenset()
    lines = [line.strip() for line in whole.splitlines()]
    wholes = {whole}
    if len(lines) > 1:
        unix = whole.replace(b"\r\n", b"\n")
        wholes |= {unix, unix.replace(b"\n", b"\r\n")}
    texts = wholes | {line for line in lines if len(line) >= SHORTEST and not _is_pem_boundary(line)}
    if len(whole) > LONGEST_ENCODED:
        return frozenset(texts)
    folded = {form for text in wholes for form in _folded(text)}
    return frozenset(texts | folded | {form for text in texts for form in _encoded(text)})


def _is_pem_boundary(line: bytes) -> bool:
    return line.startswith((b"-----BEGIN ", b"-----END ")) and line.endswith(b"-----")


def _encoded(text: bytes) -> Iterator[bytes]:
    for offset in range(3):
        for form in _base64(text, offset):
            yield form
            yield form.translate(_URL_ALPHABET)
    digits = text.hex()
    yield digits.encode()
    yield digits.upper().encode()
    yield from _percent_encoded(text)
    yield from _in_json(text)
    # as people close and reopen the quotes, and as shlex.quote does
    yield text.replace(b"'", b"'\\''")
    yield text.replace(b"'", b"'\"'\"'")


def _base64(text: bytes, offset: int) -> Iterator[bytes]:
    """Yield the characters of base64 that `text` alone determines.

    `offset` is how many bytes stand before it, modulo 3. Where something follows, the last character may be partly of
    that. Where nothing does, the character counts as well, and the padding.
    """
    encoded = b64encode(bytes(offset) + text)
    first = _first_character(offset)
    yield encoded[first : (offset + len(text)) * 8 // 6]
    yield encoded[first:].rstrip(b"=")
    yield encoded[first:]


def _first_character(offset: int) -> int:
    """Return the first character of base64 that has no bit of `offset` bytes."""
    return (offset * 8 + 5) // 6


def _folded(text: bytes) -> Iterator[bytes]:
    for width in _FOLDED_AT:
        offsets = range(width // 4 * 3) if len(text) <= _ONE_FOLDED_LINE else range(1)
        for offset in offsets:
            column = _first_character(offset)
            for form in _base64(text, offset % 3):
                ends = range(width - column, len(form), width)
                lines = [form[start:end] for start, end in zip((0, *ends), (*ends, len(form)), strict=True)]
                yield b"\n".join(lines)
                yield b"\r\n".join(lines)
                # as with `head`, or indented
                yield from (line for line in lines if len(line) == width)


def _percent_encoded(text: bytes) -> Iterator[bytes]:
    for safe in _URL_SAFE:
        for escaped in (quote(text, safe=safe), quote_plus(text, safe=safe)):
            yield escaped.encode()
            before, *escapes = escaped.split("%")
            yield "%".join([before, *(each[:2].lower() + each[2:] for each in escapes)]).encode()


def _in_json(text: bytes) -> Iterator[bytes]:
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return
    for is_ascii in (True, False):
        escaped = json.dumps(decoded, ensure_ascii=is_ascii)[1:-1]
        yield escaped.encode()
        # Go's encoder, and so Vault's own command line, writes these three as escapes
        for sign in "<>&":
            escaped = escaped.replace(sign, f"\\u{ord(sign):04x}")
        yield escaped.encode()
