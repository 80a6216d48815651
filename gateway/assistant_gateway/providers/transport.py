"""The only way out for LiteLLM: the gateway's own connections, and only to the provider that the call is for.

So time-outs, pools, bounds and the end of a connection are those of every other call, and nothing that LiteLLM might
want to fetch by itself, such as pictures or tokenizers, is fetched.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Mapping

import httpx
from yarl import URL

from assistant_gateway import errors
from assistant_gateway.errors import GatewayError
from assistant_gateway.providers import error_mapping, kinds
from assistant_gateway.providers.catalog import Target
from assistant_gateway.providers.openai_wire import Upstream, error_body
from assistant_gateway.wire.sse import TooLargeError
from assistant_http.response import Response

# LiteLLM's headers that the connection, or the target, has its own of.
_OURS = frozenset({"host", "connection", "content-length", "accept-encoding", "user-agent", "transfer-encoding"})

TAIL = 4096  # bytes of an answer's end that are kept

current: contextvars.ContextVar[Exchange] = contextvars.ContextVar("current")


class Exchange:
    """What happens on the wire of one call, and what went wrong there."""

    def __init__(self, upstream: Upstream, target: Target, trace: Mapping[str, str], limit: int) -> None:
        self._upstream = upstream
        self._target = target
        self._trace = trace
        self._limit = limit
        self._response: Response | None = None
        self._unused = 0
        self._last = kinds.FAMILIES[target.settings.kind].last
        self.tail = b""  # the end of what was received
        self.finished = False  # whether the family's word for the end of a stream was in it
        self.refusal: GatewayError | None = None
        self.broken: BaseException | None = None
        self.answered = False  # whether the provider began to answer

    async def request(self, request: httpx.Request) -> httpx.Response:
        """Send what LiteLLM wants to send."""
        target = self._target
        own = {name.lower() for name in target.headers} | _OURS
        headers = {name: value for name, value in request.headers.items() if name.lower() not in own}
        body = await request.aread()
        try:
            url = _address(target, request)
            response = await self._upstream.post(target, url, body, {**headers, **self._trace})
        except GatewayError as error:
            self.refusal = error
            raise
        self.close()  # of an attempt before this one
        self._response, self.refusal = response, None
        content_type = response.headers.get("content-type", "application/json")
        if response.status == 200:
            self.answered = True
            return httpx.Response(200, headers={"content-type": content_type}, stream=_Stream(self))
        body = await error_body(response)
        retry_after = response.headers.get("retry-after")
        self.refusal = error_mapping.map_error(target, response.status, body, retry_after)
        response.close()
        return httpx.Response(response.status, headers={"content-type": content_type}, content=body)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the answer's bytes.

        Raises:
            HttpError, TimeoutError, TooLargeError: it broke off, or is too much.
        """
        response = self._response
        while response is not None:
            try:
                async with asyncio.timeout(self._target.settings.idle_seconds):
                    piece = await response.next()
                self._unused += len(piece)
                if self._unused > self._limit:
                    raise TooLargeError  # noqa: TRY301  # it is remembered like the others
            except Exception as error:
                self.broken = error
                raise
            if not piece:
                return
            seen = self.tail[-len(self._last) :] + piece
            self.finished = self.finished or self._last in seen
            self.tail = (self.tail + piece)[-TAIL:]
            yield piece

    def used(self) -> None:
        """Note that what was read so far has become an event."""
        self._unused = 0

    def interrupt(self, error: Exception) -> None:
        """Wake up whoever reads, with an error."""
        self.broken = error
        if self._response is not None:
            self._response.fail(error)

    def close(self) -> None:
        """End the connection unless it was read to its end."""
        if self._response is not None:
            self._response.close()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._exchange.pieces()


class Transport(httpx.AsyncBaseTransport):
    """Takes the place of every asynchronous connection of LiteLLM's."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request of the call that runs here."""
        exchange = current.get(None)
        if exchange is None:
            raise httpx.ConnectError("no call of the gateway runs here", request=request)
        return await exchange.request(request)


class NoTransport(httpx.BaseTransport):
    """Takes the place of every connection that would block the event loop."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Refuse."""
        raise httpx.ConnectError("only calls of the gateway go out", request=request)


def _address(target: Target, request: httpx.Request) -> URL:
    """Return where a request goes: its path, at the provider's base address.

    Raises:
        GatewayError: it is not for the provider.
    """
    family = kinds.FAMILIES[target.settings.kind]
    asked = URL(str(request.url), encoded=True)
    base = target.chat
    if not family.hosts:
        if asked.origin() == base.origin():
            return asked
    elif asked.scheme == "https" and asked.host in family.hosts and asked.explicit_port is None:
        return URL(str(base).rstrip("/") + asked.raw_path_qs, encoded=True)
    raise errors.provider_error(target.provider, "would have been called at another address than its own")
