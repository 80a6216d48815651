"""How many values a large body holds, counted before anything is decoded.

A body of ten megabytes may be ten megabytes of text, which costs nothing, or three million empty objects, which cost
half a gigabyte and a second once they are decoded. So what stands outside of strings is counted first, piece by piece,
and between two pieces others have their turn on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from assistant_gateway.capacity.fairness import Pause, next_round
from assistant_gateway.errors import GatewayError
from assistant_gateway.wire.decoding import LARGEST_DECODED

PIECE_BYTES = 64 * 1024  # a millisecond or two at worst
MOST_OBJECTS = 50_000  # and arrays; of a body that is larger than `LARGEST_DECODED`
MOST_MEMBERS = 50_000
MOST_VALUES = 400_000  # in arrays: OpenAI takes 300,000 tokens as numbers in one request for embeddings
MOST_ESCAPES = 2_000_000  # of characters in strings: text may be sent as UTF-8

_OUTSIDE = bytes(set(range(256)) - set(b"{[:,"))


async def check(raw: bytes | bytearray, pause: Pause = next_round) -> None:
    """Refuse a body that has too many values for its gateway; `pause` lets others have their turn.

    Raises:
        GatewayError: 413, saying of what there are too many.
    """
    if len(raw) <= LARGEST_DECODED:
        return
    objects = members = values = 0
    async for outside, escapes in structure(raw, pause):
        objects += outside.count(b"{") + outside.count(b"[")
        members += outside.count(b":")
        values += outside.count(b",")
        for what, found, most in (
            ("objects and arrays", objects, MOST_OBJECTS),
            ("members", members, MOST_MEMBERS),
            ("values", values, MOST_VALUES),
            ("escaped characters (send them as UTF-8)", escapes, MOST_ESCAPES),
        ):
            if found > most:
                raise GatewayError(413, "request_too_complex", f"The body holds more than {most:,} {what}.")


async def structure(
    raw: bytes | bytearray | msgspec.Raw, pause: Pause = next_round
) -> AsyncIterator[tuple[bytes, int]]:
    """Yield braces, brackets, colons and commas outside of strings, and how many escapes there were so far.

    Of valid JSON; a brace inside of a text is none.
    """
    view = memoryview(raw)
    at, inside, escapes = 0, 0, 0
    while at < len(view):
        end = min(at + PIECE_BYTES, len(view))
        piece = bytes(view[at:end])
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # its last escape goes on
            piece = bytes(view[at : end + 1])
        at += len(piece)
        if b"\\" in piece:
            escapes += piece.count(b"\\")
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        outside = b"".join(parts[inside::2])
        inside = (inside + len(parts) - 1) % 2
        yield outside.translate(None, _OUTSIDE), escapes
        if at < len(view):
            await pause()
