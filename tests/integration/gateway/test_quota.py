"""Reserve and settle through the gateway's own client and a real Redis, by its own clock; and what a lost one loses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis as Client
from redis.exceptions import AuthenticationError

from assistant_cluster import stores
from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.quota import SCRIPT, Admitted, Finished, Quota, RebuildNeededError, Refused, Totals
from assistant_gateway.limits.redis import Redis, UnavailableError

MINUTE = 60_000_000


@contextlib.asynccontextmanager
async def client_of(store: stores.Redis) -> AsyncIterator[Quota]:
    """A client as a gateway process has one."""
    redis = Redis(store.gateway_url, SCRIPT, answer_seconds=2)
    keeper = asyncio.create_task(redis.run())
    await back(redis)
    yield Quota(redis)
    keeper.cancel()
    await redis.close()


async def back(redis: Redis) -> None:
    """Wait until Redis answers."""
    async with asyncio.timeout(20):
        while not redis.available:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def quota(redis_store) -> AsyncIterator[Quota]:
    async with client_of(redis_store) as client:
        yield client


@pytest.fixture
def own_store() -> Iterator[stores.Redis]:
    """A Redis that a test may kill, which has written what it has answered."""
    with stores.redis() as store:
        store.server.stop()
        store.server.command += ["--appendfsync", "no"]
        store.server.start()
        yield store


def limits(tenant: str = "", **assistant: object) -> Limits:
    """Limits of a new tenant, which lets 1000 tokens a day and a money unit a month through."""
    levels = [LimitScope("assistant", "support", **assistant), LimitScope("tenant", tokens=1000, budget=1_000_000)]  # type: ignore[arg-type]
    return Limits.of(tenant or f"t_{uuid.uuid4().hex[:10]}", "Europe/Berlin", levels)


async def ledger(store: stores.Redis, tenant: str) -> list[bytes]:
    """Return the entries of the tenant's stream."""
    async with Client.from_url(store.gateway_url, protocol=2, driver_info=None) as client:
        return [fields[b"entry"] for _, fields in await client.xrange(f"quota:{{{tenant}}}:ledger")]


async def test_what_is_held_and_what_is_used_count(quota: Quota, redis_store) -> None:
    """A hold takes its worst case, settling gives the rest back, and the entry is written in the same step."""
    where = limits(tokens=500)
    assert await quota.restore(where, 1, "0-0", [])
    admitted = await quota.reserve(where, "a", Amount(400, 900_000), MINUTE)
    assert isinstance(admitted, Admitted)
    assert [(left.tokens, left.budget) for left in admitted.remaining] == [(600, 100_000), (100, None)]
    refused = await quota.reserve(where, "b", Amount(200, 0), MINUTE)
    assert isinstance(refused, Refused)
    assert (refused.level.scope, refused.kind, refused.limit, refused.used) == ("assistant", "tokens", 500, 400)
    assert refused.retry_after == 1_000_000  # the hold may come back at any time
    done = await quota.settle(where, "a", Amount(150, 300_000), b"entry a")
    assert (done.tokens, done.cost, done.late, done.again) == (150, 300_000, False, False)
    assert isinstance(await quota.reserve(where, "b", Amount(200, 0), MINUTE), Admitted)
    usage = await quota.usage(where)
    assert (usage["tenant"].counted.month_cost, usage["tenant"].held_tokens) == (300_000, 200)
    assert await ledger(redis_store, where.tenant) == [b"entry a"]


async def test_a_refusal_says_whether_waiting_helps(quota: Quota) -> None:
    """What never fits has no time to come back; what was used up comes back with the next window."""
    where = limits(budget=10, period="Day")
    assert await quota.restore(where, 1, "0-0", [])
    never = await quota.reserve(where, "a", Amount(0, 11), MINUTE)
    assert isinstance(never, Refused)
    assert (never.kind, never.retry_after, never.limit) == ("budget", None, 10)
    await quota.settle(where, "b", Amount(0, 8), b"b")
    later = await quota.reserve(where, "c", Amount(0, 3), MINUTE)
    assert isinstance(later, Refused)
    usage = await quota.usage(where)
    tomorrow = usage["assistant:support"].counted.day[1]
    assert later.retry_after is not None
    assert abs(tomorrow - time.time_ns() // 1000 - later.retry_after) < 5_000_000


async def test_request_rates_are_decided_in_the_same_step(quota: Quota) -> None:
    """A burst goes through, the next call waits for its interval, and a refused one takes nothing from the tenant."""
    where = limits(requests_per_minute=6)
    assert await quota.restore(where, 1, "0-0", [])
    answers = [await quota.reserve(where, f"r{index}", Amount(1, 1), MINUTE) for index in range(7)]
    assert [isinstance(answer, Admitted) for answer in answers] == [True] * 5 + [False] * 2
    refused = answers[-1]
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.limit) == ("requests", 6)
    assert refused.retry_after is not None
    assert 8_000_000 < refused.retry_after <= 10_000_000
    assert (await quota.usage(where))["tenant"].held_tokens == 5


async def test_asking_again_changes_nothing(quota: Quota, redis_store) -> None:
    """Reserve and settle of one request id count once, and a settled request is not admitted again."""
    where = limits()
    assert await quota.restore(where, 1, "0-0", [])
    for _ in range(3):
        assert isinstance(await quota.reserve(where, "a", Amount(100, 100), MINUTE), Admitted)
    assert (await quota.usage(where))["tenant"].held_tokens == 100
    answers = [await quota.settle(where, "a", Amount(tokens, 5), b"a") for tokens in (50, 70)]
    assert [(answer.tokens, answer.cost, answer.again) for answer in answers] == [(50, 5, False), (50, 5, True)]
    assert await quota.reserve(where, "a", Amount(100, 100), MINUTE) == Finished(50, 5)
    assert not await quota.renew(where, "a", Amount(100, 100), MINUTE)
    assert await ledger(redis_store, where.tenant) == [b"a"]


async def test_an_expired_hold_comes_back_and_its_call_is_charged_late(quota: Quota) -> None:
    """After its time a hold is given back with the next call; what the call used is charged all the same."""
    where = limits()
    assert await quota.restore(where, 1, "0-0", [])
    await quota.reserve(where, "slow", Amount(1000, 10), 50_000)
    await quota.reserve(where, "renewed", Amount(0, 20), 50_000)
    assert await quota.renew(where, "renewed", Amount(0, 20), MINUTE)
    await asyncio.sleep(0.08)
    assert isinstance(await quota.reserve(where, "next", Amount(1000, 0), MINUTE), Admitted)
    assert (await quota.usage(where))["tenant"].held_cost == 20
    done = await quota.settle(where, "slow", Amount(900, 9), b"slow")
    assert done.late
    assert (done.counted[0].day_tokens, done.counted[0].month_cost) == (900, 9)


async def test_nothing_is_admitted_without_counters(quota: Quota, redis_store) -> None:
    """Lost counters are noticed before a call is admitted, calls under way are held again, and totals come back."""
    where = limits()
    assert await quota.restore(where, 1, "0-0", [])
    await quota.reserve(where, "under way", Amount(300, 30), MINUTE)
    await quota.settle(where, "done", Amount(200, 20), b"done")
    async with Client.from_url(redis_store.gateway_url, protocol=2, driver_info=None) as client:
        await client.delete(*(str(key) for key in where.keys[1:]))
    with pytest.raises(RebuildNeededError):
        await quota.reserve(where, "next", Amount(1, 1), MINUTE)
    totals = [Totals("tenant", 200, 20, 200, 20, 1, 200, 20)]
    assert not await quota.restore(where, 2, "0-0", totals)  # the entry was sent again: it is to be drained first
    assert await ledger(redis_store, where.tenant) == [b"done"]
    await quota.recall(where, [("done", Amount(200, 20))])
    assert await quota.restore(where, 2, f"{2**62}-0", totals)
    answer = await quota.reserve(where, "next", Amount(1, 1), MINUTE)
    assert isinstance(answer, Admitted)
    assert answer.remaining[0].tokens == 1000 - 300 - 200 - 1
    assert (await quota.settle(where, "done", Amount(200, 20), b"done")).again
    usage = (await quota.usage(where))["tenant"]
    assert (usage.tokens, usage.cost, usage.entries) == (200, 20, 1)


async def test_a_restart_keeps_what_was_written_and_lets_nobody_in(own_store) -> None:
    """Redis replays its log as its default user, which therefore may write counters; nobody may log in as that user."""
    where = limits()
    async with client_of(own_store) as quota:
        assert await quota.restore(where, 1, "0-0", [])
        await quota.reserve(where, "a", Amount(100, 10), MINUTE)
        await quota.settle(where, "b", Amount(50, 5), b"b")
        before = await quota.usage(where)
    own_store.server.stop()
    own_store.server.start()
    async with client_of(own_store) as quota:
        assert await quota.usage(where) == before
        assert isinstance(await quota.reserve(where, "c", Amount(1, 1), MINUTE), Admitted)
    for url in (f"redis://{own_store.address}", f"redis://default:@{own_store.address}"):
        async with Client.from_url(url, protocol=2, driver_info=None) as client:
            with pytest.raises(AuthenticationError):
                await client.set("quota:x", 1)


async def test_an_older_redis_is_recognised_by_what_it_has_forgotten(own_store) -> None:
    """Redis comes back from a copy of its data: whoever settled later notices, and nobody is admitted any more."""
    where = limits()
    folder, copy = own_store.server.folder / "appendonlydir", own_store.server.folder / "copy"
    async with client_of(own_store) as quota, client_of(own_store) as other:
        assert await quota.restore(where, 1, "0-0", [])
        await quota.settle(where, "early", Amount(100, 10), b"early")
        await asyncio.to_thread(shutil.copytree, folder, copy)
        await quota.settle(where, "late", Amount(100, 10), b"late")
        os.killpg(own_store.server.pid, signal.SIGKILL)
        await asyncio.to_thread(own_store.server.stop)
        shutil.rmtree(folder)
        shutil.move(copy, folder)
        await asyncio.to_thread(own_store.server.start)
        # Another process settles as many as were lost: a count of entries alone would look right.
        async with asyncio.timeout(20):
            while not (await ledger(own_store, where.tenant))[1:]:
                with contextlib.suppress(UnavailableError):
                    await other.settle(where, "other", Amount(1, 1), b"other")
        await back(quota._redis)
        with pytest.raises(RebuildNeededError):
            await quota.reserve(where, "x", Amount(1, 1), MINUTE)
        with pytest.raises(RebuildNeededError):
            await other.reserve(where, "x", Amount(1, 1), MINUTE)
        assert await ledger(own_store, where.tenant) == [b"early", b"other", b"late"]


async def test_what_the_ledger_has_seen_redis_must_know(quota: Quota) -> None:
    """A process that has just started is told by the ledger how far Redis must be."""
    where = limits()
    assert await quota.restore(where, 7, "0-0", [Totals("tenant", 0, 0, 0, 0, 3, 0, 0)])
    quota.expect(where.tenant, 7, 3)
    assert isinstance(await quota.reserve(where, "a", Amount(1, 1), MINUTE), Admitted)
    quota.expect(where.tenant, 7, 4)
    with pytest.raises(RebuildNeededError):
        await quota.reserve(where, "b", Amount(1, 1), MINUTE)
    assert await quota.restore(where, 8, "0-0", [Totals("tenant", 0, 0, 0, 0, 4, 0, 0)])
    assert isinstance(await quota.reserve(where, "b", Amount(1, 1), MINUTE), Admitted)


async def test_settling_goes_on_when_memory_is_short(own_store) -> None:
    """A full Redis admits nothing new but still takes what calls under way have used."""
    where = limits()
    async with client_of(own_store) as quota:
        assert await quota.restore(where, 1, "0-0", [])
        await quota.reserve(where, "a", Amount(100, 10), MINUTE)
    own_store.server.stop()
    own_store.server.command += ["--maxmemory", "1"]
    own_store.server.start()
    async with client_of(own_store) as quota:
        assert not (await quota.settle(where, "a", Amount(90, 9), b"a")).late
        with pytest.raises(UnavailableError):
            await quota.reserve(where, "b", Amount(1, 1), MINUTE)
    assert await ledger(own_store, where.tenant) == [b"a"]


async def test_a_wrong_clock_of_the_caller_does_no_harm(quota: Quota, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows come from Redis's clock: a process whose own clock is a year off counts in today's window."""
    where = limits()
    assert await quota.restore(where, 1, "0-0", [])
    real = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: real - 365 * 86_400 * 10**9)
    done = await quota.settle(where, "a", Amount(1, 1), b"a")
    start, end = done.counted[0].day
    assert start <= real // 1000 < end


@pytest.mark.parametrize("amount", [(-1, 0), (0, -1), (10**15, 0)])
def test_absurd_amounts_are_refused_before_they_are_sent(amount: tuple[int, int]) -> None:
    """Nothing negative, and nothing so large that sums would be inexact."""
    with pytest.raises(ValueError, match="is not between"):
        Amount(*amount)
