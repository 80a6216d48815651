"""The opaque form of a place in the list of conversations."""

from __future__ import annotations

import base64
import binascii
import struct
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

_FORM = struct.Struct(">Bq16s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


class Place(NamedTuple):
    """Of the last conversation on a page: what the list is ordered by."""

    pinned: bool
    active_at: datetime
    id: UUID


def to_cursor(place: Place) -> str:
    """Return the text form of a place."""
    raw = _FORM.pack(place.pinned, (place.active_at - _EPOCH) // timedelta(microseconds=1), place.id.bytes)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_cursor(cursor: str) -> Place:
    """Return what `to_cursor` was given; ValueError for what cannot be a cursor."""
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"==", altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not a cursor") from error
    if len(raw) != _FORM.size:
        raise ValueError("not a cursor")
    pinned, microseconds, identity = _FORM.unpack(raw)
    # A moment that nobody gave out is before or after everything.
    moment = _EPOCH + timedelta(microseconds=min(max(microseconds, 0), _LATEST))
    return Place(bool(pinned), moment, UUID(bytes=identity))
