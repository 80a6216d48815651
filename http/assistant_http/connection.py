"""One connection to a server, from httptools' callbacks to whoever waits for the answer."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

from assistant_http.addresses import Origin
from assistant_http.errors import HeadTimeoutError, HttpError, NotHttpError, StaleConnectionError
from assistant_http.response import ClientResponse

MAX_HEAD_BYTES = 64 * 1024
# So many bytes may wait to be read; then the server has to wait until its reader has caught up.
MAX_UNREAD_BYTES = 128 * 1024


class Pool(Protocol):
    """What a connection needs of the client that it belongs to."""

    idle_seconds: float
    quiet_seconds: float
    connections: set[Connection]

    def release(self, connection: Connection) -> None:
        """Have a connection carry another exchange later."""

    def discard(self, connection: Connection) -> None:
        """Know no more of a connection that is gone."""


class Connection(asyncio.Protocol):
    """One connection; it carries one exchange at a time, and lies in its pool between them."""

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self.origin = origin
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._head: asyncio.Future[ClientResponse] | None = None  # of the caller that waits for the answer to begin
        self._response: ClientResponse | None = None  # the answer that is arriving
        self._fields: list[tuple[bytes, bytes]] = []
        self._framing_bytes = 0  # bytes in a row that belong to no body
        self._exchanges = 0  # how many requests it has carried
        self._no_bytes_yet = True  # nothing has come since the last one
        self._until_closed = False  # the answer ends with the connection
        self._reusable = False
        self._ended = False
        self._last_activity = self._loop.time()  # when something last happened
        self._timer: asyncio.TimerHandle | None = None  # runs from the first request on

    async def exchange(self, head: bytes, body: bytes, seconds: float | None = None) -> ClientResponse:
        """Send a request; return when the answer's head is there, which has to be within so many seconds."""
        self._last_activity = self._loop.time()
        self._ended = False
        self._framing_bytes = 0
        self._exchanges += 1
        self._no_bytes_yet = True
        waiter: asyncio.Future[ClientResponse] = self._loop.create_future()
        self._head = waiter
        if self._timer is None:
            self._timer = self._loop.call_later(
                min(self._pool.idle_seconds, self._pool.quiet_seconds), self._check_timeouts
            )
        self._transport.writelines((head, body))
        late = None if seconds is None else self._loop.call_later(seconds, self._fail_late_head, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:  # whoever asked does not wait any more
            # The answer may have come in the same turn of the loop; the connection is then another's already.
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().close()
            else:
                self.abort(HttpError("closed"))
            raise
        finally:
            if late is not None:
                late.cancel()

    def usable(self) -> bool:
        """Whether an idle connection may carry another exchange; a stale one is dropped."""
        if self._transport.is_closing():
            return False
        if self._loop.time() - self._last_activity < self._pool.idle_seconds:
            return True
        self._transport.abort()
        return False

    def resume(self, response: ClientResponse) -> None:
        """Let the server send on, after its reader was slow."""
        response.paused = False
        self._last_activity = self._loop.time()
        self._transport.resume_reading()

    def abort(self, error: Exception) -> None:
        """End the connection and the exchange on it."""
        self._transport.abort()
        self._fail(error)

    # --- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._pool.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is under way, unless it is an answer of which nobody said where it ends (RFC 9112, 6.3)."""
        if self._timer is not None:
            self._timer.cancel()
        self._pool.discard(self)
        if self._until_closed and self._response is not None and exc is None:
            response, self._response = self._response, None
            response.end()
            return
        stale = self._no_bytes_yet and self._exchanges > 1
        why = type(exc).__name__ if exc else "connection closed"
        self._fail(StaleConnectionError(why) if stale else HttpError(why))

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, then wake whoever waits for it: once, however many pieces it has."""
        if self._head is None and self._response is None:  # nobody asked
            self._transport.abort()
            return
        self._last_activity = self._loop.time()
        self._no_bytes_yet = False
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.abort(NotHttpError(type(error).__name__))
            return
        if self._framing_bytes > MAX_HEAD_BYTES:
            self.abort(NotHttpError("endless head or trailer"))
            return
        response = self._response
        if response is None:
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
        self._fields = []  # the last answer's trailer is no header of this one
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
        coding = headers.get("transfer-encoding", "").lower()  # names of codings have no case (RFC 9112, 7)
        self._until_closed = "content-length" not in headers and "chunked" not in coding
        self._framing_bytes = 0
        self._response = ClientResponse(status, headers, self)

    def on_body(self, body: bytes) -> None:
        """Keep the bytes for their reader; hold the server back while it is behind."""
        response = self._response
        if response is None or self._ended:
            return
        self._framing_bytes = 0
        response.parts.append(body)
        response.unread_bytes += len(body)
        if response.unread_bytes > MAX_UNREAD_BYTES and not response.paused:
            response.paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Note the end."""
        if self._response is not None:
            self._ended = True

    # -----------------------------------------------------------------------------------------------------------------

    def _finish(self, response: ClientResponse) -> None:
        self._response = None
        if self._reusable and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            if response.paused:
                self.resume(response)
            self._pool.release(self)
        else:
            self._transport.abort()
        response.end()

    def _fail_late_head(self, waiter: asyncio.Future[ClientResponse]) -> None:
        if not waiter.done():
            self.abort(HeadTimeoutError("timed out"))

    def _fail(self, error: Exception) -> None:
        head, self._head = self._head, None
        response, self._response = self._response, None
        if head is not None and not head.done():
            head.set_exception(error)
        if response is not None:
            response.end(error)

    def _check_timeouts(self) -> None:
        """End what has been idle or quiet for too long. One timer for a connection's life: none to move per request."""
        busy = self._head is not None or self._response is not None
        if self._response is not None and self._response.paused:
            self._last_activity = self._loop.time()  # its reader is slow, not the server
        limit = self._pool.quiet_seconds if busy else self._pool.idle_seconds
        left = self._last_activity + limit - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(min(left, self._pool.idle_seconds), self._check_timeouts)
        else:
            self.abort(HttpError("timed out"))
