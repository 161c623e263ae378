"""Text from outside, shortened and escaped to be read and stored."""

from __future__ import annotations

from hashlib import sha256

_DIGITS = 16


def one_line(text: str) -> str:
    """Escape line ends and whatever else a terminal would obey.

    A name that somebody signed could otherwise put lines into a message that read as if jitvault had printed them.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str, limit: int) -> str:
    """Return another person's words on one line, in quotation marks.

    They are `limit` characters at most, and cannot end the quotation.
    """
    line = one_line(text).replace('"', "'")
    return f'"{line}"' if len(line) <= limit else f'"{line[: limit - 1]}…"'


def printable(text: str) -> str:
    """Escape whatever a terminal would obey, but keep line ends."""
    return "\n".join(map(one_line, text.split("\n")))


def shorten(text: str, limit: int) -> str:
    """Shorten `text` to `limit` characters, with a remark in the text.

    The remark has the length and a digest of the whole text, so that two texts with one beginning stay different.
    """
    if len(text) <= limit:
        return text
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    remark = f"… (cut: {len(text)}, {digest})"
    return text[: limit - len(remark)] + remark
