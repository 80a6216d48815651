"""The bodies of requests: room for them is taken before they are read."""

from __future__ import annotations

import asyncio

from aiohttp import web

from assistant_gateway import errors
from assistant_gateway.capacity.fairness import Pause, next_round
from assistant_gateway.capacity.memory import LEASE, REQUEST_BYTES, Lease, Memory
from assistant_gateway.errors import GatewayError
from assistant_gateway.wire import shape

REQUEST_SECONDS = 60.0  # for the client to send its body
FIRST_BYTES = 64 * 1024  # of a body whose length nobody has said; as it grows, so does its lease


async def read(
    request: web.Request, memory: Memory, tenant: str, largest: int, pause: Pause = next_round
) -> bytes | bytearray:
    """Return a request's body; what it takes is charged to the tenant until the request's lease is released.

    A large one is read, and looked at, in pieces; between two of them `pause` lets others have their turn.

    Raises:
        GatewayError: 413 for more than `largest` bytes, 415 for a compressed one, 408 for one that does not come, 429
            or 503 when there is no room for it.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        message = "The gateway takes bodies as they are: send it without a Content-Encoding."
        raise GatewayError(415, "unsupported_content_encoding", message)
    length = request.content_length
    if length is not None and length > largest:
        raise _too_large(largest)
    # A body is there twice: as it came, and as it goes to the provider.
    lease = await memory.lease(tenant, REQUEST_BYTES + 2 * (FIRST_BYTES if length is None else length))
    request[LEASE] = lease
    if length is not None and request.content.is_eof():  # most bodies come with their head
        body = await request.read()
        await shape.check(body, pause)
        return body
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            found = await _pieces(request, lease, largest, pause)
            await shape.check(found, pause)
            return found
    except TimeoutError:
        raise GatewayError(408, "request_timeout", "The body did not arrive in time.") from None


async def _pieces(request: web.Request, lease: Lease, largest: int, pause: Pause) -> bytes | bytearray:
    body = b""
    grown: bytearray | None = None  # of more than one piece: nothing is there twice
    size = 0
    while part := await request.content.readany():
        size += len(part)
        if size > largest:
            raise _too_large(largest)
        if (more := REQUEST_BYTES + 2 * size - lease.held) > 0:
            await lease.grow(max(more, min(lease.held, 2 * (largest - size))))
        if not body:
            body = part
            continue
        if size > FIRST_BYTES:
            await pause()  # meanwhile the client has to wait
        if grown is None:
            grown = bytearray(body)
        grown += part
    return body if grown is None else grown


def _too_large(largest: int) -> GatewayError:
    return errors.request_too_large(largest)
