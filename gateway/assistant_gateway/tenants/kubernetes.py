"""The few calls the gateway makes to the Kubernetes API: get a document, list, watch.

The signing keys are no resource, so client libraries do not read them; with a client for those at hand, listing and
watching one kind needs no library and no second HTTP stack (docs/decisions/0007-gateway-on-aiohttp.md).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
WATCH_SECONDS = 60  # the server ends a watch after this; going on costs no list


class ClusterError(Exception):
    """The API server did not give what was asked; `status` is 0 when it did not answer at all."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch."""

    type: str  # ADDED, MODIFIED, DELETED, BOOKMARK, ERROR
    object: msgspec.Raw


class Cluster:
    """A client of one API server that authenticates with a token file, read at every call as it is rotated."""

    def __init__(self, url: str, credentials: Path) -> None:
        self._url = url
        self._token_file = credentials / "token"
        certificate = credentials / "ca.crt"
        tls = ssl.create_default_context(cafile=str(certificate)) if url.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            raise_for_status=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _request(self, path: str, params: Mapping[str, str] | None, timeout: aiohttp.ClientTimeout) -> Any:
        token = self._token_file.read_text().strip()
        return self._session.get(
            self._url + path,
            params=params,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json, application/jwk-set+json"},
            timeout=timeout,
            allow_redirects=False,
        )

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """Return the body of a 200.

        Raises:
            ClusterError: anything else, an unreachable server included.
        """
        timeout = aiohttp.ClientTimeout(total=READ_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with self._request(path, params, timeout) as response:
                body: bytes = await response.read()
                if response.status != 200:
                    raise ClusterError(response.status, f"GET {path} answered {response.status}")
                return body
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterError(0, f"GET {path} failed: {type(error).__name__}: {error}") from error

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[WatchEvent]:
        """Yield events until the server ends the watch, which it does after `WATCH_SECONDS`.

        Raises:
            ClusterError: refused or broken off; status 410 means that a new list is needed.
        """
        query = {**params, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        # A connection that died without a sign is noticed because the server's end of the watch stays away.
        timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS + READ_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with self._request(path, query, timeout) as response:
                if response.status != 200:
                    raise ClusterError(response.status, f"watch of {path} answered {response.status}")
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line:
                            yield msgspec.json.decode(line, type=WatchEvent)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
            raise ClusterError(0, f"watch of {path} broke off: {type(error).__name__}: {error}") from error
