"""How long a text can become by normalising: no less than what any tokenizer makes of it, and not much more."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.metering import forms
from assistant_gateway.metering.forms import LONGEST_EXPANSION, long_form, longest_form
from assistant_gateway.wire.decoding import LARGEST_DECODED


def test_no_character_grows_by_more_than_the_longest_expansion() -> None:
    """Every code point, every normal form: the figure that unreadable text is bounded by."""
    worst = 0.0
    for start in range(0, sys.maxunicode + 1, 256):
        block = "".join(map(chr, range(start, start + 256)))
        # A text that is its own normal form has no character that is not.
        if block.isascii() or 0xD800 <= start <= 0xDFFF or unicodedata.is_normalized("NFKD", block):
            continue
        worst = max(worst, *(len(unicodedata.normalize("NFKD", char).encode()) / len(char.encode()) for char in block))
    assert 1 < worst <= LONGEST_EXPANSION


@given(st.text(max_size=200), st.booleans())
def test_every_form_of_a_text_has_fewer_bytes_than_the_bound(text: str, ascii_only: bool) -> None:
    """Raw and in all four normal forms, written plainly or with escapes."""
    text = text.encode(errors="replace").decode()
    raw = json.dumps(text, ensure_ascii=ascii_only).encode()
    forms = [text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD"))]
    assert longest_form(raw) >= max(len(form.encode()) for form in forms)


def test_text_that_cannot_be_read_is_bounded_too() -> None:
    """A lone surrogate keeps a text from being normalised here; the bound then takes the worst."""
    raw = b'"\\ud800' + b"\\ufdfa" * 10 + b'"'
    assert longest_form(raw) >= 33 * 10


def test_the_longest_form_of_each_character_is_known() -> None:
    """Those that no form changes, and syllables of Hangul, are not normalised to find that out."""
    for code in (*range(0x80, 0xD800), *range(0xE000, 0x30000), *range(0x30000, sys.maxunicode + 1, 101)):
        char = chr(code)
        if forms._UNCHANGED.fullmatch(char):
            assert all(unicodedata.normalize(form, char) == char for form in ("NFC", "NFD", "NFKD")), hex(code)
        elif code % 7 == 0 or 0xAC00 <= code < 0xD7A4:
            longest = max(len(unicodedata.normalize(form, char).encode()) for form in ("NFC", "NFD", "NFKD"))
            assert forms._longest.__wrapped__(char) == longest, hex(code)


LARGE_TEXTS = {
    "ascii": "a" * 200_000,
    "accents": "café au lait " * 20_000,
    "kana and hangul": "がぎぐ한국어" * 10_000,
    "one that grows elevenfold": "x" * 150_000 + "\ufdfa",
    "many of them": "\ufdfa" * 60_000,
    "wide": "\U0001f600" * 40_000,
    "line ends": 'a\n"\\' * 50_000,
    "backslashes": "\\" * 99_999 + "é" + "\\" * 100_001,
}


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("text", LARGE_TEXTS.values(), ids=LARGE_TEXTS)
async def test_a_large_text_is_bounded_in_pieces_as_a_small_one_at_once(text: str, ascii_only: bool) -> None:
    """However long it is and however it is written: no less than its longest form, and not much more."""
    raw = json.dumps(text, ensure_ascii=ascii_only).encode()
    longest = max(len(unicodedata.normalize(form, text).encode()) for form in ("NFC", "NFD", "NFKD"))
    found = await long_form(raw)
    assert longest <= found <= 1.05 * max(longest, len(raw))


@given(st.lists(st.sampled_from(["\\", '"', "é", "\ufdfa", "\U0001f600", "a", "\n", "\\u00e9"]), max_size=60))
def test_no_piece_ends_inside_of_a_character_or_an_escape(parts: list[str]) -> None:
    """Each piece can be read for itself, wherever it is cut."""
    for ascii_only in (True, False):
        raw = json.dumps("".join(parts), ensure_ascii=ascii_only).encode()
        at, pieces = 0, []
        while at < len(raw):
            piece = forms._piece(memoryview(raw), at, 13)
            assert 0 < len(piece) <= 13
            pieces.append(forms._plain(piece))
            at += len(piece)
        assert len("".join(pieces).encode()) >= len("".join(parts).encode())


@pytest.mark.parametrize(
    ("text", "pieces"), [("word " * 400_000, 7), ("\ufdfa" * 200_000, 36), ("\u4e00" * 200_000, 36)]
)
async def test_a_large_text_is_looked_at_in_small_pieces(text: str, pieces: int) -> None:
    """Between two of them others have their turn: the more often, the dearer the text is to look at."""
    pauses = 0

    async def pause() -> None:
        nonlocal pauses
        pauses += 1

    await long_form(json.dumps(text, ensure_ascii=False).encode(), pause)
    assert pauses >= pieces
    assert forms.AT_ONCE < LARGEST_DECODED
