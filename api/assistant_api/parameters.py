"""Parameters of paths and queries that several rooms take in the same way: page sizes, cursors, ids."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from assistant_api.errors import ApiError, Kind, invalid_field

MAX_PAGE = 100  # entries
Position = TypeVar("Position")


def check_limit(limit: int, most: int = MAX_PAGE) -> None:
    """Refuse a page of more than `most` entries, or of none; ApiError names the field `limit`."""
    if not 1 <= limit <= most:
        raise invalid_field("limit", "range", low="1", high=str(most))


def to_cursor(position: bytes) -> str:
    """Return a position in a list as the opaque text of a cursor: base64url without padding."""
    return base64.urlsafe_b64encode(position).rstrip(b"=").decode()


def from_cursor(cursor: str | None, unpack: Callable[[bytes], Position]) -> Position | None:
    """Return the position that a request's cursor names; None without a cursor, for the first page.

    `unpack` raises ValueError for bytes that are no position of its list; the ApiError names the field `cursor`.
    """
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return unpack(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise invalid_field("cursor", "value") from error


def pack_sequence(sequence: int) -> bytes:
    """Return the position of a row in a list that is ordered by a sequence number of 63 bits."""
    return sequence.to_bytes(8, "big")


def unpack_sequence(position: bytes) -> int:
    """Return what `pack_sequence` was given; ValueError for other bytes."""
    if len(position) != 8 or position[0] > 0x7F:
        raise ValueError("not a sequence number")
    return int.from_bytes(position, "big")


def identifier(text: str, missing: Kind) -> UUID:
    """Return an object's id; text that cannot be one is the id of no object, so the ApiError is `missing`."""
    try:
        return UUID(text)
    except ValueError as error:
        raise ApiError(missing) from error
