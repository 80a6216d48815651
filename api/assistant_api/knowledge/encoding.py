"""From a text file's bytes to its text: the encoding is found in the bytes, and never guessed in silence.

Order: a byte order mark, UTF-16 without one, UTF-8 (with a few damaged bytes, too), then what chardetng finds among the
encodings of the web (the detector of Firefox, for files that do not say what they are in).
"""

from __future__ import annotations

import codecs
import re

import chardetng_py

# The names of the WHATWG Encoding Standard that Python knows as a smaller set, or not at all.
_PYTHON_NAMES = {
    "Shift_JIS": "cp932",
    "EUC-KR": "cp949",
    "Big5": "big5hkscs",
    "ISO-8859-8-I": "iso8859-8",
    "windows-874": "cp874",
    "x-mac-cyrillic": "mac-cyrillic",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DETECT_BYTES = 256 * 1024
_REPLACEMENT = "\ufffd"
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_C1 = re.compile("[\x80-\x9f]")  # control characters: no text has them, a wrong encoding does
_LATIN = frozenset(
    {"windows-1252", "windows-1250", "windows-1254", "windows-1257", "windows-1258"}
    | {f"ISO-8859-{part}" for part in (1, 2, 3, 4, 10, 13, 14, 15, 16)}
)
_FEW = 5
_ASCII_LETTERS = re.compile("[a-zA-Z]")
_WORD_CHARACTERS = re.compile("[^\x00-\x7f]")
# A sign other than an apostrophe or a middle dot between two letters, or a capital after a small letter.
_INSIDE_WORDS = re.compile(
    "(?<=[a-z])(?:[\u00a1-\u00b6\u00b8-\u00bf\u2020-\u2030\u221a-\u25ca]|[\u00c0-\u00de\u0152\u0160\u0178\u017d])(?=[a-z])"
)


class UnknownEncodingError(ValueError):
    """Nobody can tell which encoding a text is in."""


def decode(content: bytes) -> str:
    """Return the text of a file; a byte that belongs to no character becomes U+FFFD.

    Raises:
        UnknownEncodingError: its encoding cannot be told.
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(name, errors="replace")
    if (wide := utf16_without_mark(content)) is not None:
        return content.decode(wide, errors="replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("utf-8", errors="replace")
    if _is_damaged_utf8(text):
        return text
    return _decode_legacy(content)


def utf16_without_mark(content: bytes) -> str | None:
    """Return which UTF-16 the content is in, None where it is not: in most scripts one byte of each space is zero."""
    head = content[: 4096 & ~1]
    if len(head) < 4:
        return None
    even, odd = head[0::2], head[1::2]
    zeros = {"utf-16-be": even.count(0), "utf-16-le": odd.count(0)}
    name = max(zeros, key=lambda each: zeros[each])
    other = min(zeros.values())
    # A tenth of the characters are spaces or digits at least; a zero in the other half is a character of its own.
    if zeros[name] * 10 < len(even) or other * 20 > zeros[name]:
        return None
    try:
        text = head.decode(name)
    except UnicodeDecodeError:
        return None
    return (
        name if sum(character.isprintable() or character.isspace() for character in text) >= 0.9 * len(text) else None
    )


def _is_damaged_utf8(text: str) -> bool:
    """Whether a text that is not valid UTF-8 is that all the same.

    In other encodings hardly any two bytes are by chance a character of UTF-8: one in eight at most, in Chinese.
    """
    damaged = text.count(_REPLACEMENT)
    return _beyond_ascii(text) - damaged >= damaged


def _decode_legacy(content: bytes) -> str:
    detector = chardetng_py.EncodingDetector()
    # Only what is not ASCII counts, and the first of it decides: a long file costs no more than a short one.
    found = _NOT_ASCII.search(content)
    start = found.start() if found else 0
    detector.feed(content[max(0, start - 1024) : start + _DETECT_BYTES], last=True)
    name = detector.guess(tld=None, allow_utf8=False)
    if name in _LATIN and len(_NOT_ASCII.findall(content, 0, _DETECT_BYTES)) < _FEW:
        name = "windows-1252"  # too little to go by: the commonest of them
    text = content.decode(_PYTHON_NAMES.get(name, name), errors="replace")
    if not _is_plausible(text, latin=name in _LATIN):
        raise UnknownEncodingError(name)
    return text


def _is_plausible(text: str, *, latin: bool) -> bool:
    """Whether a decoded text can have been written like this; a wrong encoding puts signs and capitals into words."""
    beyond = _beyond_ascii(text)
    strange = text.count(_REPLACEMENT) + len(_C1.findall(text)) + len(_INSIDE_WORDS.findall(text))
    if strange * 10 > beyond:
        return False
    letters = sum(map(str.isalpha, _WORD_CHARACTERS.findall(text, 0, _DETECT_BYTES))) if latin else 0
    return letters <= len(_ASCII_LETTERS.findall(text, 0, _DETECT_BYTES))


def _beyond_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))
