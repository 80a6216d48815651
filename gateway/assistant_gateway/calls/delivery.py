"""Whole answers on their way to clients that may not read them.

An answer counts as running, and its memory as its tenant's, until the client has taken it. One that takes nothing for a
while, or is not done after a longer one, is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

WRITE_SECONDS = 20.0  # in which a client has to take something
DELIVERY_SECONDS = 180.0  # in which it has to take all
PIECE_BYTES = 64 * 1024
_LOOK_SECONDS = (0.005, 0.25)


async def deliver(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """Send an answer, and return when the client has taken all of it.

    Raises:
        ConnectionError: the client is gone, or does not read.
    """
    body = answer.body if isinstance(answer, web.Response) else None
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    if isinstance(body, bytes | bytearray) and len(body) > PIECE_BYTES:
        async with _in_time(transport):
            return await _in_pieces(request, answer, body)
    if transport.get_write_buffer_size():  # of an answer before this one
        async with _in_time(transport):
            return await _at_once(request, answer)
    # Too small to be waited for; uvloop writes at the end of the loop's turn, so it is still there right after this.
    await answer.prepare(request)
    await answer.write_eof()
    return answer


async def _at_once(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    await answer.prepare(request)
    await answer.write_eof()
    if request.transport is not None:
        await _taken(request, request.transport)
    return answer


async def _in_pieces(request: web.Request, answer: web.StreamResponse, body: bytes | bytearray) -> web.StreamResponse:
    """Write a large body piece by piece, each when the one before has gone out: so nothing of it is copied at once."""
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
    sent = web.StreamResponse(status=answer.status, headers=headers)
    sent.content_length = len(body)
    if answer.keep_alive is False:
        sent.force_close()
    await sent.prepare(request)
    view = memoryview(body)
    for at in range(0, len(body), PIECE_BYTES):
        async with asyncio.timeout(WRITE_SECONDS):
            await sent.write(bytes(view[at : at + PIECE_BYTES]))
    await sent.write_eof()
    if request.transport is not None:
        await _taken(request, request.transport)
    return sent


async def _taken(request: web.Request, transport: asyncio.Transport) -> None:
    """Wait until nothing waits in the transport any more."""
    loop, pause = asyncio.get_running_loop(), _LOOK_SECONDS[0]
    await asyncio.sleep(0)  # uvloop writes at the end of the loop's turn
    left, moved = transport.get_write_buffer_size(), loop.time()
    while left and request.transport is not None and not transport.is_closing():
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LOOK_SECONDS[1])
        now = transport.get_write_buffer_size()
        if now < left:
            left, moved = now, loop.time()
        elif loop.time() - moved > WRITE_SECONDS:
            raise TimeoutError


@contextlib.asynccontextmanager
async def _in_time(transport: asyncio.Transport) -> AsyncIterator[None]:
    """Cut the client off when what is inside takes too long."""
    try:
        async with asyncio.timeout(DELIVERY_SECONDS):
            yield
    except TimeoutError:
        transport.abort()
        raise ConnectionResetError("the client does not read") from None
