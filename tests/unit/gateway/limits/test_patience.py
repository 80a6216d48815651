"""How long an answer of Redis is waited for: short, but not counted while this process itself is late."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from assistant_gateway.limits.redis import Patience


async def test_a_silent_store_is_given_up() -> None:
    """Nothing comes, and this process has nothing else to do."""
    with pytest.raises(TimeoutError):
        async with Patience(0.05):
            await asyncio.Event().wait()


async def test_an_answer_that_came_while_this_process_was_busy_counts() -> None:
    """It is in the socket before the time is over; what this process does meanwhile takes twice as long."""
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=here)
    threading.Timer(0.05, there.sendall, [b"+OK"]).start()
    asyncio.get_running_loop().call_soon(time.sleep, 0.3)
    async with Patience(0.1):
        assert await reader.read(3) == b"+OK"
    writer.close()
    there.close()


async def test_a_process_that_is_always_late_does_not_wait_for_ever() -> None:
    """The store is silent and this process is busy."""

    def busy() -> None:
        time.sleep(0.08)
        loop.call_soon(busy)

    loop = asyncio.get_running_loop()
    began = loop.time()
    busy()
    with pytest.raises(TimeoutError):
        async with Patience(0.01):
            await asyncio.Event().wait()
    assert loop.time() - began > 0.5
