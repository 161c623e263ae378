"""What a tool prints is masked before it is cut, decoded or put into JSON, wherever its pieces end."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from jitvault.agent.masking import Masker
from jitvault.agent.secret_forms import forms
from jitvault.mcp import frames
from jitvault.mcp.tool_run import PrintedStream

SECRET = 'a"b\\c\u00e9\u20ac-d'
MASKER = Masker([("t", "f", SECRET)])
SPELLINGS = st.sampled_from([*sorted(forms(SECRET)), json.dumps(json.dumps(SECRET)).encode()])
PIECES = st.lists(st.binary(max_size=8) | SPELLINGS, max_size=12)


@given(PIECES, st.lists(st.integers(0, 200)), st.integers(1, 60))
def test_no_piece_of_a_secret_passes(pieces: list[bytes], cuts: list[int], most: int) -> None:
    data = b"".join(pieces)
    printed = PrintedStream(lambda: MASKER, most)
    edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    taken = []
    for start, end in itertools.pairwise(edges):
        printed.feed(data[start:end])
        taken.append(printed.take())
    printed.finish()
    taken.append(printed.take())
    shown = "".join(each.text for each in taken)
    assert not [form for form in forms(SECRET) if form in shown.encode()]
    assert all(len(each.text) <= most for each in taken)
    whole = MASKER.mask(data).decode("utf-8", "replace")
    assert len(shown) + sum(each.cut for each in taken) == len(whole)


@given(st.text(), st.integers() | st.none(), st.booleans())
def test_a_line_says_the_same_after_it_was_masked(text: str, code: int | None, is_utf8: bool) -> None:
    text = MASKER.mask_text(text)
    output = frames.Output(7, code, stdout=text, stderr=text, cut_stdout=1, cut_stderr=0, is_utf8=is_utf8)
    line = frames.line(output)
    assert line.isascii() and line.count(b"\n") == 1
    assert frames.answer(MASKER.mask(line)) == output
