"""Words of German and English text, reduced to comparable stems: what the stand-in model knows of language.

Both its answers (which sentence speaks of what was asked?) and its embeddings rest on these few rules. They are
no linguistics, only enough that "Wie oft werden die Achsmuttern geprüft?" finds "Achsmutter ... Prüfung".
"""

from __future__ import annotations

import functools
import re
import unicodedata

WORD = re.compile(r"[^\W_]+(?:[.,'-][^\W_]+)*")
TOKEN = re.compile(r"\s*(?:[^\W_]+|[^\s])")  # a word or one sign, with the white space before it

# Longest first; what remains keeps at least three letters.
SUFFIXES = (
    *("ungen", "ations", "ation", "ingen", "keit", "heit", "isch", "lich"),
    *("ments", "ment", "ness", "ions", "ings", "ung", "ing", "ion", "ern", "est", "ies", "ied"),
    *("en", "er", "em", "es", "ed", "ly", "st", "et", "e", "s", "n", "y", "t"),
)

ENGLISH_WORDS = (
    "a about after all also am an and any are as at be been before both but by can could did do does each every for "
    "from had has have how i if in into is it its just long many may me more most much must my no not of often on "
    "one or our out over should so some such than that the their them then there these they this to too under up "
    "us was we were what when where which who whom why will with would you your please tell give need needs "
    "say says allowed"
)
GERMAN_WORDS = (
    "aber alle als am an auch auf aus bei bin bis da damit dann das dass dein dem den denn der des die dies diese "
    "diesem diesen dieser dieses doch du durch ein eine einem einen einer eines er es etwas für gibt habe haben hat "
    "hier hoch ich ihr ihre im in ist ja jede jeden kann kein keine können lang lange man mein mich mir mit muss "
    "müssen nach nicht noch nur oder oft ohne pro sein sich sie sind so soll um und uns unter viel viele vom von "
    "vor war was welche welchem welchen welcher welches wenn wer werden wie wird wo wofür zu zum zur über bitte "
    "bedeutet heißt"
)
ENGLISH, GERMAN = frozenset(ENGLISH_WORDS.split()), frozenset(GERMAN_WORDS.split())


def fold(text: str) -> str:
    """Return the text in lower case without accents, so that spelling variants meet."""
    folded = unicodedata.normalize("NFKD", text.lower().replace("ß", "ss"))
    return "".join(letter for letter in folded if not unicodedata.combining(letter))


STOP_WORDS = frozenset(fold(word) for word in ENGLISH | GERMAN)


@functools.lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Return the stem of one folded word; numbers and short words stay as they are."""
    if len(word) <= 4 or any(letter.isdigit() for letter in word):
        return word[:-1] if len(word) == 4 and word.endswith("s") and not word.endswith("ss") else word
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def words(text: str) -> list[str]:
    """Return the folded words of a text, hyphenated ones in their parts."""
    return [part for match in WORD.findall(fold(text)) for part in match.split("-") if part]


def terms(text: str) -> list[str]:
    """Return the stems of the words that carry meaning."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


def is_german(text: str) -> bool:
    """Return whether a text has more German function words than English ones."""
    plain = [match.lower() for match in WORD.findall(text)]
    return sum(word in GERMAN for word in plain) > sum(word in ENGLISH for word in plain)


def tokens(text: str) -> list[str]:
    """Return the text in pieces of one word or sign each; joined they are the text again (less trailing space)."""
    return TOKEN.findall(text)
