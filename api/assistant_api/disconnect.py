"""Cancel the work for a client that has disconnected: its tokens cost money, and other requests need its slot."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from litestar.types import Message, Receive

# Most requests end within this time; a task for each of them would cost more than the timer that is cancelled.
WATCH_DELAY_SECONDS = 0.25


class ClientDisconnectedError(Exception):
    """The client closed the connection before its response was complete."""


class cancel_on_disconnect:  # noqa: N801  reads like asyncio.timeout, and works like it
    """`async with cancel_on_disconnect(receive):` cancels its body and raises ClientDisconnectedError on a disconnect.

    The request's body must have been read before: from then on the only message that ASGI can deliver is the
    disconnect. Cancelling the body closes what it holds, such as the call to the gateway. A
    disconnect in the first WATCH_DELAY_SECONDS is noticed when they are over.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._timer: asyncio.TimerHandle
        self._watch: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("needs a task")
        self._timer = loop.call_later(WATCH_DELAY_SECONDS, self._look, task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watch is None:
            return
        if not self._watch.done():
            self._watch.cancel()
        if not self._gone or (kind is not None and not issubclass(kind, asyncio.CancelledError)):
            return
        task = asyncio.current_task()
        # Only our own cancellation is turned into an error; one from outside goes on.
        if task is not None and task.uncancel() == 0:
            raise ClientDisconnectedError from error

    def _look(self, task: asyncio.Task[object]) -> None:
        self._watch = asyncio.create_task(self._wait(task))

    async def _wait(self, task: asyncio.Task[object]) -> None:
        while True:
            message: Message = await self._receive()  # type: ignore[assignment]
            if message["type"] == "http.disconnect":
                self._gone = True
                task.cancel()
                return
