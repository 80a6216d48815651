"""A gateway's limits at work on a real Redis, without a gateway around them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from assistant_cluster import stores
from assistant_gateway.ledger.database import LedgerDatabase
from assistant_gateway.ledger.limiter import limiter_with_ledger
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import SCRIPT
from assistant_gateway.limits.redis import Redis


@contextlib.asynccontextmanager
async def limiter_of(store: stores.Redis, ledger: LedgerDatabase | None = None) -> AsyncIterator[Limiter]:
    """A gateway's limits, with the time-outs they have there; at the end they are gone, as if killed."""
    redis = Redis(store.gateway_url, SCRIPT)
    limiter = limiter_with_ledger(redis, ledger)
    tasks = [asyncio.create_task(redis.run()), asyncio.create_task(limiter.run())]
    await until(lambda: redis.available)
    yield limiter
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await redis.close()


async def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
