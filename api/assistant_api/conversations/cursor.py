"""A position in the list of conversations, and its bytes in a cursor."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

_FORM = struct.Struct(">Bq16s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


class Place(NamedTuple):
    """What the list is ordered by, of the last conversation on a page."""

    pinned: bool
    active_at: datetime
    id: UUID

    def pack(self) -> bytes:
        """Return the bytes of this position in a cursor."""
        return _FORM.pack(self.pinned, (self.active_at - _EPOCH) // timedelta(microseconds=1), self.id.bytes)

    @classmethod
    def unpack(cls, position: bytes) -> Place:
        """Return the position that `pack` was called on; ValueError for bytes of another length."""
        if len(position) != _FORM.size:
            raise ValueError("not a place")
        pinned, microseconds, identity = _FORM.unpack(position)
        # A moment that this API never returned is before or after every conversation.
        moment = _EPOCH + timedelta(microseconds=min(max(microseconds, 0), _LATEST))
        return cls(bool(pinned), moment, UUID(bytes=identity))
