"""What a large answer says of itself: its small members, found piece by piece.

An answer of thirty megabytes is one text, or many numbers. To decode it, even without keeping anything, takes a fifth
of a second in which nobody else is served; its members beside the large one are some hundred bytes.
"""

from __future__ import annotations

import re

from assistant_gateway.capacity.fairness import Pause
from assistant_gateway.wire.decoding import LARGEST_DECODED

PIECE_BYTES = 8 * 1024
AT_ONCE = 16  # pieces without a pause that are only counted; of others each is a pause's worth
LARGEST_MEMBER = 32 * 1024  # bytes of one that is kept
MOST_MEMBERS = 1000
LONGEST_NAME = 256
DEEPEST = 1000

_TOKEN = re.compile(rb'["{}\[\],:]')
_EMPTY = {b"[": b"[]", b"{": b"{}", b'"': b'""'}
_OPEN, _CLOSED = frozenset(b"{["), frozenset(b"}]")
_QUOTE, _BEGIN, _COMMA = b'"{,'
_NO_BRACKET = bytes(set(range(256)) - set(b"{}[]"))


class _NoObjectError(Exception):
    """It is something else than one JSON object, or none that anybody writes."""


async def outline(raw: bytes | bytearray, pause: Pause) -> bytes:
    """Return a JSON object with its small members as they are, and large ones empty; nothing when it is no object.

    What is inside of the large ones is not looked at.
    """
    reader = _Reader(raw)
    at, plain = 0, 0
    try:
        while at < len(raw):
            piece = bytes(memoryview(raw)[at : at + PIECE_BYTES])
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # its last escape goes on
                piece = bytes(memoryview(raw)[at : at + PIECE_BYTES + 1])
            plain += 1 if reader.feed(piece, at) else AT_ONCE
            at += len(piece)
            if plain >= AT_ONCE:
                plain = 0
                await pause()
        return reader.written()
    except _NoObjectError:
        return b""


class _Reader:
    """Goes through a document, piece by piece."""

    def __init__(self, raw: bytes | bytearray) -> None:
        self._raw = raw
        self._depth = 0
        self._inside = 0  # of a string: 1
        self._name: bytes | None = None
        self._name_at = -1
        self._value_at = -1
        self._ended = False
        self._members: list[bytes] = []
        self._kept = 0

    def feed(self, piece: bytes, at: int) -> bool:
        """Take the next piece; return whether it held nothing of interest, which is found at once."""
        if b"\\" in piece:  # of the same length, so that places stay what they are
            piece = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        if self._inside and b'"' not in piece:
            return True
        if self._depth > 1:
            parts = piece.split(b'"')
            closed, opened = _unmatched(b"".join(parts[self._inside :: 2]))
            if self._depth - closed > 1:
                self._depth += opened - closed
                self._inside = (self._inside + len(parts) - 1) % 2
                if self._depth > DEEPEST:
                    raise _NoObjectError
                return True
        for found in _TOKEN.finditer(piece):
            token = piece[found.start()]
            if token == _QUOTE:
                self._quote(at + found.start())
            elif not self._inside:
                self._mark(token, at + found.start())
        return False

    def _mark(self, token: int, at: int) -> None:
        """Take a mark that stands outside of strings."""
        if self._ended or (not self._depth and token != _BEGIN):
            raise _NoObjectError
        if token in _OPEN:
            self._depth += 1
        elif token in _CLOSED:
            self._depth -= 1
            if not self._depth:
                if self._name is not None or self._value_at >= 0 or self._members:  # else it is `{}`
                    self._end_member(at)
                self._ended = True
        elif self._depth == 1:
            if token == _COMMA:
                self._end_member(at)
            elif self._value_at < 0:
                self._value_at = at + 1

    def _quote(self, at: int) -> None:
        self._inside = 1 - self._inside
        if not self._depth:
            raise _NoObjectError
        if self._depth == 1 and self._value_at < 0:
            if self._inside:
                self._name_at = at + 1
            else:
                self._name = bytes(memoryview(self._raw)[self._name_at : min(at, self._name_at + LONGEST_NAME)])

    def _end_member(self, at: int) -> None:
        """Keep a member, or that it was there."""
        name, begin, self._name, self._value_at = self._name, self._value_at, None, -1
        if name is None or begin < 0 or len(self._members) == MOST_MEMBERS:
            raise _NoObjectError
        size = at - begin
        if size > LARGEST_MEMBER or self._kept + size > LARGEST_DECODED:
            start = bytes(memoryview(self._raw)[begin : begin + 16]).lstrip()[:1]
            value = _EMPTY.get(start, b"null")
        else:
            value = bytes(memoryview(self._raw)[begin:at])
            self._kept += size
        self._members.append(b'"' + name + b'":' + value)

    def written(self) -> bytes:
        """Return what was found.

        Raises:
            _NoObjectError: it has not ended, or something comes after its end.
        """
        if not self._ended:
            raise _NoObjectError
        return b"{" + b",".join(self._members) + b"}"


def _unmatched(outside: bytes) -> tuple[int, int]:
    """Return how many brackets a text closes that it has not opened, and how many it opens that it does not close."""
    left = outside.translate(None, _NO_BRACKET)
    size = -1
    while len(left) != size:
        size = len(left)
        left = left.replace(b"[]", b"").replace(b"{}", b"")
    opened = len(left) - len(left.rstrip(b"[{"))
    closed = len(left) - len(left.lstrip(b"]}"))
    if opened + closed != len(left):
        raise _NoObjectError
    return closed, opened


async def holds(raw: bytes | bytearray, text: bytes, pause: Pause) -> bool:
    """Return whether a short text stands anywhere in a large answer."""
    step = AT_ONCE * PIECE_BYTES
    for at in range(0, len(raw), step):
        if raw.find(text, at, at + step + len(text) - 1) >= 0:
            return True
        await pause()
    return False
