"""Server-sent events on their way through: found, counted and passed on as the bytes they are.

Nothing is decoded and encoded again. Only whole events are passed on, so that an error event can follow at any
point without landing in the middle of another; and only the event that carries usage is looked into.
"""

from __future__ import annotations

import re
from collections import deque

import msgspec

from assistant_gateway.decoding import UNREADABLE, is_filled_array
from assistant_gateway.generated import Generated
from assistant_gateway.usage import SEEN, Usage, chunk_of, merge

DONE = b"data: [DONE]\n\n"
_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
_ERROR = re.compile(rb'(?m)^data: ?\{\s*"error"\s*:\s*[{"]')


# Statements of usage that are kept of one stream, from its start and from its end. Most streams have one; those that
# have one in every event send running totals.
_KEPT = 4
_LARGEST_KEPT = 4096  # bytes of such an event


class TooLargeError(Exception):
    """One event is larger than the limit."""


def _last_boundary(data: bytearray, start: int) -> int:
    """Return where the last whole event ends, 0 when none ends at or after `start`."""
    found = ((data.rfind(mark, start), len(mark)) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r"))
    return max((at + length for at, length in found if at >= 0), default=0)


def data_of(event: bytes) -> bytes:
    """Return the data of one event, its `data:` lines joined."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


class _Chunk(msgspec.Struct, frozen=True):
    choices: msgspec.Raw = msgspec.Raw(b"null")  # msgspec takes no union with Raw
    usage: msgspec.Raw = msgspec.Raw(b"null")


_chunk = msgspec.json.Decoder(_Chunk)


def _said(event: bytes) -> Usage | None:
    chunk = chunk_of(data_of(event))
    return chunk.reported() if chunk is not None else None


class EventRelay:
    """The state of one stream. `feed` takes bytes as they arrive and returns those that may go on."""

    def __init__(self, *, keep_usage: bool, secret: bytes | None, limit: int) -> None:
        self._keep_usage = keep_usage  # whether the client asked for the event that carries usage
        self._secret = secret
        self._limit = limit
        self._rest = bytearray()  # an event that has not ended
        self._last = b""  # the last two blocks: what tells a finished answer from a broken one
        self._before_last = b""
        self._first_said: list[bytes | Usage | None] = []
        self._last_said: deque[bytes | Usage | None] = deque(maxlen=_KEPT)
        self.generated = Generated()

    @property
    def kept(self) -> int:
        """Bytes of an event that has not ended."""
        return len(self._rest)

    def whole(self, data: bytes) -> bool:
        """Whether `data` is made of whole events only."""
        return not self._rest and data.endswith(b"\n\n")

    def feed(self, data: bytes) -> bytes:
        """Return the whole events that `data` completes, as one block, or nothing.

        Raises:
            TooLargeError: an event does not end.
        """
        if self.whole(data):
            return self._pass(data)
        # Only what is new is searched, so that a large event in small pieces costs no more than its size.
        start = max(0, len(self._rest) - 3)
        self._rest += data
        end = _last_boundary(self._rest, start)
        block = bytes(memoryview(self._rest)[:end])
        del self._rest[:end]
        if len(self._rest) > self._limit:
            raise TooLargeError("sent an event that does not end")
        return self._pass(block) if block else b""

    def finish(self) -> bytes:
        """Return what may still go on when the provider has ended the stream: an event without its blank line."""
        rest = bytes(self._rest).strip(b"\r\n")
        self._rest.clear()
        if not rest or rest.startswith(b":"):
            return b""
        data = data_of(rest)
        if data != b"[DONE]":
            try:
                msgspec.json.decode(data, type=msgspec.Raw)
            except UNREADABLE:
                return b""
        return self._pass(rest + b"\n\n")

    @property
    def done(self) -> bool:
        """Whether the provider has said that this was all."""
        return b"data: [DONE]" in self._last or b"data:[DONE]" in self._last

    @property
    def finished(self) -> bool:
        """Whether the answer is whole, with or without the provider saying so."""
        return bool(_FINISH.search(self._last) or _FINISH.search(self._before_last))

    @property
    def failed(self) -> bool:
        """Whether the last thing the provider sent was an error."""
        return bool(_ERROR.search(self._last) or _ERROR.search(self._before_last))

    @property
    def usage(self) -> Usage | None:
        """What the provider has said so far of what the call used."""
        found = None
        for said in (*self._first_said, *self._last_said):
            found = merge(found, _said(said) if isinstance(said, bytes) else said)
        return found

    def _pass(self, block: bytes) -> bytes:
        self._before_last, self._last = self._last, block
        self.generated.add(block)
        if self._secret is not None and self._secret in block:
            block = block.replace(self._secret, b"***")
        if SEEN.search(block):
            block = self._take_usage(block)
        return block

    def _take_usage(self, block: bytes) -> bytes:
        """Note the usage in a block of events; leave the event out that a client did not ask for."""
        kept = []
        at = 0
        while at < len(block):
            boundary = _BOUNDARY.search(block, at)
            end = boundary.end() if boundary else len(block)
            event, at = block[at:end], end
            if SEEN.search(event) and not self._note_usage(event):
                continue
            kept.append(event)
        return b"".join(kept)

    def _note_usage(self, event: bytes) -> bool:
        """Return whether the event goes on."""
        kept = self._first_said if len(self._first_said) < _KEPT else self._last_said
        # Most are never looked into; a large one is at once, so that what is kept of a stream stays small.
        kept.append(event if len(event) <= _LARGEST_KEPT else _said(event))
        if self._keep_usage:
            return True
        try:
            chunk = _chunk.decode(data_of(event))
        except UNREADABLE:
            return True
        return is_filled_array(chunk.choices) or bytes(chunk.usage) == b"null"
