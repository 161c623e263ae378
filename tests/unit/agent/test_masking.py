"""No form of a secret is in the output, however it comes in pieces; everything else passes byte by byte."""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jitvault.agent.masking import Masker
from jitvault.agent.secret_forms import SHORTEST, forms

MARKER = b"[jitvault:pg.password]"
# of few letters, so that secrets overlap, begin one another, and repeat
FEW = st.text("ab+\n", min_size=6, max_size=12)
ANY = st.one_of(FEW, st.text(min_size=6, max_size=20), st.binary(min_size=6, max_size=40))
SECRETS = st.lists(ANY.filter(forms), min_size=1, max_size=3)
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASCBKcwggSj\nAgEA\n-----END PRIVATE KEY-----\n"


def masker(*values: str | bytes) -> Masker:
    return Masker([("pg", "password", value) for value in values])


def all_forms(values: Iterable[str | bytes]) -> frozenset[bytes]:
    return frozenset(form for value in values for form in forms(value))


@st.composite
def outputs(draw: st.DrawFn, values: Sequence[str | bytes]) -> bytes:
    """What a program may write: forms, beginnings and ends of them, and other bytes; no part of a marker."""
    form = st.sampled_from(sorted(all_forms(values)))
    begun = form.flatmap(lambda whole: st.integers(0, len(whole)).map(lambda n: whole[:n]))
    ended = form.flatmap(lambda whole: st.integers(0, len(whole)).map(lambda n: whole[n:]))
    other = st.binary(max_size=8)
    return b"".join(draw(st.lists(st.one_of(form, begun, ended, other), max_size=8))).replace(b"[", b"")


def in_pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def simply_masked(data: bytes, values: Sequence[str | bytes]) -> bytes:
    """The definition, without an automaton: at each byte the longest form that begins there, or is cut off there."""
    by_length = sorted(all_forms(values), key=len, reverse=True)
    begun = {form[:n] for form in by_length for n in range(SHORTEST, len(form))}
    output, position = b"", 0
    while position < len(data):
        if data[position:] in begun:
            return output + MARKER
        form = next((form for form in by_length if data.startswith(form, position)), b"")
        output += MARKER if form else data[position : position + 1]
        position += len(form) or 1
    return output


# -- laws -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data(), SECRETS)
def test_the_leftmost_longest_form_is_replaced_and_nothing_else(data: st.DataObject, values: list[str | bytes]) -> None:
    text = data.draw(outputs(values))
    masked = masker(*values).mask(text)
    assert masked == simply_masked(text, values)
    for shown in masked.split(MARKER):
        assert [form for form in all_forms(values) if form in shown] == []


@settings(deadline=None)
@given(st.data(), SECRETS)
def test_the_output_is_the_same_however_the_input_is_cut(data: st.DataObject, values: list[str | bytes]) -> None:
    text = data.draw(outputs(values))
    wanted = masker(*values)
    for pieces in (data.draw(st.composite(in_pieces)(text)), [bytes([byte]) for byte in text]):
        stream = wanted.stream()
        assert b"".join([*map(stream.feed, pieces), stream.finish()]) == wanted.mask(text)


@settings(deadline=None)
@given(st.data(), SECRETS)
def test_what_no_form_begins_with_is_given_out_at_once(data: st.DataObject, values: list[str | bytes]) -> None:
    text = data.draw(outputs(values))
    given_out = masker(*values).stream().feed(text)
    begun = {form[:n] for form in all_forms(values) for n in range(1, len(form))}
    # what is held back begins a form, and nothing longer could have been held back
    possible = [n for n in range(len(text) + 1) if n == len(text) or text[n:] in begun]
    # of the part that is given out nothing is cut off: what follows is no more of a form
    assert any(given_out == simply_masked(text[:n] + b"[", values).removesuffix(b"[") for n in possible)
    if MARKER not in given_out:
        assert given_out == text[: possible[0]]


@settings(deadline=None)
@given(st.data(), SECRETS)
def test_a_flush_shows_three_bytes_of_a_secret_at_most(data: st.DataObject, values: list[str | bytes]) -> None:
    text = data.draw(outputs(values))
    stream = masker(*values).stream()
    output = b""
    for piece in data.draw(st.composite(in_pieces)(text)):
        output += stream.feed(piece)
        if data.draw(st.booleans()):
            output += stream.flush_held() + stream.flush_held()
    output += stream.finish()
    *before, last = output.split(MARKER)
    *wanted, wanted_last = simply_masked(text, values).split(MARKER)
    assert last == wanted_last
    for shown, part in zip(before, wanted, strict=True):
        assert shown.startswith(part)
        assert len(shown) <= len(part) + 3


@settings(deadline=None)
@given(st.binary(max_size=5), st.binary(min_size=6, max_size=60), st.binary(max_size=4))
@example(b"user:", b"x" * 6, b"\n")
def test_base64_is_recognised_in_the_middle_of_a_longer_one(before: bytes, secret: bytes, after: bytes) -> None:
    """What is left are the characters that are not of the secret alone."""
    wanted = masker(b"<" + secret + b">")
    before = before.replace(b"<", b"")
    # a bit of 1 follows, for zeros are also what follows at the end
    after = b"\xff" + after if after else b""
    whole = b64encode(before + b"<" + secret + b">" + after)
    first = -(-len(before) * 8 // 6)
    last = (len(before) + len(secret) + 2) * 8 // 6 if after else len(whole)
    assert wanted.mask(whole) == whole[:first] + MARKER + whole[last:]
    url = whole.translate(bytes.maketrans(b"+/", b"-_"))
    assert wanted.mask(url) == url[:first] + MARKER + url[last:]
    assert wanted.mask(whole.rstrip(b"=")) == whole[:first] + MARKER + whole[last:].rstrip(b"=")


@settings(deadline=None)
@given(st.integers(0, 150), st.integers(6, 57), st.sampled_from([64, 76]), st.sampled_from([b"\n", b"\r\n"]))
def test_folded_base64_is_recognised_at_each_column(before: int, length: int, width: int, line_end: bytes) -> None:
    secret = bytes(range(40, 40 + length))
    whole = b64encode(bytes(before) + secret + b"\xff" * 90)
    lines = [whole[n : n + width] for n in range(0, len(whole), width)]
    masked = masker(secret).mask(line_end.join(lines))
    assert masked.count(MARKER) == 1
    left = -(-before * 8 // 6), (before + length) * 8 // 6
    assert masked.replace(MARKER, b"").replace(line_end, b"") == whole[: left[0]] + whole[left[1] :]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_secret_that_is_cut_off_by_the_end_is_replaced_from_its_sixth_byte_on(cut: int) -> None:
    wanted = masker("hunter22")
    stream = wanted.stream()
    shown = b"hunter22"[:-cut] if cut > 2 else MARKER
    assert stream.feed(b"word: " + b"hunter22"[:-cut]) == b"word: "
    assert stream.finish() == shown and wanted.mask(b"word: " + b"hunter22"[:-cut]) == b"word: " + shown
    # of one that may be another's beginning, the one that is there whole names it
    both = Masker([("b", "long", "hunter22-and-more"), ("a", "short", "hunter22")])
    assert both.mask(b"hunter22") == b"[jitvault:a.short]" and both.mask(b"hunter22-") == b"[jitvault:b.long]"


# -- forms ------------------------------------------------------------------------------------------------

SECRET = "p<w>&é'/ +%\\\"~(1)"
SPELLINGS = {
    "UTF-8": SECRET,
    "hex": "703c773e26c3a9272f202b255c227e283129",
    "upper-case hex": "703C773E26C3A9272F202B255C227E283129",
    "JSON in ASCII": r"p<w>&\u00e9'/ +%\\\"~(1)",
    "JSON": r"p<w>&é'/ +%\\\"~(1)",
    "JSON of Go": r"p\u003cw\u003e\u0026é'/ +%\\\"~(1)",
    "quote": "p%3Cw%3E%26%C3%A9%27/%20%2B%25%5C%22~%281%29",
    "quote without safe": "p%3Cw%3E%26%C3%A9%27%2F%20%2B%25%5C%22~%281%29",
    "quote_plus": "p%3Cw%3E%26%C3%A9%27%2F+%2B%25%5C%22~%281%29",
    "lower-case quote": "p%3cw%3e%26%c3%a9%27%2f%20%2b%25%5c%22~%281%29",
    "encodeURIComponent": "p%3Cw%3E%26%C3%A9'%2F%20%2B%25%5C%22~(1)",
    "quoted by a shell": r"p<w>&é'\''/ +%\"~(1)",
    "quoted by shlex": shlex.quote(SECRET)[1:-1],
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_spelling_is_recognised(spelling: str) -> None:
    assert masker(SECRET).mask_text(f"a={spelling}.") == f"a={MARKER.decode()}."


def test_each_form_is_recognised_one_byte_at_a_time() -> None:
    stream = masker(PEM).stream()
    for form in forms(PEM):
        assert b"".join([*(stream.feed(bytes([byte])) for byte in form), stream.finish()]) == MARKER


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("own", ["\n", "\r\n"])
def test_lines_are_recognised_together_and_each_alone(own: str, line_end: str) -> None:
    """The two around the key are everybody's, and the one before the last is too short to be told from other text."""
    wanted = masker(PEM.replace("\n", own))
    assert wanted.mask(PEM.replace("\n", line_end).encode()) == MARKER + line_end.encode()
    lines = PEM.split("\n")
    shown = [lines[0], MARKER.decode(), MARKER.decode(), *lines[3:]]
    assert wanted.mask_text(f"{line_end}  ".join(lines)) == f"{line_end}  ".join(shown)
    assert wanted.mask(b64encode(lines[1].encode())) == MARKER
    assert wanted.mask(PEM.strip().replace("\n", line_end).encode().hex().encode()) == MARKER


@pytest.mark.parametrize("width", [64, 76])
def test_a_full_line_of_folded_base64_is_recognised_alone(width: int) -> None:
    whole = b64encode(10 * SECRET.encode()).decode()
    lines = [whole[start : start + width] for start in range(0, len(whole), width)]
    assert masker(10 * SECRET).mask_text("\n  ".join(lines[:2])) == f"{MARKER.decode()}\n  {MARKER.decode()}"


def test_space_around_a_secret_is_shown_and_does_not_hide_it() -> None:
    assert masker(" hunter22\n").mask(b"hunter22 hunter22\n") == MARKER + b" " + MARKER + b"\n"


def test_a_short_secret_is_not_masked_and_is_named() -> None:
    wanted = Masker([("pg", "pin", "12345"), ("pg", "code", b" 12345 \n"), ("pg", "none", ""), ("pg", "six", "abcdef")])
    assert wanted.unmasked == ("pg.pin", "pg.code")
    assert wanted.mask(b"12345 abcdef") == b"12345 [jitvault:pg.six]"


def test_of_a_very_long_secret_only_the_bare_lines_are_forms() -> None:
    lines = [f"line {n:06}" for n in range(2_000)]
    found = forms("\n".join(lines))
    assert found == {*(line.encode() for line in lines), "\n".join(lines).encode(), "\r\n".join(lines).encode()}


# -- several secrets --------------------------------------------------------------------------------------


def test_the_longest_secret_counts_and_the_first_of_two_alike() -> None:
    secrets = [("a", "short", "hunter22"), ("b", "long", "hunter22-and-more"), ("c", "alike", "hunter22")]
    wanted = Masker(secrets)
    assert wanted.mask(b"hunter22 hunter22-and-more") == b"[jitvault:a.short] [jitvault:b.long]"
    stream = wanted.stream()
    assert stream.feed(b"hunter22") == b""
    assert stream.flush_held() == b""
    assert stream.feed(b"-and-less") == b"[jitvault:a.short]-and-less"


def test_a_secret_that_is_its_own_marker_is_replaced_once() -> None:
    assert masker(MARKER).mask(b"a" + MARKER + b"b") == b"a" + MARKER + b"b"
    assert masker("jitvault").mask(b"jitvault") == MARKER


def test_without_a_secret_everything_passes_at_once() -> None:
    stream = Masker([]).stream()
    assert (stream.feed(bytes(range(256))), stream.finish()) == (bytes(range(256)), b"")


# -- waiting ----------------------------------------------------------------------------------------------


def test_a_prompt_is_not_held_back_by_the_first_letters_of_a_secret() -> None:
    stream = masker("> is the first letter").stream()
    assert stream.feed(b"sure? (y/n)> ") == b"sure? (y/n)"
    assert (stream.flush_held(), stream.flush_held()) == (b"> ", b"")
    assert stream.feed(b"yes\n") == b"yes\n"


def test_a_secret_that_is_typed_slowly_shows_its_first_letters_alone() -> None:
    stream = masker("hunter22").stream()
    output = b"".join(stream.feed(bytes([byte])) + stream.flush_held() for byte in b"a hunter22\n")
    assert output == b"a hun" + MARKER + b"\n"


def test_the_beginning_of_a_secret_behind_another_one_is_held_back_though_a_third_overlaps_both() -> None:
    stream = masker("0123456789abcdef", "89abcdefpqrstuvwxyz", "pq8899776655").stream()
    whole = b"".join([stream.feed(b"0123456789abcdefpq"), stream.feed(b"8899776655."), stream.finish()])
    assert whole == b"[jitvault:pg.password][jitvault:pg.password]."


def test_two_streams_of_one_masker_know_nothing_of_each_other() -> None:
    wanted = masker("hunter22")
    output, errors = wanted.stream(), wanted.stream()
    assert (output.feed(b"hunt"), errors.feed(b"er22"), output.feed(b"er22")) == (b"", b"er22", MARKER)


def test_text_with_lone_surrogates_passes_without_an_error() -> None:
    assert masker("hunter\u00e92").mask_text("é\ud800 hunteré2") == f"é\ufffd\ufffd\ufffd {MARKER.decode()}"
