"""From a URL to the addresses that a connection is made to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType

from assistant_http.errors import InvalidUrlError

ADDRESS_TTL_SECONDS = 10.0  # so long a name's addresses are used again

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections lead."""

    host: str
    port: int
    secure: bool


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart: where to connect to, and what a request says of it."""

    origin: Origin
    authority: str
    path: str  # with its query


@lru_cache(maxsize=1024)
def address_of(url: str) -> Address:
    """Take a URL apart; InvalidUrlError when it is none of HTTP."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
    except ValueError:
        raise InvalidUrlError("not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidUrlError("not an HTTP URL")
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return Address(Origin(parts.hostname, port, secure), parts.netloc.rpartition("@")[2], path)


@dataclass(slots=True)
class _CacheEntry:
    """The addresses of a host, or the question for them that is under way."""

    until: float
    found: asyncio.Future[Sequence[AddrInfoType]]


class AddressCache:
    """The addresses of hosts, each asked for once in a while, however large the crowd that wants to connect."""

    def __init__(self, resolve: Resolve | None) -> None:
        self._resolve = resolve or _look_up
        self._entries: dict[Origin, _CacheEntry] = {}

    async def addresses(self, origin: Origin) -> Sequence[AddrInfoType]:
        """Return where to connect to.

        Raises:
            OSError: the name does not resolve, or may not be connected to.
        """
        now = asyncio.get_running_loop().time()
        known = self._entries.get(origin)
        if known is None or known.until < now:
            self._entries = {name: value for name, value in self._entries.items() if value.until >= now}
            asking = asyncio.ensure_future(self._resolve(origin.host, origin.port))
            asking.add_done_callback(lambda done: self._resolved(origin, done))
            known = self._entries[origin] = _CacheEntry(now + ADDRESS_TTL_SECONDS, asking)
        return await asyncio.shield(known.found)  # one that gives up must not end the question for the others

    def _resolved(self, origin: Origin, asked: asyncio.Future[Sequence[AddrInfoType]]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            self._entries.pop(origin, None)


async def _look_up(host: str, port: int) -> Sequence[AddrInfoType]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
