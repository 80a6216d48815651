"""Large bodies are counted before they are decoded, and others have their turn meanwhile."""

from __future__ import annotations

import asyncio
import json

import pytest

from assistant_gateway import shape
from assistant_gateway.errors import GatewayError

LARGE = 300_000  # bytes


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"[" + b"{}," * LARGE + b"0]", "objects"),
        (b"[" * LARGE, "objects"),
        (b"{" + b'"":0,' * LARGE + b'"":0}', "members"),
        (b"[" + b"0," * 2 * LARGE + b"0]", "values"),
        (b'["' + b"\\n" * 8 * LARGE + b'"]', "escaped"),
    ],
)
async def test_too_many_values_are_refused(body: bytes, what: str) -> None:
    """The client hears what there is too much of."""
    with pytest.raises(GatewayError) as raised:
        await shape.check(body)
    assert raised.value.status == 413
    assert what in raised.value.message


@pytest.mark.parametrize("text", ["{[:," * LARGE, '"{\\"[\\\\' * (LARGE // 5), "\\" * LARGE, "é" * LARGE])
async def test_what_stands_in_a_text_is_no_value(text: str) -> None:
    """Code in a message is text, whatever brackets and quotes are in it."""
    for size in (shape.PIECE_BYTES, 7919):
        before, shape.PIECE_BYTES = shape.PIECE_BYTES, size
        try:
            await shape.check(json.dumps([{"content": text}], ensure_ascii=False).encode())
        finally:
            shape.PIECE_BYTES = before


async def test_others_have_their_turn() -> None:
    """Between two pieces of a large body the event loop goes round."""
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await shape.check(b'"' + b"a" * 40 * shape.PIECE_BYTES + b'"')
    counting.cancel()
    assert rounds >= 40
