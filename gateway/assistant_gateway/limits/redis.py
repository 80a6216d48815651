"""A Redis client for one thing: short commands, many at a time, on one connection, with a hard time-out.

The limits are on the way of every request. A general client costs four times the processor time per call and a
quarter of the process's memory (docs/decisions/0007-gateway-built-on-aiohttp.md). This one writes prepared commands,
matches replies in order (RESP2, https://redis.io/docs/latest/develop/reference/protocol-spec/), gives up on a
connection that is silent for too long, and comes back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from assistant_observability import logs

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 0.1
SET_UP_SECONDS = 1.0  # nobody waits for these answers
LATE_SECONDS = 0.02
RECONNECT_SECONDS = (0.05, 1.0)
PING_SECONDS = 5.0

Reply: TypeAlias = "int | bytes | ReplyError | list[Reply] | None"

_log = logs.logger(__name__)


class ReplyError(Exception):
    """Redis answered with an error; the first word is its code, such as NOSCRIPT."""


class UnavailableError(Exception):
    """There is no connection, or no answer in time."""


def pack(*arguments: bytes | str | int) -> bytes:
    """Return a command as it goes over the wire."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        raw = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


class _Incomplete(Exception):  # noqa: N818  # not an error: more bytes are on their way
    pass


def _parse(data: bytes, at: int) -> tuple[Reply, int]:
    """Return the reply that starts at `at`, and where the next one starts."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete
    kind, line, at = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b":":
        return int(line), at
    if kind == b"+":
        return line, at
    if kind == b"-":
        return ReplyError(line.decode("utf-8", "replace")), at
    size = int(line)
    if kind == b"$":
        if size < 0:
            return None, at
        if len(data) < at + size + 2:
            raise _Incomplete
        return data[at : at + size], at + size + 2
    if kind != b"*":
        raise ValueError(f"not RESP2: {kind!r}")
    items: list[Reply] = []
    for _ in range(size):
        item, at = _parse(data, at)
        items.append(item)
    return items, at


class _Connection(asyncio.Protocol):
    """One connection: commands out, replies in, in order."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._rest = b""
        self._loop = loop
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport

    def send(self, command: bytes) -> asyncio.Future[Reply]:
        if self._transport is None or self._transport.is_closing():
            raise UnavailableError("the connection is closed")
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting.append(future)
        self._transport.write(command)
        return future

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at = 0
        try:
            while at < len(data):
                reply, at = _parse(data, at)
                future = self._waiting.popleft()
                if not future.done():  # given up on meanwhile
                    future.set_result(reply)
            self._rest = b""
        except _Incomplete:
            self._rest = data[at:]
        except (ValueError, IndexError):  # not Redis, or out of step: nothing that follows can be trusted
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(UnavailableError(f"connection lost: {exc}" if exc else "connection closed"))
                future.exception()  # an answer nobody waits for any more is no news
        self._waiting.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Redis:
    """A connection to Redis that is kept up by `run`. URL: `redis://[user:password@]host:port`, `rediss://`, `unix://`."""

    def __init__(
        self,
        url: str,
        *,
        on_connect: Callable[[Redis], Awaitable[None]] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("a Redis URL starts with redis://, rediss:// or unix://")
        self._on_connect = on_connect
        self._answer_seconds = answer_seconds
        self._connection: _Connection | None = None
        self._usable: _Connection | None = None  # authenticated, prepared, and answering

    @property
    def available(self) -> bool:
        """Whether commands can be sent now."""
        return self._usable is not None

    @property
    def address(self) -> str:
        """Where Redis is, without credentials."""
        return self._url.path if self._url.scheme == "unix" else f"{self._url.hostname}:{self._url.port or 6379}"

    async def call(self, command: bytes, seconds: float | None = None) -> Reply:
        """Send a packed command and return its reply, within `seconds` or the client's own time-out.

        Raises:
            UnavailableError: not connected, or no answer within the time-out.
            ReplyError: Redis refused.
        """
        connection = self._usable or self._connection
        if connection is None:
            raise UnavailableError("not connected")
        future = connection.send(command)
        # `wait_for` and `timeout` cost more than the call itself; a timer on the future does the same.
        loop = asyncio.get_running_loop()
        due = loop.time() + (seconds or self._answer_seconds)
        timer = loop.call_at(due, self._give_up, connection, future, due)
        try:
            reply = await future
        finally:
            timer.cancel()
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def _give_up(self, connection: _Connection, future: asyncio.Future[Reply], due: float) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - due > LATE_SECONDS:  # the process was busy: the answer may lie in the socket, unread
            loop.call_later(LATE_SECONDS, self._give_up, connection, future, float("inf"))
            return
        if future.done():
            return
        future.set_exception(UnavailableError("no answer in time"))
        if self._usable is connection:
            self._usable = None
        connection.abort()

    async def run(self) -> None:
        """Connect, and connect again whenever the connection is lost, for ever. Says so once per change."""
        delay, down_since = RECONNECT_SECONDS[0], 0.0
        while True:
            try:
                connection = await self._connect()
                _log.info("Redis connected", address=self.address)
                delay, down_since = RECONNECT_SECONDS[0], 0.0
                await self._keep(connection)
                reason = "connection lost"
            except (OSError, UnavailableError, ReplyError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            finally:
                self._drop()
            if not down_since:
                down_since = time.monotonic()
                _log.warning("Redis is away: limits are local until it is back", address=self.address, reason=reason)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
            delay = min(delay * 2, RECONNECT_SECONDS[1])

    def _drop(self) -> None:
        self._usable = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            if self._url.scheme == "unix":
                _, connection = await loop.create_unix_connection(_Connection, self._url.path)
            else:
                tls = ssl.create_default_context() if self._url.scheme == "rediss" else None
                _, connection = await loop.create_connection(
                    _Connection, self._url.hostname or "localhost", self._url.port or 6379, ssl=tls
                )
        self._connection = connection
        if self._url.password is not None:
            user = unquote(self._url.username or "") or "default"
            await self.call(pack("AUTH", user, unquote(self._url.password)), SET_UP_SECONDS)
        await self.call(pack("PING"), SET_UP_SECONDS)
        if self._on_connect is not None:
            await self._on_connect(self)
        self._usable = connection
        return connection

    async def _keep(self, connection: _Connection) -> None:
        """Ping until the connection is lost, so that a silent death is noticed before a request pays for it."""
        while not connection.lost.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_SECONDS):
                    await asyncio.shield(connection.lost)
            if not connection.lost.done():
                await self.call(pack("PING"), SET_UP_SECONDS)


def integers(reply: Reply, count: int) -> Sequence[int]:
    """Return a reply of `count` integers.

    Raises:
        ReplyError: it is something else.
    """
    if isinstance(reply, list) and len(reply) == count and all(isinstance(item, int) for item in reply):
        return reply  # type: ignore[return-value]
    raise ReplyError(f"unexpected reply: {reply!r:.100}")
