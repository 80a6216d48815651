"""Write response heads and body parts to uvicorn's transport directly, past ASGI's `send`.

ASGI's `send` can only be awaited, so every part of a stream would wake a task. `DirectWriteProtocol`, a subclass of
uvicorn's protocol, offers the transport in the request's scope (an ASGI extension); callers write to it when the head
is out and the client reads, and use `send` otherwise. This is the only file that relies on uvicorn's internals.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from typing import Any, cast

from litestar.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

_EXTENSION = "assistant.direct_write"


class DirectWriter:
    """Write access to the transport of one response, as an extension in the ASGI scope of its request."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = weakref.ref(cycle)  # it holds the scope that holds this

    @property
    def received(self) -> bool:
        """Whether all of the request is here."""
        cycle = self._cycle()
        return cycle is not None and not cycle.more_body

    def transport(self) -> asyncio.Transport | None:
        """Return where chunks can be written now: the head is out, the end is not, and the caller reads.

        None otherwise: then `send` is the way.
        """
        cycle = self._cycle()
        if (
            cycle is None
            or not cycle.chunked_encoding
            or cycle.response_complete
            or cycle.disconnected
            or cycle.flow.write_paused
            or cycle.transport.is_closing()
        ):
            return None
        return cycle.transport


def direct_writer(scope: Scope) -> DirectWriter | None:
    """Return the direct writer of a request; None where the server offers none."""
    return cast("DirectWriter | None", (scope.get("extensions") or {}).get(_EXTENSION))


# What may stand in no header; CR and LF end each line of a head, so they are counted.
_CONTROL = bytes(byte for byte in (*range(0x20), 0x7F) if byte != 0x09)
_FRAMING = frozenset({b"connection", b"transfer-encoding"})


class _Cycle(RequestResponseCycle):
    """uvicorn's request and response, which writes heads at once.

    uvicorn looks into each header by two regular expressions: a tenth of the processor time that a chat takes here.
    """

    async def send(self, message: Any) -> None:
        """See ASGI. What is not a plain head is uvicorn's to write, or to refuse."""
        usual = self.response_started or self.disconnected or self.flow.write_paused or not self.keep_alive
        if (
            usual
            or self.scope["method"] == "HEAD"
            or not self._begin(message.get("status", 0), message.get("headers", ()))
        ):
            await super().send(message)

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Write a head; False, and nothing is done, for one that is not plain."""
        fields, length = [*self.default_headers, *headers], b""
        for name, value in fields:
            if (lower := name.lower()) == b"content-length":
                length = value
            elif lower in _FRAMING:
                return False
        lines = b"".join([b"%b: %b\r\n" % field for field in fields])
        if len(lines.translate(None, _CONTROL)) != len(lines) - 2 * len(fields):
            return False
        if not (length.isdigit() or (status == 200 and not length)):
            return False
        self.response_started = True
        self.waiting_for_100_continue = False
        self.chunked_encoding = not length
        self.expected_content_length = int(length or 0)
        end = b"\r\n" if length else b"transfer-encoding: chunked\r\n\r\n"
        self.transport.write(b"%b%b%b" % (STATUS_LINE[status], lines, end))
        return True


class DirectWriteProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the extension in the scope of each request."""

    def on_headers_complete(self) -> None:
        """See uvicorn: the application starts in the loop's next turn, with this in its scope."""
        super().on_headers_complete()
        cycle: Any = self.cycle  # none yet where uvicorn refused an upgrade
        if cycle is not None and cycle.scope is self.scope:
            cycle.__class__ = _Cycle
            extensions: dict[str, Any] = {_EXTENSION: DirectWriter(cycle)}
            cycle.scope["extensions"] = extensions
