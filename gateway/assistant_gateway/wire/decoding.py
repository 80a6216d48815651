"""What may be decoded into objects: little, whoever wrote it.

JSON becomes objects that take thirty times its bytes (`{}` is 64), so what a tenant or a tenant's own server wrote is
decoded only up to a size, and a document that is nested too deeply is as unreadable as one with a syntax error.
"""

from __future__ import annotations

import re

import msgspec

LARGEST_DECODED = 128 * 1024  # bytes of JSON: no more than a few milliseconds and 4 MiB of objects
# What decoding raises for bytes that are no JSON, no UTF-8, or nested deeper than the decoder goes.
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)

LONGEST_SHORT = 64  # bytes of a value that is compared with others
_NULL = frozenset({b"null"})

_ARRAY = re.compile(rb"\s*\[")
_FILLED = re.compile(rb"\s*\[\s*[^\s\]]")


def is_absent(raw: bytes | msgspec.Raw | None) -> bool:
    """Return whether a member is not there, or null; a large one is not copied for that."""
    return raw is None or is_one_of(raw, _NULL)


def is_one_of(raw: bytes | msgspec.Raw, few: frozenset[bytes]) -> bool:
    """Return whether JSON is one of a few short values; a large one is not copied for that."""
    return len(memoryview(raw)) <= LONGEST_SHORT and bytes(raw) in few


def is_filled_array(raw: bytes | msgspec.Raw) -> bool:
    """Return whether valid JSON is an array with at least one item; nothing is decoded."""
    return _FILLED.match(memoryview(raw)) is not None


def is_array(raw: bytes | msgspec.Raw) -> bool:
    """Return whether valid JSON is an array."""
    return _ARRAY.match(memoryview(raw)) is not None
