"""A small HTTP/1.1 client: kept-alive connections, and answers that are read as they arrive.

It does what the road to the gateway needs and no more: no redirects, cookies, compression or proxies. One arrival of
bytes costs one call of the parser and one wake-up of the reader; a general client costs several times that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import cast
from urllib.parse import urlsplit

import httptools

MAX_HEAD = 64 * 1024
MAX_ANSWER = 32 * 1024 * 1024  # of one that is read as a whole
# So many bytes may wait to be read; then the server has to wait until its reader has caught up.
MAX_UNREAD = 128 * 1024
_UNSAFE = re.compile(r"[\r\n\0]")


class HttpError(Exception):
    """The exchange failed. The sentence says why in words that hold no address."""


class NotConnectedError(HttpError):
    """No connection was made, so nothing was sent."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections lead, and what its URL puts before every path."""

    host: str
    port: int
    secure: bool
    authority: str
    prefix: str


@lru_cache(maxsize=16)
def origin_of(url: str) -> Origin:
    """Return the origin of a URL; HttpError when it is none of HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise HttpError("not an HTTP URL")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    return Origin(parts.hostname, port, secure, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"))


class Response:
    """An answer; `headers` have names in lower case. It has to be read to its end, or closed."""

    __slots__ = ("_waiter", "connection", "error", "headers", "held", "parts", "status", "unread")

    def __init__(self, status: int, headers: Mapping[str, str], connection: _Connection) -> None:
        self.status = status
        self.headers = headers
        self._waiter: asyncio.Future[None] | None = None
        # The connection's side.
        self.connection: _Connection | None = connection  # None: the whole answer is here, or it was given up
        self.error: HttpError | None = None
        self.parts: list[bytes] = []
        self.unread = 0
        self.held = False  # the server has to wait for the reader

    async def next(self) -> bytes:
        """Return what has arrived and was not read yet, at least one byte; b"" at the end.

        Raises:
            HttpError: the connection was lost before the end, or nothing arrived for too long.
        """
        if not self.parts and self.connection is not None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.parts:
            data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
            self.parts.clear()
            self.unread = 0
            if self.held and self.connection is not None:
                self.connection.go_on(self)
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
            if size > MAX_ANSWER:
                self.close()
                raise HttpError("the answer is too large")
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Give up what has not arrived yet: the connection is dropped."""
        if self.connection is not None:
            self.connection.drop(HttpError("closed"))

    def arrived(self) -> None:
        """Wake the reader."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, error: HttpError | None = None) -> None:
        """Note that nothing more will come, and wake the reader."""
        self.connection = None
        self.error = error
        self.arrived()


class _Connection(asyncio.Protocol):
    """One connection; it carries one exchange at a time, and lies in `idle` between them."""

    def __init__(self, client: HttpClient, idle: list[_Connection]) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._idle = idle
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._head: asyncio.Future[Response] | None = None  # whoever waits for the answer to begin
        self._response: Response | None = None  # the answer that is arriving
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._reusable = False
        self._ended = False
        self._moved = self._loop.time()  # when something last happened
        self._timer: asyncio.TimerHandle | None = None  # runs from the first request on

    async def ask(self, head: bytes, body: bytes) -> Response:
        """Send a request; return when the answer's head is there."""
        self._moved = self._loop.time()
        self._ended = False
        self._head_size = 0
        waiter: asyncio.Future[Response] = self._loop.create_future()
        self._head = waiter
        if self._timer is None:
            self._timer = self._loop.call_later(min(self._client.idle_seconds, self._client.quiet_seconds), self._look)
        self._transport.writelines((head, body))
        try:
            return await waiter
        except asyncio.CancelledError:  # whoever asked does not wait any more
            # The answer may have come in the same turn of the loop; the connection is then another's already.
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().close()
            else:
                self.drop(HttpError("closed"))
            raise

    def usable(self) -> bool:
        """Whether an idle connection may carry another exchange; a stale one is dropped."""
        if self._transport.is_closing():
            return False
        if self._loop.time() - self._moved < self._client.idle_seconds:
            return True
        self._transport.abort()
        return False

    def go_on(self, response: Response) -> None:
        """Let the server send on, after its reader was slow."""
        response.held = False
        self._moved = self._loop.time()
        self._transport.resume_reading()

    def drop(self, error: HttpError) -> None:
        """End the connection and the exchange on it."""
        self._transport.abort()
        self._fail(error)

    # --- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._client.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is under way: an answer whose end nobody announced cannot be told from one that was cut."""
        if self._timer is not None:
            self._timer.cancel()
        self._client.connections.discard(self)
        if self in self._idle:
            self._idle.remove(self)
        self._fail(HttpError(type(exc).__name__ if exc else "connection closed"))

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, then wake whoever waits for it: once, however many pieces it has."""
        if self._head is None and self._response is None:  # nobody asked
            self._transport.abort()
            return
        self._moved = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.drop(HttpError(type(error).__name__))
            return
        response = self._response
        if response is None:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self.drop(HttpError("endless head"))
            return
        if self._head is not None:
            if not self._head.done():
                self._head.set_result(response)
            self._head = None
        if self._ended:
            self._finish(response)
        elif response.parts:  # not only a part of the framing
            response.arrived()

    # --- httptools' callbacks --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A second answer to one request: whatever comes, the connection cannot be trusted any more."""
        if self._ended:
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin the answer; an interim one (1xx) says nothing."""
        fields, self._fields = self._fields, []
        status = self._parser.get_status_code()
        if status < 200 or self._ended:
            return
        headers: dict[str, str] = {}
        for raw, value in fields:
            name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        self._reusable = self._parser.should_keep_alive()
        self._response = Response(status, headers, self)

    def on_body(self, body: bytes) -> None:
        """Keep the bytes for their reader; hold the server back while it is behind."""
        response = self._response
        if response is None or self._ended:
            return
        response.parts.append(body)
        response.unread += len(body)
        if response.unread > MAX_UNREAD and not response.held:
            response.held = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Note the end."""
        if self._response is not None:
            self._ended = True

    # -----------------------------------------------------------------------------------------------------------------

    def _finish(self, response: Response) -> None:
        self._response = None
        if self._reusable and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            if response.held:
                self.go_on(response)
            self._idle.append(self)
        else:
            self._transport.abort()
        response.end()

    def _fail(self, error: HttpError) -> None:
        head, self._head = self._head, None
        response, self._response = self._response, None
        if head is not None and not head.done():
            head.set_exception(error)
        if response is not None:
            response.end(error)

    def _look(self) -> None:
        """End what has been idle or quiet for too long. One timer for a connection's life: none to move per request."""
        busy = self._head is not None or self._response is not None
        if self._response is not None and self._response.held:
            self._moved = self._loop.time()  # its reader is slow, not the server
        limit = self._client.quiet_seconds if busy else self._client.idle_seconds
        left = self._moved + limit - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(min(left, self._client.idle_seconds), self._look)
        else:
            self.drop(HttpError("timed out"))


class HttpClient:
    """A pool of connections without a limit.

    `connect_seconds` bound the making of a connection; one that was idle for `idle_seconds` is not used again; an
    answer of which nothing arrives for `quiet_seconds` is given up.
    """

    def __init__(self, *, connect_seconds: float, idle_seconds: float, quiet_seconds: float) -> None:
        self.connect_seconds = connect_seconds
        self.idle_seconds = idle_seconds
        self.quiet_seconds = quiet_seconds
        self.connections: set[_Connection] = set()
        self._idle: dict[Origin, list[_Connection]] = {}

    async def request(self, method: str, url: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Ask `url` for `path` (with its query); return when the status line and the headers are there.

        Raises:
            NotConnectedError: nothing was sent.
            HttpError: connecting took too long, the connection was lost, nothing came for too long, or it was no HTTP.
        """
        origin = origin_of(url)
        lines = [f"{method} {origin.prefix}{path} HTTP/1.1\r\nhost: {origin.authority}\r\n"]
        for name, value in headers.items():
            if _UNSAFE.search(value):
                raise HttpError(f"a line end in the header {name}")
            lines.append(f"{name}: {value}\r\n")
        lines.append(f"content-length: {len(body)}\r\n\r\n")
        head = "".join(lines).encode()
        idle = self._idle.setdefault(origin, [])
        while idle:
            connection = idle.pop()
            if connection.usable():
                return await connection.ask(head, body)
        return await (await self._connect(origin, idle)).ask(head, body)

    async def close(self) -> None:
        """Close every connection; what is under way fails."""
        for connection in list(self.connections):
            connection.drop(HttpError("closed"))

    async def _connect(self, origin: Origin, idle: list[_Connection]) -> _Connection:
        try:
            async with asyncio.timeout(self.connect_seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self, idle),
                    origin.host,
                    origin.port,
                    ssl=True if origin.secure else None,
                )
        except TimeoutError as error:
            raise HttpError("timed out") from error
        except OSError as error:
            raise NotConnectedError(type(error).__name__) from error
        return connection
