"""Work for a caller who has hung up stops; other cancellations stay what they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from assistant_api.disconnect import ClientDisconnectedError, cancel_on_disconnect


class Line:
    """An ASGI `receive` whose caller hangs up when told."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_the_body_is_cancelled_when_the_caller_goes() -> None:
    """What it holds is closed before the error is seen."""
    line = Line()
    closed = False
    asyncio.get_running_loop().call_later(0.01, line.gone.set)

    async def work() -> None:
        nonlocal closed
        async with asyncio.timeout(1), cancel_on_disconnect(line.receive):
            try:
                await asyncio.Event().wait()
            finally:
                closed = True

    with pytest.raises(ClientDisconnectedError):
        await work()
    assert closed
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # no cancellation is left over


async def test_a_caller_who_stays_changes_nothing() -> None:
    """The watch ends with the body."""
    before = len(asyncio.all_tasks())
    async with cancel_on_disconnect(Line().receive):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before


async def test_errors_of_the_body_come_out() -> None:
    """They are not mistaken for a hang-up."""
    with pytest.raises(KeyError):
        async with cancel_on_disconnect(Line().receive):
            raise KeyError


async def test_a_cancellation_from_outside_goes_on() -> None:
    """A server that stops must be able to."""

    async def work() -> None:
        async with cancel_on_disconnect(Line().receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_around_it_stays_a_timeout() -> None:
    """The two ways to be cancelled do not mix."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), cancel_on_disconnect(Line().receive):
            await asyncio.Event().wait()


async def test_a_hangup_at_the_last_moment_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The news comes in the same turn of the loop in which the body's wait is over: no later await is cancelled."""
    monkeypatch.setattr("assistant_api.disconnect.WATCH_DELAY_SECONDS", 0)
    line = Line()

    async def work() -> None:
        async with cancel_on_disconnect(line.receive):
            await asyncio.sleep(0.01)  # the watch is waiting now
            done = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(done.set_result, None)
            line.gone.set()
            await done

    with pytest.raises(ClientDisconnectedError):
        await work()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.01)
