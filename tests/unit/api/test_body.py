"""Bodies are held within what all of them may take."""

from __future__ import annotations

import asyncio

import pytest

from assistant_api import body
from assistant_api.body import MAX_LARGE_BODIES_BYTES, MAX_SMALL_BODY_BYTES, BodyCapacity, ByteCapacity
from assistant_api.errors import ApiError

LIMIT = 1 << 20


def of(size: int) -> dict[str, str]:
    return {"content-length": str(size)}


async def test_room_is_given_in_turn_and_given_back() -> None:
    """Nobody is passed by, and what is given back serves the next."""
    places = ByteCapacity(10)
    order: list[str] = []

    async def take(name: str, size: int) -> None:
        await places.take(size)
        order.append(name)

    await take("first", 8)
    waiting = [asyncio.create_task(take("large", 9)), asyncio.create_task(take("small", 1))]
    await asyncio.sleep(0)
    assert order == ["first"]
    places.give(8)
    await asyncio.gather(*waiting)
    assert order == ["first", "large", "small"]
    places.give(9)
    places.give(1)
    await places.take(10)


async def test_one_who_goes_leaves_the_turn_to_the_next() -> None:
    """Room is neither lost nor given twice."""
    places = ByteCapacity(10)
    await places.take(10)
    gone, stays = asyncio.create_task(places.take(9)), asyncio.create_task(places.take(9))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    places.give(10)
    await stays
    places.give(9)
    late = asyncio.create_task(places.take(10))
    await late
    places.give(10)
    await places.take(10)


async def test_without_room_the_server_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 after a while; small bodies have room of their own, and one of unknown size counts as the largest."""
    monkeypatch.setattr(body, "CAPACITY_TIMEOUT_SECONDS", 0.01)
    bodies = BodyCapacity()
    held = [bodies.room({} if number % 2 else of(LIMIT), LIMIT) for number in range(MAX_LARGE_BODIES_BYTES // LIMIT)]
    for room in held:
        await room.__aenter__()
    with pytest.raises(ApiError) as caught:
        async with bodies.room(of(MAX_SMALL_BODY_BYTES + 1), LIMIT):
            pass
    assert (caught.value.kind.status, caught.value.kind.code) == (503, "server_busy")
    async with bodies.room(of(MAX_SMALL_BODY_BYTES), LIMIT):
        pass
    for room in held:
        await room.__aexit__(None, None, None)
    async with bodies.room(of(LIMIT), LIMIT):
        pass
