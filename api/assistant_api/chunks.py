"""Parts of an answer's body that are sent where they arrive.

ASGI's `send` can only be awaited, so every part would wake a task. This is an extension of ASGI's scope, offered by our
variant of uvicorn's protocol: it writes at once when nothing stands against it.
"""

from __future__ import annotations

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

    @property
    def ready(self) -> bool:
        """Whether the head is out, the end is not, and the caller is there and reads. Otherwise `send` is the way."""
        cycle = self._cycle()
        return (
            cycle is not None
            and bool(cycle.chunked_encoding)
            and not cycle.response_complete
            and not cycle.disconnected
            and not cycle.flow.write_paused
            and not cycle.transport.is_closing()
        )

    def write(self, body: bytes) -> None:
        """Send `body`, at least one byte, when it is `ready`."""
        if (cycle := self._cycle()) is not None:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))


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
