"""An answer as server-sent events, from its beginning or from where a reader has stopped.

The number of an event is the place in the text, in characters, that is reached with it. So nothing has to be kept of
events: whoever names the last number it has seen gets what follows, once, on any replica and at any time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec
from litestar.types import Receive, Scope, Send

from assistant_api.chat.stream import CLIENT_DISCONNECTED, EVENT_STREAM, STALL_SECONDS
from assistant_api.conversations.turn import Reader
from assistant_api.conversations.turns import Turns
from assistant_api.disconnect import ClientDisconnectedError, cancel_on_disconnect
from assistant_api.errors import invalid_field

LAST_EVENT_ID = "last-event-id"
PING_INTERVAL_SECONDS = 15.0  # proxies close what says nothing
_END = ".end"
_NUMBER = re.compile(r"([0-9]{1,9})(\.end)?")
_HEADERS = [
    (b"content-type", f"{EVENT_STREAM}; charset=utf-8".encode()),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events otherwise
]


def place_of(last_event_id: str | None) -> int | None:
    """Return the place after which to go on, None when the end has been seen; ApiError for what is no number."""
    if not last_event_id:
        return 0
    found = _NUMBER.fullmatch(last_event_id)
    if found is None:
        raise invalid_field("Last-Event-ID", "value")
    return None if found[2] else int(found[1])


def event(name: str, data: bytes, number: str) -> bytes:
    """Return one event."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (number.encode(), name.encode(), data)


class AnswerStream:
    """The ASGI response; `last` makes name and data of the last event when the answer has ended."""

    def __init__(
        self,
        turns: Turns,
        conversation: UUID,
        answer: UUID,
        after: int,
        first: bytes,
        last: Callable[[], Awaitable[tuple[str, bytes]]],
    ) -> None:
        self._turns = turns
        self._conversation = conversation
        self._answer = answer
        self._after = after
        self._first = first
        self._last = last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the last one; the answer goes on when the caller goes away."""
        noted = scope.setdefault("state", {})
        async with self._turns.reading(self._conversation, self._answer) as turn:
            noted["interrupt"] = turn.give_up
            try:
                async with cancel_on_disconnect(receive):
                    await self._send(Reader(turn, self._after), send)
            except (ClientDisconnectedError, TimeoutError):
                noted["code"] = CLIENT_DISCONNECTED

    async def _send(self, reader: Reader, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await _body(send, self._first)
        while True:
            try:
                async with asyncio.timeout(PING_INTERVAL_SECONDS):
                    words = await reader.more()
            except TimeoutError:
                await _body(send, b": waiting\n\n")
                continue
            if not words:
                break
            await _body(send, event("message.delta", msgspec.json.encode({"text": words}), str(reader.place)))
        name, data = await self._last()
        await _body(send, event(name, data, f"{reader.place}{_END}") if name else b"", more=False)


async def _body(send: Send, body: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(STALL_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": more})
