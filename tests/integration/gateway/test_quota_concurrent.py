"""Calls of several gateways at once against one limit; and a Redis that is killed or emptied in the middle of them.

`QUOTA_CONCURRENT_OPERATIONS` sets how many operations there are: 1,000,000 with `TEST_LONG=1`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator

import pytest
from ledger_database import make_ledger
from ledger_tenant import back, entry

from assistant_cluster import stores
from assistant_gateway.errors import GatewayError
from assistant_gateway.ledger.database import LedgerDatabase
from assistant_gateway.ledger.drain import Drain
from assistant_gateway.ledger.entry import encode_entry
from assistant_gateway.ledger.limiter import limiter_with_ledger
from assistant_gateway.limits.limit_scope import Amount, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.quota import SCRIPT, Admitted, Quota
from assistant_gateway.limits.redis import Redis

LONG = os.environ.get("TEST_LONG") == "1"
OPERATIONS = int(os.environ.get("QUOTA_CONCURRENT_OPERATIONS", "1000000" if LONG else "6000"))
ROUND = 20_000  # operations on one tenant; then another, so that its stream does not fill memory
CLIENTS, WORKERS = 4, 40
MINUTE = 60_000_000
LOSSES = ("killed", "flushed") * (10 if LONG else 1)


@contextlib.asynccontextmanager
async def quotas(store: stores.Redis, count: int) -> AsyncIterator[list[Quota]]:
    """Clients as so many gateway processes have them."""
    made = [Redis(store.gateway_url, SCRIPT, answer_seconds=5) for _ in range(count)]
    keepers = [asyncio.create_task(redis.run()) for redis in made]
    for redis in made:
        await back(redis)
    yield [Quota(redis) for redis in made]
    for keeper in keepers:
        keeper.cancel()
    for redis in made:
        await redis.close()


@pytest.mark.timeout(180 + OPERATIONS / 200)
async def test_no_limit_is_passed_by_one_token_however_calls_meet(redis_store) -> None:
    """Reserve, renew, settle, settle again, from many at once: use and holds never pass a limit, and books agree."""
    done = 0
    async with quotas(redis_store, CLIENTS) as clients:
        while done < OPERATIONS:
            done += await _round(clients, min(ROUND, OPERATIONS - done))
    print(f"{done} operations")


async def _round(clients: list[Quota], operations: int) -> int:
    limit, budget = operations * 20, operations * 10  # some third of what is asked for
    tenant = f"t_{uuid.uuid4().hex[:10]}"
    levels = [LimitScope("tenant", tokens=limit, budget=budget), LimitScope("assistant", "a", tokens=limit * 3 // 4)]
    limits = LimitSet.of("ns", tenant, "UTC", levels, assistant="a").limits
    quota = clients[0]
    assert await quota.restore(limits, 1, "0-0", [])
    count, settled, largest = 0, Amount(0, 0), 0

    async def work(own: Quota) -> None:
        nonlocal count, settled
        while count < operations:
            call, worst = uuid.uuid4().hex, Amount(random.randint(0, 200), random.randint(0, 100))
            count += 1
            if not isinstance(await own.reserve(limits, call, worst, MINUTE), Admitted):
                continue
            if random.random() < 0.2:
                count += 1
                await random.choice(clients).renew(limits, call, worst, MINUTE)
            share = random.random()
            used = worst if share > 0.8 else Amount(int(worst.tokens * share), int(worst.cost * share))
            for _ in range(2 if random.random() < 0.1 else 1):
                count += 1
                await random.choice(clients).settle(limits, call, used, b"e")
            settled = Amount(settled.tokens + used.tokens, settled.cost + used.cost)

    async def look() -> None:
        nonlocal largest
        while True:
            for field, usage in (await quota.usage(limits)).items():
                most = limit if field == "tenant" else limit * 3 // 4
                assert usage.counted.day_tokens + usage.held_tokens <= most
                assert field != "tenant" or usage.counted.month_cost + usage.held_cost <= budget
                largest = max(largest, usage.counted.day_tokens)
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    await asyncio.gather(*(work(random.choice(clients)) for _ in range(WORKERS)))
    if looking.done():
        looking.result()
    looking.cancel()
    usage = (await quota.usage(limits))["tenant"]
    assert (usage.tokens, usage.cost) == (settled.tokens, settled.cost)
    assert (usage.held_tokens, usage.held_cost) == (0, 0)
    assert usage.counted.day_tokens <= limit
    await quota._redis.command("DEL", *(str(key) for key in limits.keys[1:]))
    return count


class Gateway:
    """One process's limits and drain, without HTTP."""

    def __init__(self, store: stores.Redis, url: str, terms: LimitSet) -> None:
        self.redis = Redis(store.gateway_url, SCRIPT)
        self.database = LedgerDatabase(url)
        self.limiter = limiter_with_ledger(self.redis, self.database)
        drain = Drain(self.redis, self.database, lambda: [terms.limits.tenant], lambda _state: None, 0.1)
        self.tasks = [asyncio.create_task(run()) for run in (self.redis.run, self.limiter.run, drain.run)]
        self.drain = drain
        self.terms = terms
        self.used = 0

    async def calls(self, until: asyncio.Event) -> None:
        """Call until told to stop: what is admitted uses all that it holds."""
        while not until.is_set():
            call = uuid.uuid4().hex
            try:
                answer = await self.limiter.reserve(self.terms, call, Amount(100, 0))
            except GatewayError:
                await asyncio.sleep(0.02)
                continue
            if not isinstance(answer, Admitted):
                await asyncio.sleep(0.02)
                continue
            await asyncio.sleep(random.uniform(0, 0.05))
            self.used += 100
            row = entry(call, scope="", input=100, output=0, cost=0)
            self.limiter.settle(self.terms.limits, call, Amount(100, 0), encode_entry(row))

    async def close(self) -> None:
        """End."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.database.close()
        await self.redis.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_redis_lets_next_to_nothing_over_a_limit(loss: str) -> None:
    """Killed or emptied under load: at most 2 % over the limit; every call is billed once; exact again within 10 s."""
    with stores.redis() as store, stores.postgres() as postgres:
        url, tenant = await make_ledger(postgres), f"t_{uuid.uuid4().hex[:10]}"
        limit = 200_000
        terms = LimitSet.of("acme", tenant, "UTC", [LimitScope("tenant", tokens=limit)])
        gateways = [Gateway(store, url, terms) for _ in range(3)]
        for gateway in gateways:
            await back(gateway.redis)
        ending = asyncio.Event()
        calls = [asyncio.create_task(gateway.calls(ending)) for gateway in gateways for _ in range(10)]
        try:
            await _until(lambda: sum(gateway.used for gateway in gateways) > limit // 4)
            os.killpg(store.server.pid, signal.SIGKILL)
            await asyncio.to_thread(store.server.stop)
            if loss == "flushed":
                for file in (store.server.folder / "appendonlydir").iterdir():
                    file.unlink()
            await asyncio.to_thread(store.server.start)
            returned = time.monotonic()
            before = sum(gateway.used for gateway in gateways)
            await _until(lambda: sum(gateway.used for gateway in gateways) > before + 1000)
            assert time.monotonic() - returned < 10
            # Until nothing is left of the limit.
            await _until(lambda: sum(gateway.used for gateway in gateways) >= limit * 99 // 100)
        finally:
            ending.set()
            await asyncio.gather(*calls)
        await _until(lambda: not any(gateway.limiter.unsettled for gateway in gateways))
        while await gateways[0].drain.turn(wait=True):
            pass
        used = sum(gateway.used for gateway in gateways)
        async with gateways[0].database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT count(*), count(DISTINCT call), sum(input + output) FROM ledger_entries WHERE tenant_key = $1",
                tenant,
            )
        counted = (await Quota(gateways[0].redis).usage(terms.limits))["tenant"]
        for gateway in gateways:
            await gateway.close()
    print(f"{loss}: used {used} of {limit}")
    assert tuple(row) == (used // 100, used // 100, used)
    assert counted.counted.day_tokens == used
    assert used <= limit * 102 // 100


async def _until(true: object) -> None:
    async with asyncio.timeout(60):
        while not true():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
