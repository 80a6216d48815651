"""A small HTTP/1.1 client: kept-alive connections, and answers that are read as they arrive.

It does what calls to the gateway and to model providers need and no more: no redirects, cookies, compression or
proxies. One arrival of bytes costs one call of the parser and one wake-up of the reader; a general client costs several
times that.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

from aiohappyeyeballs import start_connection

from assistant_http.addresses import Address, AddressCache, Origin, Resolve, address_of
from assistant_http.connection import Connection
from assistant_http.errors import ConnectTimeoutError, HttpError, NotConnectedError
from assistant_http.response import ClientResponse

HAPPY_EYEBALLS_DELAY_SECONDS = 0.25  # then a name's second address is tried beside the first (RFC 8305)


class HttpClient:
    """A pool of connections without a limit.

    `connect_seconds` bound the making of a connection; one that was idle for `idle_seconds` is not used again; an
    answer of which nothing arrives for `quiet_seconds` is given up. `resolve` gives the addresses of a host (a name or
    an address) and a port; what it raises as an `OSError` becomes the cause of a NotConnectedError.
    """

    def __init__(
        self, *, connect_seconds: float, idle_seconds: float, quiet_seconds: float, resolve: Resolve | None = None
    ) -> None:
        self.connect_seconds = connect_seconds
        self.idle_seconds = idle_seconds
        self.quiet_seconds = quiet_seconds
        self.connections: set[Connection] = set()
        self._idle: dict[Origin, list[Connection]] = {}
        self._addresses = AddressCache(resolve)
        self._tls: ssl.SSLContext | None = None

    async def request(  # noqa: PLR0913  the rest is named
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        path: str = "",
        connect_seconds: float | None = None,
        head_seconds: float | None = None,
    ) -> ClientResponse:
        """Ask, and return when status and headers are there.

        Args:
            method: as HTTP writes it.
            url: where to.
            headers: names and values; `host` and `content-length` are added.
            body: nothing for no body.
            path: what follows the URL's own path, with its query.
            connect_seconds: in place of the client's.
            head_seconds: in which the answer has to begin, once the request is sent.

        Raises:
            InvalidUrlError, NotConnectedError, ConnectTimeoutError: nothing was sent.
            HeadTimeoutError: the answer did not begin in time.
            HttpError: the connection was lost, nothing came for too long, or it was no HTTP.
        """
        address = address_of(url)
        connection = self._take_idle(address.origin) or await self._connect(
            address.origin, self.connect_seconds if connect_seconds is None else connect_seconds
        )
        return await connection.exchange(_head(method, address, path, headers, len(body)), body, head_seconds)

    def release(self, connection: Connection) -> None:
        """See `Pool.keep`."""
        self._idle.setdefault(connection.origin, []).append(connection)

    def discard(self, connection: Connection) -> None:
        """See `Pool.forget`."""
        self.connections.discard(connection)
        idle = self._idle.get(connection.origin, [])
        if connection in idle:
            idle.remove(connection)
        if not idle:
            self._idle.pop(connection.origin, None)

    def drop_idle(self) -> None:
        """Close the connections that lie idle: the next request makes its own, which may lead to another process."""
        for connections in list(self._idle.values()):
            for connection in list(connections):
                connection.abort(HttpError("closed"))
        self._idle.clear()

    async def close(self) -> None:
        """Close every connection; what is under way fails."""
        for connection in list(self.connections):
            connection.abort(HttpError("closed"))

    def _take_idle(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
        return None

    async def _connect(self, origin: Origin, seconds: float) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._addresses.addresses(origin)
                connected = await start_connection(addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_SECONDS)
                _, connection = await loop.create_connection(
                    lambda: Connection(self, origin),
                    sock=connected,
                    ssl=self._tls_context() if origin.secure else None,
                    server_hostname=origin.host if origin.secure else None,
                )
        except TimeoutError as error:
            raise ConnectTimeoutError("timed out") from error
        except OSError as error:
            raise NotConnectedError(type(error).__name__) from error
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:  # reads the machine's certificates: not before it is needed
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


def _head(method: str, address: Address, path: str, headers: Mapping[str, str], length: int) -> bytes:
    """Return a request's head.

    Raises:
        HttpError: a header would end its line.
    """
    path = address.path.rstrip("/") + path if path else address.path or "/"
    lines = [f"{method} {path} HTTP/1.1", f"host: {address.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {length}\r\n\r\n")
    head = "\r\n".join(lines)
    if head.count("\r") != len(lines) + 1 or head.count("\n") != len(lines) + 1 or "\0" in head:
        raise HttpError("a line end in a header")
    return head.encode()
