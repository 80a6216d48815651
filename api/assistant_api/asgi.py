"""The little of ASGI that is used without Litestar: a request's headers, and an answer that is there as a whole."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from litestar.types import Receive, Scope, Send

JSON = "application/json"
MAX_WRITE_BYTES = 64 * 1024  # bytes of a large answer that are sent at once
SEND_TIMEOUT_SECONDS = 60.0  # a caller who takes no piece for so long has gone
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers of a request, their names in lower case; of a repeated one the first."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(list(scope["headers"]))}


def origin_of(scope: Scope) -> str:
    """Return the origin under which the caller sees this API, such as `https://host:8443`; "" when it does not say.

    It is the caller's own word, or that of a proxy before us (`X-Forwarded-Proto`, `X-Forwarded-Host`): good for the
    addresses in the caller's own answer, and for nothing else.
    """
    headers = headers_of(scope)
    scheme, host = (headers.get(f"x-forwarded-{name}", "").partition(",")[0].strip() for name in ("proto", "host"))
    host = host or headers.get("host", "")
    if not _HOST.fullmatch(host):
        return ""
    return f"{scheme.lower() if scheme.lower() in {'http', 'https'} else scope['scheme']}://{host}"


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


@dataclass(frozen=True, slots=True)
class BufferedResponse:
    """An ASGI response whose body is there. `headers` are those besides the content's type and length."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    media_type: str = JSON

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del scope, receive
        headers = [
            *encoded(self.headers),
            (b"content-type", self.media_type.encode()),
            (b"content-length", str(len(self.content)).encode()),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        rest = self.content if len(self.content) <= MAX_WRITE_BYTES else memoryview(self.content)
        while len(rest) > MAX_WRITE_BYTES:  # the server holds a slow reader back between pieces
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                await send({"type": "http.response.body", "body": bytes(rest[:MAX_WRITE_BYTES]), "more_body": True})
            rest = rest[MAX_WRITE_BYTES:]
        await send({"type": "http.response.body", "body": bytes(rest), "more_body": False})
