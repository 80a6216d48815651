"""Words in the spellings people also search for: without accents, vowel marks and stretching, with common digits.

A passage keeps its text as it is. Beside it, the vector store keeps the other spellings of those words that have any
(`spellings`), and a question is asked with its words' other spellings added (`widened`): a word as it was written
finds most, its other spellings find it, too, and a text of plain letters has none, so nothing changes for it. One
module makes both sides, so they cannot part; the store's own analyser knows neither "ue" nor Arabic digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Marks that may be left out in writing: of Latin, Greek and Cyrillic letters, Hebrew points, Arabic vowels. In other
# scripts a mark is a letter's half.
_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed"
)
_MARK = re.compile(f"[{_MARKS}\u0640]")  # and the stroke that only stretches Arabic words
_WORD = re.compile(f"(?:[^\\W_]|[{_MARKS}])+")
_KEPT = frozenset("йЙўЎ")  # letters of their own, although Unicode takes them apart
# Letters that Unicode does not take apart, and Arabic ones that are written for each other.
_LETTERS = str.maketrans(
    {"ø": "o", "đ": "d", "ð": "d", "ł": "l", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}  # noqa: RUF001
    | {"ٱ": "ا", "ى": "ي", "ی": "ي", "ک": "ك", "ة": "ه"}  # noqa: RUF001
)
# How German and the Nordic languages write these where the keyboard has none.
_SPELT_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})


def spellings(text: str) -> str:
    """Return the other spellings of the words of `text`, one after the other; empty when none has any."""
    return " ".join(_others(text))


def widened(question: str) -> str:
    """Return a question with the other spellings of its words behind it."""
    return " ".join([question, *dict.fromkeys(_others(question))])


def _others(text: str) -> Iterator[str]:
    if text.isascii():
        return
    for word in _WORD.findall(text):
        if word.isascii():
            continue
        lower = word.lower()
        plain = _plain(lower)
        if plain != lower:
            yield plain
        spelt_out = _plain(lower.translate(_SPELT_OUT))
        if spelt_out not in {plain, lower}:
            yield spelt_out


def _plain(word: str) -> str:
    """Return a word in small letters without marks, with ASCII digits."""
    bare = _MARK.sub("", "".join(_taken_apart(letter) for letter in word))
    return unicodedata.normalize("NFC", bare.casefold().translate(_LETTERS))


def _taken_apart(letter: str) -> str:
    if letter.isdecimal():
        return str(unicodedata.decimal(letter))
    # Raised digits and fractions are no digits: "10²" is not 102.
    return letter if letter in _KEPT or letter.isnumeric() else unicodedata.normalize("NFKD", letter)
