"""How many bytes a text has at most once a tokenizer has brought it into its normal form.

Normalising may lengthen what is not ASCII, eleven times at worst. A text of any size is looked at in pieces of less
than a millisecond, and between two of them others have their turn.
"""

from __future__ import annotations

import functools
import operator
import re
import unicodedata
from collections import Counter

import msgspec

from assistant_gateway.capacity.fairness import Pause, next_round
from assistant_gateway.wire.decoding import LARGEST_DECODED, UNREADABLE

LONGEST_EXPANSION = 11  # bytes that normalising makes of one: U+FDFA, three bytes, becomes 33 (a test tries them all)
USUAL_GROWTH = 2  # accents, kana
AT_ONCE = 16 * 1024  # bytes of which each character is looked at without a pause
PLAIN_AT_ONCE = 256 * 1024  # of which none is

_ASCII = bytes(range(128))
_PRINTABLE = bytes(max(byte, 32) for byte in range(256))  # line ends between values are no text
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
# Runs of characters that no form changes (a test tries them all): ideographs, emoji, private use.
_UNCHANGED = re.compile("[\u3400-\u9fff\ue000-\uf8ff\U0001f300-\U0001faff\U00020000-\U0002f7ff\U00030000-\U0010ffff]+")
_HANGUL = range(0xAC00, 0xD7A4)  # syllables; decomposed they are two or three letters
_LETTERS_AT_THE_END = 28  # each so-manieth syllable has no third letter

_anything = msgspec.json.Decoder(object)
_string = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


def longest_form(raw: bytes) -> int:
    """Return the bytes of a text, in the longest of the forms that tokenizers bring it into.

    Escapes in JSON are longer than what they stand for, except where normalising lengthens it: those are decoded. A
    large text is bounded without looking at its characters.
    """
    escaped = has_escapes(raw)
    if not escaped and raw.isascii():
        return len(raw)
    if len(raw) > LARGEST_DECODED:
        wide = len(raw.translate(None, _ASCII))
        return len(raw) + wide * (USUAL_GROWTH - 1)
    try:
        text = _encode(_anything.decode(raw)).decode() if escaped else raw.decode()
    except UNREADABLE:
        return len(raw) * LONGEST_EXPANSION
    return max(len(raw), _form(text))


async def long_form(raw: bytes | msgspec.Raw, pause: Pause = next_round) -> int:
    """Return `longest_form` of a text of any size, character by character; nothing of it is there twice."""
    view = memoryview(raw)
    if len(view) <= AT_ONCE:
        return longest_form(bytes(view))
    at, total, looked_at = 0, 0, 0
    while at < len(view):
        piece = _piece(view, at, AT_ONCE)
        at += len(piece)
        if piece.isascii() and not has_escapes(piece):
            total += len(piece)
            looked_at += AT_ONCE
        else:
            try:
                total += max(len(piece), _form(_plain(piece)))
            except UNREADABLE:
                total += len(piece) * LONGEST_EXPANSION
            looked_at += PLAIN_AT_ONCE
        if looked_at >= PLAIN_AT_ONCE:
            looked_at = 0
            await pause()
    return total


def has_escapes(raw: bytes) -> bool:
    """Return whether characters may be written by their numbers."""
    return b"\\" in raw and b"\\u" in raw  # one byte is found ten times as fast as two


def _form(text: str) -> int:
    """Return the bytes of the longest form: normal forms take each character for itself and then sort."""
    encoded = text.encode()
    written = len(encoded)
    # At most so many bytes are not ASCII: such a character has at least one byte more than there are characters.
    beyond = min(written, 2 * (written - len(text)))
    if beyond * (LONGEST_EXPANSION - 1) <= written // 2:
        return written + beyond * (LONGEST_EXPANSION - 1)  # languages with a few accents
    changing = _UNCHANGED.sub("", encoded.translate(None, _ASCII).decode())
    counted = Counter(changing)
    longest: int = sum(map(operator.mul, counted.values(), map(_longest, counted)))
    return written - len(changing.encode()) + longest


@functools.lru_cache(maxsize=32_768)
def _longest(char: str) -> int:
    """Return the bytes of the longest form of a character."""
    if not unicodedata.decomposition(char):
        if ord(char) in _HANGUL:
            return 9 if (ord(char) - _HANGUL.start) % _LETTERS_AT_THE_END else 6
        return len(char.encode())
    return max(len(unicodedata.normalize(form, char).encode()) for form in ("NFC", "NFD", "NFKD"))


def _piece(view: memoryview, at: int, most: int) -> bytes:
    """Return the next piece of JSON, which ends neither inside of a character nor of an escape."""
    piece = bytes(view[at : at + most + 1])
    end = min(most, len(piece))
    if len(piece) <= most:
        return piece
    while piece[end] & 0xC0 == 0x80:
        end -= 1
    near = piece.rfind(b"\\", max(0, end - 6), end)
    if near >= 0:
        before = piece[: near + 1]
        begins = (len(before) - len(before.rstrip(b"\\"))) % 2  # else it is the second of two
        if begins and (piece[near + 1 : near + 2] == b"u" or near == end - 1):
            end = near
    if end > 6 and _HIGH_SURROGATE.fullmatch(piece, end - 6, end):
        end -= 6
    return piece[:end]


def _plain(piece: bytes) -> str:
    """Return a piece of JSON as text, its escapes of characters decoded; no shorter than it is."""
    if not has_escapes(piece):
        return piece.decode()
    text = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__").replace(b'"', b"_").translate(_PRINTABLE)
    return _string.decode(b'"' + text + b'"')
