"""Stop working for a caller who has hung up: its tokens cost money and its slot is wanted by others."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from litestar.types import Message, Receive

# Most work is over before: until then nobody looks, because a task for each request costs more than a timer.
LOOK_AFTER_SECONDS = 0.25


class CallerGoneError(Exception):
    """The caller closed the connection before its answer was complete."""


class until_hangup:  # noqa: N801  reads like asyncio.timeout, and works like it
    """`async with until_hangup(receive):` cancels its body when the caller disconnects, and raises CallerGoneError.

    The request's body must have been read before: from then on the only message that ASGI can deliver is the
    disconnect. Cancelling the body closes what it holds, such as the call to the gateway. In the
    first LOOK_AFTER_SECONDS nothing is noticed, then everything at once.
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
        self._timer = loop.call_later(LOOK_AFTER_SECONDS, self._look, task)
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
            raise CallerGoneError from error

    def _look(self, task: asyncio.Task[object]) -> None:
        self._watch = asyncio.create_task(self._wait(task))

    async def _wait(self, task: asyncio.Task[object]) -> None:
        while True:
            message: Message = await self._receive()  # type: ignore[assignment]
            if message["type"] == "http.disconnect":
                self._gone = True
                task.cancel()
                return
