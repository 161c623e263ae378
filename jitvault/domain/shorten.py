"""Text that came from outside, shortened to what is read and stored of it."""

from __future__ import annotations

from hashlib import sha256

_DIGITS = 16


def shorten(text: str, limit: int) -> str:
    """Shorten `text` to `limit` characters and say so in it.

    The remark has the length and a digest of the whole text, so that two texts with the same beginning stay two.
    """
    if len(text) <= limit:
        return text
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    remark = f"… (cut: {len(text)}, {digest})"
    return text[: limit - len(remark)] + remark
