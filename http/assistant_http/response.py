"""An answer: what is known of it at once, and its body as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from assistant_http.errors import HttpError

MAX_RESPONSE_BYTES = 32 * 1024 * 1024  # of one that is read as a whole


Sink: TypeAlias = Callable[[bytes], bool]


class Response(Protocol):
    """An answer whose body has not been read yet. It has to be read to its end, or closed."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """HTTP headers, their names in lower case."""

    @property
    def complete(self) -> bool:
        """Whether all of it is here, so that nobody has to wait."""

    async def next(self, sink: Sink | None = None) -> bytes:
        """Return what has arrived and was not read yet, at least one byte; b"" at the end.

        Args:
            straight: is offered what arrives meanwhile and says whether it took it; then the wait goes on. It runs
                where the bytes arrive, so it may not raise. An answer may never ask it.

        Raises:
            HttpError: the connection was lost before the end, or nothing arrived for too long.
        """

    def fail(self, error: Exception) -> None:
        """Give up what has not arrived yet, and let whoever reads hear of it."""

    def close(self) -> None:
        """Give up what has not arrived yet."""


class _Connection(Protocol):
    def resume(self, response: ClientResponse) -> None: ...

    def abort(self, error: Exception) -> None: ...


class ClientResponse:
    """An answer as it arrives; see `Response`."""

    __slots__ = ("_sink", "_waiter", "connection", "error", "headers", "parts", "paused", "status", "unread_bytes")

    def __init__(self, status: int, headers: Mapping[str, str], connection: _Connection) -> None:
        self.status = status
        self.headers = headers
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        # The connection's side.
        self.connection: _Connection | None = connection  # None: the whole answer is here, or it was given up
        self.error: Exception | None = None
        self.parts: list[bytes] = []
        self.unread_bytes = 0
        self.paused = False  # the server has to wait for the reader

    @property
    def complete(self) -> bool:
        """See `Response.complete`."""
        return self.connection is None

    async def next(self, sink: Sink | None = None) -> bytes:
        """See `Response.next`."""
        if not self.parts and self.connection is not None:
            self._waiter, self._sink = asyncio.get_running_loop().create_future(), sink
            try:
                await self._waiter
            finally:
                self._sink = None
        if parts := self.parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self._consumed()
            return data
        if self.error is not None:
            raise self.error
        return b""

    async def read(self) -> bytes:
        """Return all that was not read yet.

        Raises:
            HttpError: as `next`, or it is larger than any sane answer.
        """
        parts: list[bytes] = []
        size = 0
        while part := await self.next():
            size += len(part)
            if size > MAX_RESPONSE_BYTES:
                self.close()
                raise HttpError("the answer is too large")
            parts.append(part)
        return b"".join(parts)

    def fail(self, error: Exception) -> None:
        """See `Response.fail`: the connection is dropped."""
        if self.connection is not None:
            self.connection.abort(error)

    def close(self) -> None:
        """See `Response.close`: the connection is dropped."""
        self.fail(HttpError("closed"))

    def arrived(self) -> None:
        """Hand on what is there, or wake the reader."""
        sink, parts = self._sink, self.parts
        if sink is None or not sink(parts[0] if len(parts) == 1 else b"".join(parts)):
            self._wake()
        elif self.paused:
            self._consumed()
        else:
            parts.clear()
            self.unread_bytes = 0

    def _consumed(self) -> None:
        self.parts.clear()
        self.unread_bytes = 0
        if self.paused and self.connection is not None:
            self.connection.resume(self)

    def _wake(self) -> None:
        self._sink = None  # what comes before the reader has woken up has to wait in line
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, error: Exception | None = None) -> None:
        """Note that nothing more will come, and wake the reader."""
        self.connection = None
        self.error = error
        self._wake()
