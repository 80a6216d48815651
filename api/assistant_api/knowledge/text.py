"""One form of a text for documents and for questions, so that what looks the same is found."""

from __future__ import annotations

import re
import unicodedata

# What no store takes, or no reader sees: controls but tab and newline, lone surrogates, non-characters, marks of
# direction, and spaces without width.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ud800-\udfff\ufeff\ufffe\uffff]"
)
# Joiners shape letters of Arabic, Indic scripts and emoji; between others they are noise.
_IDLE_JOINER = re.compile(
    "(?<![\u0600-\u0fff\u1000-\u1cff\u200d\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]"
)
# A search for "office" must find what was set as "oﬃce".
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\u00a0": " ", "\u202f": " "}
)


def normalise(text: str) -> str:
    """Return `text` composed (NFC), with whole ligatures, and without what nobody sees."""
    text = _INVISIBLE.sub("", text)
    if text.isascii():
        return text
    if "\u200c" in text or "\u200d" in text:
        text = _IDLE_JOINER.sub("", text)
    return unicodedata.normalize("NFC", text.translate(_LIGATURES))
