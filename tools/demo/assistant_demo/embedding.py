"""Deterministic embeddings without a model: words and their letter groups, hashed into a unit vector.

Texts that share words, or parts of words (German compounds, inflections), point in similar directions. That is
lexical likeness and no understanding; it is what an offline stand-in can honestly offer.
The signed hashing is the "hashing trick" of Weinberger et al., 2009 (https://arxiv.org/abs/0902.2206).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter

from assistant_demo.text import STOP_WORDS, stem, words

GRAM_LENGTHS = (3, 4, 5)
GRAM_SHARE = 0.6  # weight of all letter groups of a word together, next to 1 for its stem
STOP_WORD_WEIGHT = 0.05


def embed(text: str, dimensions: int) -> list[float]:
    """Return the unit vector of a text; a text without words has a fixed direction of its own."""
    vector = [0.0] * dimensions
    for word, count in Counter(words(text) or [""]).items():
        weight = (STOP_WORD_WEIGHT if word in STOP_WORDS else 1.0) * (1.0 + math.log(count))
        for position, value in _features(word):
            vector[position % dimensions] += value * weight
    length = math.sqrt(sum(value * value for value in vector))
    if length == 0.0:  # features that cancel each other out: rare, and a zero vector has no direction
        vector[0] = length = 1.0
    return [value / length for value in vector]


@functools.lru_cache(maxsize=50_000)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    padded = f"<{word}>"
    grams = [padded[i : i + n] for n in GRAM_LENGTHS for i in range(len(padded) - n + 1)]
    share = math.sqrt(GRAM_SHARE / len(grams)) if grams else 0.0
    return (_hashed(f"w:{stem(word)}", 1.0), *(_hashed(f"g:{gram}", share) for gram in grams))


def _hashed(feature: str, weight: float) -> tuple[int, float]:
    number = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "big")
    return number >> 1, weight if number & 1 else -weight
