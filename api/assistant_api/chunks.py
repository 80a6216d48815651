"""Parts of an answer's body that are sent where they arrive.

ASGI's `send` can only be awaited, so every part would wake a task. This is an extension of ASGI's scope, offered by our
variant of uvicorn's protocol: it writes at once when nothing stands against it.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, cast

from litestar.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_EXTENSION = "assistant.chunks"


class Chunks:
    """The chunks of one answer."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = weakref.ref(cycle)  # it holds the scope that holds this

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


def chunks_of(scope: Scope) -> Chunks | None:
    """Return the extension, where the server offers it."""
    return cast("Chunks | None", (scope.get("extensions") or {}).get(_EXTENSION))


class ChunksProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the extension in the scope of each request."""

    def on_headers_complete(self) -> None:
        """See uvicorn: the application starts in the loop's next turn, with this in its scope."""
        super().on_headers_complete()
        cycle: Any = self.cycle  # none yet where uvicorn refused an upgrade
        if cycle is not None and cycle.scope is self.scope:
            extensions: dict[str, Any] = {_EXTENSION: Chunks(cycle)}
            cycle.scope["extensions"] = extensions
