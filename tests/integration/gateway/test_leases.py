"""`failurePolicy: Bounded` on a real Redis that goes away: leases let a little through, and no limit is passed.

`QUOTA_LEASE_ROUNDS` sets how many random schedules there are; `TEST_LONG=1` makes it 20.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from gateway_world import Cluster, policy, running
from lease_world import RULES, Process, call, entries_of, keep_calling, processes, terms_of, usage_of
from redis.asyncio import Redis as Client

from assistant_cluster import stores
from assistant_gateway.config import Settings
from assistant_gateway.ledger.entry import LedgerEntry
from assistant_gateway.limits.limit_scope import Amount, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.quota import SCRIPT, Quota, ScopeUsage
from assistant_gateway.limits.redis import Redis

ROUNDS = int(os.environ.get("QUOTA_LEASE_ROUNDS", "20" if os.environ.get("TEST_LONG") == "1" else "1"))
TENANT = LimitScope("tenant", tokens=500_000, budget=450_000)
ASSISTANTS = (
    LimitScope("assistant", "support", tokens=350_000, period="Day"),
    LimitScope("assistant", "sales", budget=300_000, period="Day"),
)
LEVELS = {level.field: level for level in (TENANT, *ASSISTANTS)}
SMALL = Amount(100, 100)


def routes(namespace: str, *, bounded: bool) -> list[LimitSet]:
    """Return the terms of both assistants."""
    return [terms_of(namespace, [TENANT, level], level.name, bounded=bounded) for level in ASSISTANTS]


def check_limits(usage: dict[str, ScopeUsage]) -> None:
    """What was used is within every limit."""
    for field, scope in usage.items():
        level = LEVELS[field]
        cost = scope.counted.day_cost if level.period == "Day" else scope.counted.month_cost
        assert level.tokens is None or scope.counted.day_tokens <= level.tokens, (field, usage)
        assert level.budget is None or cost <= level.budget, (field, usage)


async def lose(url: str, terms: LimitSet) -> None:
    """Lose all counters and all holds. What was settled lately is still known, as it is from the ledger."""
    _, state, requests, *_ = (str(key) for key in terms.limits.keys)
    async with Client.from_url(url, protocol=2, driver_info=None) as client:
        records = await client.hgetall(requests)
        held = [name for name, record in records.items() if msgspec.msgpack.decode(record)[0] >= 0]
        await client.delete(state)
        if held:
            await client.hdel(requests, *held)


async def trouble(store: stores.Redis, made: list[Process], terms: LimitSet, *, loses: bool) -> None:
    """Let Redis go away for some or all of the processes, in one of many ways, and return."""
    away = random.uniform(1.0, 3.0)
    event = random.choice(("one", "some", "all", "pause", "kill"))
    if event == "pause":
        store.server.pause()
        await asyncio.sleep(away)
        store.server.resume()
    elif event == "kill":
        os.killpg(store.server.pid, signal.SIGKILL)
        await asyncio.to_thread(store.server.stop)
        await asyncio.sleep(away)
        await asyncio.to_thread(store.server.start)
    else:
        cut = random.sample(made, {"one": 1, "some": 2, "all": len(made)}[event])
        for process in cut:
            process.cable.cut()
        await asyncio.sleep(away)
        if loses and event == "all":
            await lose(store.gateway_url, terms)
        for process in cut:
            process.cable.mend()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("number", range(ROUNDS))
async def test_whatever_happens_to_redis_no_limit_is_passed(number: int, *, bounded: bool) -> None:
    """Three processes under load and a Redis that comes and goes and loses its counters: all is charged once, and fits.

    Closed: nothing is admitted without Redis.
    """
    random.seed(os.urandom(8))
    with stores.redis() as store:
        store.server.stop()
        store.server.command += ["--appendfsync", "no"]  # killed, it loses nothing
        store.server.start()
        terms = routes(f"leases{number}", bounded=bounded)
        async with processes(3, store.port, store.gateway_url) as made:
            callers = [asyncio.create_task(keep_calling(process, terms)) for process in made for _ in range(8)]
            redis = Redis(store.gateway_url, SCRIPT, answer_seconds=2)
            keeper = asyncio.create_task(redis.run())
            quota = Quota(redis)
            await asyncio.sleep(1.5)  # the first leases
            for _ in range(3):
                await trouble(store, made, terms[0], loses=True)
                await asyncio.sleep(random.uniform(0.3, 4.0))
                check_limits(await usage_of(quota, terms[0]))
            await use_up_while_one_is_away(made, terms)
            for task in callers:
                task.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            async with asyncio.timeout(30):
                while any(process.limiter.degraded or process.limiter.unsettled for process in made):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            for _ in range(100):  # until somebody has restored what was lost
                if await call(made[0], terms[0], Amount(0, 0)) == "admitted":
                    break
                await asyncio.sleep(0.1)
            for process in made:
                await process.limiter.close(5)
            usage = await usage_of(quota, terms[0])
            entries = await entries_of(store.gateway_url, terms[0])
            keeper.cancel()
            await redis.close()
    check_limits(usage)
    check_books(usage, entries, made)
    outcomes = sum((process.outcomes for process in made), Counter())
    print(f"{dict(outcomes)}; used {usage['tenant'].counted}")
    assert outcomes["admitted"] > 100
    assert (outcomes["leased"] > 0) is bounded


async def use_up_while_one_is_away(made: list[Process], terms: list[LimitSet]) -> None:
    """Cut one process off when it has leases, if there is enough left for any, and let it use them up, while another
    uses whatever it can get; then let the first one back."""
    if terms[0].bounded:
        with contextlib.suppress(TimeoutError):
            for one in terms:
                await until_leased(made[0], one, 3)
    made[0].cable.cut()
    await asyncio.sleep(0.7)
    for size in (20_000, 2000, 200):
        for one in terms:
            async with asyncio.timeout(60):
                while await call(made[1], one, Amount(size, size)) != "refused":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    for one in terms:
        while await call(made[0], one, SMALL) == "leased":  # noqa: ASYNC110
            await asyncio.sleep(0)
    made[0].cable.mend()


def check_books(usage: dict[str, ScopeUsage], entries: list[LedgerEntry], made: list[Process]) -> None:
    """Nothing is held, and calls, entries and counters say the same."""
    assert all((scope.held_tokens, scope.held_cost) == (0, 0) for scope in usage.values()), usage
    used = {name: found for process in made for name, found in process.used.items()}
    assert {entry.call for entry in entries} == set(used)
    assert len(entries) == len(used)
    for field, scope in usage.items():
        own = [amount for assistant, amount in used.values() if field in ("tenant", f"assistant:{assistant}")]
        assert scope.tokens == sum(amount.tokens for amount in own) == scope.counted.day_tokens
        assert scope.cost == sum(amount.cost for amount in own) == scope.counted.day_cost


async def until_leased(process: Process, terms: LimitSet, seconds: float = 20) -> None:
    """Be active until the process has a lease that it may use."""
    async with asyncio.timeout(seconds):
        while process.limiter._leases.room(terms, SMALL) is None:
            await call(process, terms, Amount(0, 0))
            await asyncio.sleep(0.05)


async def test_a_lease_lets_its_own_size_through_and_then_nothing(redis_store) -> None:
    """Away: calls go on until the lease is used up, then 503; what they did not use is free for the next ones."""
    terms = terms_of("lease-size", [LimitScope("tenant", tokens=8000)], "")
    async with processes(1, redis_store.port, redis_store.gateway_url) as (process,):
        await until_leased(process, terms)
        process.cable.cut()
        assert await call(process, terms, Amount(1001, 0)) == "503"
        assert [await call(process, terms, SMALL, share=0.5) for _ in range(21)] == ["leased"] * 19 + ["503"] * 2
        process.cable.mend()
        async with asyncio.timeout(10):
            while process.limiter.degraded or process.limiter.unsettled:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await process.limiter.close(5)
        usage = (await usage_of(process.limiter._quota, terms))["tenant"]
        assert (usage.counted.day_tokens, usage.held_tokens) == (19 * 50, 0)


async def test_a_lease_is_held_from_others_and_too_small_a_rest_is_left_alone(redis_store) -> None:
    """Others can use all but what a cut-off process may still spend; small rests are not divided up."""
    terms = terms_of("lease-held", [LimitScope("tenant", tokens=8000)], "")
    async with processes(2, redis_store.port, redis_store.gateway_url) as (one, two):
        await until_leased(one, terms)
        one.cable.cut()
        assert await call(two, terms, Amount(7001, 0)) == "refused"
        assert await call(two, terms, Amount(7000, 0)) == "admitted"
        assert await call(one, terms, Amount(1000, 0)) == "leased"
        one.cable.mend()
    tiny = terms_of("lease-tiny", [LimitScope("tenant", tokens=RULES.share * RULES.least_tokens - 1)], "")
    async with processes(1, redis_store.port, redis_store.gateway_url) as (process,):
        assert await call(process, tiny, Amount(0, 0)) == "admitted"
        await asyncio.sleep(1.5)
        process.cable.cut()
        assert await call(process, tiny, Amount(1, 0)) == "503"
        process.cable.mend()


async def test_a_lease_gives_way_to_calls(redis_store) -> None:
    """A call that does not fit beside a lease fits as soon as the lease has been given back for it."""
    terms = terms_of("lease-way", [LimitScope("tenant", tokens=8000)], "")
    async with processes(1, redis_store.port, redis_store.gateway_url) as (process,):
        await until_leased(process, terms)
        assert await call(process, terms, Amount(8000, 0)) == "refused"
        async with asyncio.timeout(5):
            while await call(process, terms, Amount(8000, 0)) != "admitted":  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_limit_lowered_meanwhile_ends_the_lease(redis_store) -> None:
    """A lease that was taken under a larger limit lets nothing through under a smaller one, but does under a larger."""
    before = terms_of("lease-lowered", [LimitScope("tenant", tokens=8000)], "")
    lower = terms_of("lease-lowered", [LimitScope("tenant", tokens=7999)], "")
    higher = terms_of("lease-lowered", [LimitScope("tenant", tokens=9000)], "")
    async with processes(1, redis_store.port, redis_store.gateway_url) as (process,):
        await until_leased(process, before)
        process.cable.cut()
        assert await call(process, lower, SMALL) == "503"
        assert await call(process, higher, SMALL) == "leased"
        process.cable.mend()


async def test_a_bounded_tenant_goes_on_through_the_gateway(
    cluster: Cluster, settings: Callable[..., Settings]
) -> None:
    """Over HTTP: answers are marked and counted, what does not fit is 503, all is in the ledger when Redis is back."""
    name = "leases-http"
    with stores.redis() as store:
        async with running(settings(redis_url=store.gateway_url)) as gateway:
            sealed = cluster.put_policy(policy(name, ["good"], tokens_per_day=1_000_000, failure_policy="Bounded"))
            headers = {"Authorization": f"Bearer {cluster.token(name)}"}

            async def ask(**fields: object) -> tuple[int, bool]:
                body = {"model": "good", "messages": [{"role": "user", "content": "Hi"}], **fields}
                url = f"{gateway.url}/v1/chat/completions"
                async with gateway.client.post(url, json=body, headers=headers) as answer:
                    await answer.read()
                    return answer.status, answer.headers.get("x-ratelimit-degraded") == "1"

            async with asyncio.timeout(10):
                while await ask() != (200, False):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            terms = gateway.server._gateway._policies.get(name).terms
            async with asyncio.timeout(20):
                while gateway.server._limiter._leases.room(terms, SMALL) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            left = f'assistant_quota_lease_remaining{{assistant="",kind="tokens",tenant="{name}"}}'
            admitted, refused = (
                f'assistant_quota_lease_calls_total{{result="{result}",tenant="{name}"}}'
                for result in ("admitted", "refused")
            )
            # A busy machine may have let Redis look away before.
            admitted_before, refused_before = await gateway.metric(admitted), await gateway.metric(refused)
            before = await gateway.metric(left)
            assert 40_000 < before <= 50_000
            store.server.pause()
            assert await ask() == (200, True)
            assert await ask(max_tokens=60_000) == (503, False)
            assert await gateway.metric(admitted) == admitted_before + 1
            assert await gateway.metric(refused) == refused_before + 1
            assert await gateway.metric(left) == before - 15  # corrected to what was used
            store.server.resume()
            async with asyncio.timeout(10):
                while gateway.server._limiter.degraded or gateway.server._limiter.unsettled:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            entries = await entries_of(store.gateway_url, terms)
            assert {entry.tokens for entry in entries} == {15}
            assert len(entries) == (await gateway.server._limiter._quota.usage(terms.limits))["tenant"].entries
    assert sealed.failure_policy == "Bounded"
