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

_ARRAY = re.compile(rb"\s*\[")
_FILLED = re.compile(rb"\s*\[\s*[^\s\]]")


def is_filled_array(raw: bytes | msgspec.Raw) -> bool:
    """Return whether valid JSON is an array with at least one item; nothing is decoded."""
    return _FILLED.match(memoryview(raw)) is not None


def is_array(raw: bytes | msgspec.Raw) -> bool:
    """Return whether valid JSON is an array."""
    return _ARRAY.match(memoryview(raw)) is not None
