"""Replace secrets in a program's output by markers, while it streams.

This is a net and not a wall. It catches what is printed by mistake: a password in an error message, a token in a debug
log. An agent that wants to print a secret can: reversed, or one character a line, it is none of the forms that are
looked for (`secret_forms.py`). The boundary against such an agent is another uid or another host.

Of all forms that begin at the same byte the longest counts, and of two that overlap the one that begins first. What
the later one has beyond it is shown. Where the output ends within a form, what there is of that form is replaced, too,
if it is as long as the shortest secret.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from jitvault.agent.secret_forms import SHORTEST, forms

# half of the shortest secret
_SHOWN_AT_MOST = SHORTEST // 2


class Masker:
    """Replace each form of a secret by `[jitvault:TEMPLATE.FIELD]`.

    A secret is given as its template's name, its field's name and its value. If two have the same form, the first one
    names it. A masker has no state: one serves several streams, and several threads.
    """

    unmasked: tuple[str, ...]
    """`TEMPLATE.FIELD` of each secret that is shown as it is: it is shorter than `SHORTEST` bytes, without the space
    around it, and masking it would garble output that has nothing to do with it. Empty values are not listed."""

    def __init__(self, secrets: Iterable[tuple[str, str, str | bytes]]) -> None:
        markers: dict[bytes, bytes] = {}
        unmasked = []
        for template, field, value in secrets:
            found = forms(value)
            if value and not found:
                unmasked.append(f"{template}.{field}")
            marker = f"[jitvault:{template}.{field}]".encode()
            for form in found:
                markers.setdefault(form, marker)
        self.unmasked = tuple(unmasked)
        self._forms = sorted(markers)
        self._markers = [markers[form] for form in self._forms]
        self._longest = max(map(len, self._forms), default=0)
        self._finder = _automaton(self._forms, MatchKind.LeftmostLongest)
        # only this kind finds what overlaps
        self._beginnings = _automaton(sorted({form[:SHORTEST] for form in self._forms}), MatchKind.Standard)

    def mask(self, data: bytes) -> bytes:
        """Return `data` with each secret replaced."""
        return self.advance(data, 0, is_end=True)[0]

    def mask_text(self, text: str) -> str:
        """Return `text` with each secret replaced.

        A lone surrogate becomes U+FFFD.
        """
        return self.mask(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def stream(self) -> MaskedStream:
        """Return a stream for one descriptor that a program writes to."""
        return MaskedStream(self)

    def advance(self, data: bytes, shown: int, *, is_end: bool) -> tuple[bytes, int]:
        """Return the output as far as it is decided, and where the rest begins.

        The first `shown` bytes were given out before, and are not given out again. At the end all is decided.
        """
        undecided = self._undecided(data, 0)
        parts = []
        position = 0
        for form, start, end in self._finder.find_matches_as_indexes(data):
            # from there on a longer form, or one that begins earlier, may still come
            if start >= undecided:
                break
            parts += [data[max(position, shown) : start], self._markers[form]]
            position = end
            if end > undecided:
                undecided = self._undecided(data, end)
        parts.append(data[max(position, shown) : undecided])
        if is_end:
            parts.append(self._last(data, max(undecided, shown), undecided))
            undecided = len(data)
        return b"".join(parts), undecided

    def _last(self, data: bytes, shown: int, begin: int) -> bytes:
        """Return what is given out of an end that begins a form, at `begin`."""
        cut_off = data[begin:]
        if len(cut_off) < SHORTEST:
            return data[shown:]
        return self._markers[bisect_left(self._forms, cut_off)]

    def _undecided(self, data: bytes, begin: int) -> int:
        """Return where the longest end starts that more bytes can make a form.

        It starts at `begin` or later. It is `len(data)` if no end can become a form.
        """
        begin = max(begin, len(data) - self._longest + 1)
        tail = data[begin:]
        found = self._beginnings.find_matches_as_indexes(tail, overlapping=True)
        # the beginnings are of one length, so they are found in order; an end that is shorter comes after them
        starts = [start for _, start, _ in found]
        starts += range(max(0, len(tail) - SHORTEST + 1), len(tail))
        return next((begin + start for start in starts if self._begins_a_form(tail[start:])), len(data))

    def _begins_a_form(self, end: bytes) -> bool:
        """Tell whether a form begins with `end` and is longer."""
        after = bisect_right(self._forms, end)
        return after < len(self._forms) and self._forms[after].startswith(end)


class MaskedStream:
    """Mask output that comes in pieces, wherever it is cut.

    Each byte is given out as soon as no form can begin with it: only the longest end of what came that is the beginning
    of a form is held back. That is always less than the longest form.
    """

    masker: Masker
    """It may be replaced, by one that has further secrets, for what comes from then on."""

    def __init__(self, masker: Masker) -> None:
        self.masker = masker
        self._held = b""
        # how many bytes of what is held were given out by flush_held
        self._shown = 0

    def feed(self, data: bytes) -> bytes:
        """Return what can be given out now that `data` came."""
        return self._advance(data, is_end=False)

    def flush_held(self) -> bytes:
        """Return what is held back if it is 3 bytes or fewer, else nothing.

        For a caller that waited for more, some 20 ms: the last letters of a prompt may be the first ones of a secret,
        and nobody answers half a prompt. The bytes stay remembered. If a secret comes of them, its marker follows them,
        so a flush costs 3 bytes of a secret at most, however slowly it is written. A longer beginning of a secret is
        hardly chance: it stays held until more output decides, or the end.
        """
        if len(self._held) > _SHOWN_AT_MOST:
            return b""
        output = self._held[self._shown :]
        self._shown = len(self._held)
        return output

    def finish(self) -> bytes:
        """Return the rest, for nothing more will come."""
        return self._advance(b"", is_end=True)

    def _advance(self, data: bytes, *, is_end: bool) -> bytes:
        data = self._held + data
        output, undecided = self.masker.advance(data, self._shown, is_end=is_end)
        self._held = data[undecided:]
        self._shown = max(0, self._shown - undecided)
        return output


def _automaton(texts: list[bytes], kind: MatchKind) -> BytesAhoCorasick:
    # a DFA is twice as fast, and takes 300 MB for one secret of 16 KiB
    return BytesAhoCorasick(texts, matchkind=kind, implementation=Implementation.ContiguousNFA)
