"""Large bodies are counted before they are decoded, and others have their turn meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
import tracemalloc

import gateway_hostile
import pytest

from assistant_gateway.calls import payload
from assistant_gateway.errors import GatewayError
from assistant_gateway.metering.bounds import bound_of
from assistant_gateway.wire import shape

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


CHATS = gateway_hostile.bodies("m")
INPUTS = gateway_hostile.embedding_bodies("m")


async def looked_at(raw: bytes, *, embedding: bool) -> None:
    """Do what the gateway does with a body before it asks a provider."""
    with contextlib.suppress(GatewayError):
        await shape.check(raw)
        body = payload.parse(raw, "input" if embedding else "messages")
        await asyncio.sleep(0)
        if not embedding:
            payload.chat(body)
        await asyncio.sleep(0)
        await bound_of(body.fields, "gpt-4o", embedding=embedding)


@pytest.mark.parametrize(
    ("raw", "embedding"),
    [*((raw, False) for raw in CHATS.values()), *((raw, True) for raw in INPUTS.values())],
    ids=[*CHATS, *(f"input: {name}" for name in INPUTS)],
)
async def test_no_body_holds_the_event_loop_or_takes_many_times_its_bytes(raw: bytes, embedding: bool) -> None:
    """The worst bodies of ten megabytes: the loop goes round meanwhile, and little more is in memory than they are."""
    longest, before = 0.0, time.thread_time()

    async def watch() -> None:
        nonlocal longest, before
        while True:
            now = time.thread_time()  # of this thread alone: other processes do not count
            longest, before = max(longest, now - before), now
            await asyncio.sleep(0)

    gc.disable()  # what other tests have left is not looked through meanwhile
    try:
        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await looked_at(raw, embedding=embedding)
        await asyncio.sleep(0)
        watching.cancel()
    finally:
        gc.enable()
    assert longest < 0.1, "twenty milliseconds on a machine that is not busy; it was more than a second"
    tracemalloc.start()
    try:
        await looked_at(raw, embedding=embedding)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * len(raw)
    finally:
        tracemalloc.stop()
