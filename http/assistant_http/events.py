"""Server-sent events: where each ends in the bytes of a stream, and what it says.

Source: the HTML standard, section 9.2, "Server-sent events". Lines end with CR, LF or CRLF, mixed as they come; an
empty line ends an event; fields may stand in any order, with comments between them. Only the framing is decoded here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"
# The end of a line, and an empty line. A CR that an LF follows ends one line with it, not two.
_BOUNDARY = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)")


class Frames:
    """Cuts a stream where events end. However the stream was split into pieces, the events are the same."""

    __slots__ = ("_begun", "rest")

    def __init__(self) -> None:
        self.rest = bytearray()  # an event that has not ended
        self._begun = False  # whether the place where a byte order mark may stand is behind

    def whole(self, data: bytes) -> bool:
        """Return whether `data`, coming next, is made of whole events only; most pieces are."""
        return self._begun and not self.rest and data.endswith(b"\n\n")

    def feed(self, data: bytes) -> bytes:
        """Return the whole events that `data` completes, as one block, or nothing.

        Their bytes are unchanged. Where a CR ends a block and its LF comes later, that is found before the next event,
        where it says nothing.
        """
        if self._begun and not self.rest and data.endswith(b"\n\n"):  # as nearly always
            return data
        # Only what is new is searched, so that a large event in small pieces costs no more than its size.
        start = max(0, len(self.rest) - 3)
        self.rest += data
        if not self._begun:
            if len(self.rest) < len(BOM) and BOM.startswith(self.rest):
                return b""
            if self.rest.startswith(BOM):
                del self.rest[: len(BOM)]
            self._begun = True
        end = _last_boundary(self.rest, start)
        block = bytes(memoryview(self.rest)[:end])
        del self.rest[:end]
        return block

    def take(self) -> bytes:
        """Return the beginning of an event that has not ended, and forget it."""
        rest = bytes(self.rest)
        self.rest.clear()
        return rest


def _last_boundary(data: bytearray, start: int) -> int:
    """Return where the last whole event ends, 0 when none ends after `start`."""
    if data.find(b"\r", start) < 0:
        found_at = data.rfind(b"\n\n", start)
        return found_at + 2 if found_at >= 0 else 0
    end = 0
    for found in _BOUNDARY.finditer(data, start):
        end = found.end()
    return end


def split(block: bytes) -> list[bytes]:
    """Return the events of a block of whole events."""
    if b"\r" not in block:
        return [event + b"\n\n" for event in block.split(b"\n\n") if event]
    events, at = [], 0
    for found in _BOUNDARY.finditer(block):
        events.append(block[at : found.end()])
        at = found.end()
    return events


class Event(NamedTuple):
    """What one event says. `data` is None where it has none: then it is no event for anybody."""

    data: bytes | None
    name: bytes = b""  # empty for most: what the standard calls "message"
    comments: tuple[bytes, ...] = ()
    others: tuple[tuple[bytes, bytes], ...] = ()  # fields that the standard does not know

    def written(self) -> bytes:
        """Return it in the form that every reader takes: LF, the data last; comments are events of their own."""
        lines = [b":" + comment + b"\n\n" for comment in self.comments]
        if self.data is not None:
            if self.name not in {b"", b"message"}:
                lines.append(b"event: " + self.name + b"\n")
            lines += [b"data: " + line + b"\n" for line in self.data.split(b"\n")]
            lines.append(b"\n")
        return b"".join(lines)


_KNOWN = frozenset({b"data", b"event", b"id", b"retry"})


def parse(event: bytes) -> Event:
    """Return what an event says, with or without the empty line at its end."""
    data, name, comments, others = [], b"", [], []
    for line in event.splitlines():
        if not line:
            continue
        field, _, value = line.partition(b":")
        if not field:
            comments.append(value)
            continue
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field not in _KNOWN:
            others.append((field, value))
    return Event(b"\n".join(data) if data else None, name, tuple(comments), tuple(others))


def data_of(event: bytes) -> bytes | None:
    """Return the data of one whole event, None where it has none; most have one line and nothing else."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    return parse(event).data
