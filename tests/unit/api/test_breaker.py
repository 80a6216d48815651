"""While a store hangs, nobody waits for it again and again."""

from __future__ import annotations

import asyncio

import pytest

from assistant_api.breaker import OPEN_SECONDS, Breaker, StoreUnavailableError
from assistant_observability import metrics


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("weaviate", clock)


async def call(breaker: Breaker, clock: Clock, seconds: float, error: BaseException | None = None) -> None:
    async with breaker.asking():
        clock.now += seconds
        if error is not None:
            raise error


async def wait_in_vain(breaker: Breaker, clock: Clock) -> None:
    with pytest.raises(TimeoutError):
        await call(breaker, clock, 5, TimeoutError())


def state() -> float:
    return metrics.STORE_BREAKER.labels("weaviate")._value.get()


async def test_after_one_wait_in_vain_calls_are_refused_at_once(breaker: Breaker, clock: Clock) -> None:
    """Until the pause is over; then one tries, and its answer lets all others in."""
    await wait_in_vain(breaker, clock)
    assert state() == 2
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await call(breaker, clock, 0)
    clock.now += OPEN_SECONDS[0]
    async with breaker.asking():
        assert state() == 1
        with pytest.raises(StoreUnavailableError):
            breaker.check()
    assert state() == 0
    await call(breaker, clock, 0)


async def test_a_try_in_vain_makes_the_pause_longer_up_to_a_bound(breaker: Breaker, clock: Clock) -> None:
    """And a store that is back is found within the longest pause."""
    await wait_in_vain(breaker, clock)
    for _ in range(5):
        clock.now += OPEN_SECONDS[1]
        await wait_in_vain(breaker, clock)
    clock.now += OPEN_SECONDS[1]
    await call(breaker, clock, 0)
    assert not breaker.open


async def test_quick_failures_refuse_nobody(breaker: Breaker, clock: Clock) -> None:
    """There is no wait to save, and the next call may well succeed: a connection that was closed in a restart."""
    for _ in range(10):
        with pytest.raises(ConnectionRefusedError):
            await call(breaker, clock, 0.01, ConnectionRefusedError())
    assert not breaker.open


async def test_what_others_did_says_nothing_about_the_store(breaker: Breaker, clock: Clock) -> None:
    """A slow model before the search, or a question that is refused."""
    with pytest.raises(ValueError, match="refused"):
        await call(breaker, clock, 9, ValueError("refused"))
    assert not breaker.open


async def test_a_call_that_was_given_up_counts_when_it_had_waited(breaker: Breaker, clock: Clock) -> None:
    """A caller who hangs up at once says nothing about the store."""
    with pytest.raises(asyncio.CancelledError):
        await call(breaker, clock, 0.1, asyncio.CancelledError())
    assert not breaker.open
    with pytest.raises(asyncio.CancelledError):
        await call(breaker, clock, 3, asyncio.CancelledError())
    assert breaker.open


async def test_a_try_that_was_given_up_leaves_the_next_one_to_others(breaker: Breaker, clock: Clock) -> None:
    """Otherwise nobody would ever try again."""
    await wait_in_vain(breaker, clock)
    clock.now += OPEN_SECONDS[0]
    with pytest.raises(asyncio.CancelledError):
        await call(breaker, clock, 0, asyncio.CancelledError())
    await call(breaker, clock, 0)
    assert not breaker.open
