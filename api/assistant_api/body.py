"""Read a request's body within a size and a time, and within what all bodies at once may take."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from litestar.types import Receive

from assistant_api.asgi import JSON
from assistant_api.decoding import MALFORMED
from assistant_api.disconnect import ClientDisconnectedError
from assistant_api.errors import (
    REQUEST_TIMEOUT,
    REQUEST_TOO_LARGE,
    SERVER_BUSY,
    ApiError,
    content_type_not,
    from_validation,
)

Decoded = TypeVar("Decoded")

READ_TIMEOUT_SECONDS = 30.0
CAPACITY_TIMEOUT_SECONDS = 10.0  # for a place among the bodies that are held
# Bytes of bodies that are held at once until they are answered; what is made of one takes several times as much, and
# the pod has 256 MiB by default. Small bodies have a part of their own, so that they never wait behind large ones.
MAX_SMALL_BODY_BYTES = 32 * 1024
MAX_SMALL_BODIES_BYTES, MAX_LARGE_BODIES_BYTES = 8 << 20, 16 << 20


class ByteCapacity:
    """Room for bodies, given in the order in which it was asked for."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        """Take room for `size` bytes, to be given back; ApiError when there is none for too long."""
        if not self._waiting and size <= self._left:
            self._left -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            async with asyncio.timeout(CAPACITY_TIMEOUT_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(size)  # it came too late
            else:
                self._waiting = deque(each for each in self._waiting if each[1] is not turn)
                self._next()
            if isinstance(error, TimeoutError):
                raise ApiError(SERVER_BUSY, retry_after=1) from error
            raise

    def give(self, size: int) -> None:
        """Give room back."""
        self._left += size
        self._next()

    def _next(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._left -= size
                turn.set_result(None)


class BodyCapacity:
    """Room for all bodies of a process."""

    def __init__(self) -> None:
        self._small, self._large = ByteCapacity(MAX_SMALL_BODIES_BYTES), ByteCapacity(MAX_LARGE_BODIES_BYTES)

    def room(self, headers: Mapping[str, str], limit: int) -> _Room:
        """Hold room for a body of which these are the headers; one of unknown size may have `limit` bytes."""
        announced = headers.get("content-length", "")
        size = min(int(announced), limit) if announced.isdecimal() and len(announced) < 20 else limit
        return _Room(self._small if size <= MAX_SMALL_BODY_BYTES else self._large, size)


class _Room:
    """`async with` holds it."""

    __slots__ = ("_places", "_size")

    def __init__(self, places: ByteCapacity, size: int) -> None:
        self._places, self._size = places, size

    async def __aenter__(self) -> None:
        await self._places.take(self._size)

    async def __aexit__(self, *_exception: object) -> None:
        self._places.give(self._size)


async def read_json_body(headers: Mapping[str, str], receive: Receive, limit: int, *, complete: bool = False) -> bytes:
    """Return the bytes of a JSON body of at most `limit` bytes; a missing content type is taken for JSON.

    `complete` says that all of it has arrived, so that nobody has to look at the clock.
    """
    media_type = headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type != JSON and not media_type.endswith("+json"):
        raise content_type_not(JSON)
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise ApiError(REQUEST_TOO_LARGE, limit=limit)
    if complete:
        return await _read(receive, limit)
    try:
        async with asyncio.timeout(READ_TIMEOUT_SECONDS):
            return await _read(receive, limit)
    except TimeoutError as error:
        raise ApiError(REQUEST_TIMEOUT) from error


async def read_json_as(
    decode: Callable[[bytes], Decoded], headers: Mapping[str, str], receive: Receive, limit: int
) -> Decoded:
    """Return a JSON body of at most `limit` bytes as `decode` understands it; the ApiError names what is wrong."""
    try:
        return decode(await read_json_body(headers, receive, limit))
    except MALFORMED as error:
        raise from_validation(error) from error


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnectedError
        parts.append(part := message["body"])
        if (left := left - len(part)) < 0:
            raise ApiError(REQUEST_TOO_LARGE, limit=limit)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
