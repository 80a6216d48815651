"""Whoever is refused again and again hears of it later and later; nobody else does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from assistant_gateway.capacity import slow_refusals
from assistant_gateway.capacity.slow_refusals import LONGEST_SECONDS, REFUSALS_AT_ONCE, SlowRefusals


def request_of(left: bytes = b"") -> Any:
    """Return a request of which so much has come that nobody has read."""
    parts = [left] if left else []
    content = SimpleNamespace(
        is_eof=lambda: not left, exception=lambda: None, read_nowait=lambda _most: parts.pop() if parts else b""
    )
    calls: list[str] = []
    protocol = SimpleNamespace(
        pause_reading=lambda: calls.append("pause"), resume_reading=lambda: calls.append("resume")
    )
    return SimpleNamespace(
        _read_bytes=b"body", content=content, protocol=protocol, transport=object(), parts=parts, calls=calls
    )


def answer() -> Any:
    """Return an answer that may be made its connection's last."""
    found = SimpleNamespace(closed=False)
    found.force_close = lambda: setattr(found, "closed", True)
    return found


async def test_refusals_beyond_the_first_come_at_a_pace() -> None:
    """A few hundred come at once, as of a client that asks too much once in a while; of others they still do."""
    refusals = SlowRefusals()
    first = [refusals.seconds("hostile") for _ in range(int(REFUSALS_AT_ONCE))]
    assert set(first) == {0.0}
    later = [refusals.seconds("hostile") for _ in range(2000)]
    assert later[199] > 1
    assert max(later) <= LONGEST_SECONDS
    assert refusals.seconds("honest") == 0.0


async def test_a_client_that_asks_again_at_once_is_held_to_the_pace() -> None:
    """However many connections it has: in ten seconds of such a client there are as many refusals as the pace lets."""
    refusals, now, asked = SlowRefusals(), 0.0, 0
    free = [0.0] * 200  # when each of its connections hears the last refusal
    while now < 10:
        now = min(free)
        free[free.index(now)] = now + max(0.001, refusals._pace.take("hostile", 1, now))
        asked += 1
    assert asked <= REFUSALS_AT_ONCE + 11 * slow_refusals.REFUSALS_A_SECOND


async def test_nothing_of_a_request_is_kept_while_its_refusal_waits() -> None:
    """Its body is dropped and its connection not read, until the refusal goes out."""
    refusals = SlowRefusals()
    while not refusals.seconds("hostile"):
        pass
    request = request_of(b"x" * 1000)
    waiting = asyncio.create_task(refusals.wait(request, answer(), "hostile"))
    await asyncio.sleep(0)
    assert (request._read_bytes, request.parts, request.calls) == (None, [], ["pause"])
    assert refusals.waiting == 1
    assert await waiting > 0
    assert (request.calls, refusals.waiting) == (["pause", "resume"], 0)


async def test_a_refusal_that_finds_too_many_waiting_ends_its_connection() -> None:
    """It goes out at once: to wait takes memory, too."""
    refusals = SlowRefusals()
    while not refusals.seconds("hostile"):
        pass
    refusals.waiting = slow_refusals.MOST_WAITING
    refused = answer()
    assert await refusals.wait(request_of(), refused, "hostile") == 0.0
    assert refused.closed
