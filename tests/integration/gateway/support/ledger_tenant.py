"""A tenant of a gateway process that has a real Redis and a real Postgres, without HTTP around it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from redis.asyncio import Redis as Client

from assistant_crds import naming
from assistant_gateway.ledger.compare import Comparison, Drift
from assistant_gateway.ledger.database import LedgerDatabase
from assistant_gateway.ledger.drain import Drain, move_all
from assistant_gateway.ledger.entry import LedgerEntry, encode_entry
from assistant_gateway.ledger.rebuild import rebuild
from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.quota import SCRIPT, Admitted, Quota, RebuildNeededError, ScopeUsage
from assistant_gateway.limits.redis import Redis

HOLD = 60_000_000
TOKENS = (7, 5)  # in and out, of each call
COST = 3


def entry(call: str, tenant: str = "acme", scope: str = "support", **changes: Any) -> LedgerEntry:
    """Return an entry of 12 tokens that cost 3."""
    values: dict[str, Any] = {
        "call": call,
        "tenant": tenant,
        "name": "support",
        "scope": scope,
        "operation": "chat",
        "purpose": "chat",
        "request": f"request {call}",
        "provider": "demo",
        "model": "m",
        "input": TOKENS[0],
        "output": TOKENS[1],
        "source": "reported",
        "cost": COST,
        "started": 1_790_000_000_000_000,
        "duration": 1000,
        "outcome": "ok",
    }
    return LedgerEntry(**{**values, **changes})


class Tenant:
    """What one process knows of one tenant."""

    redis_url = ""

    def __init__(self, redis: Redis, database: LedgerDatabase, url: str, key: str = "") -> None:
        self.redis, self.database, self.url = redis, database, url
        self.quota = Quota(redis)
        self.key = key or f"t_{uuid.uuid4().hex[:10]}"
        levels = [LimitScope("tenant", tokens=10**9, budget=10**9), LimitScope("assistant", "support", tokens=10**8)]
        self.limits = Limits.of(self.key, "Europe/Berlin", levels)
        self.whole = Limits.of(self.key, "Europe/Berlin", levels[:1])
        self.drain = Drain(redis, database, lambda: [self.key], lambda _state: None, 0.05)
        self.comparison = Comparison(redis, database, lambda: {self.key: ("acme", self.limits)}, 0.1)

    async def settle(self, *calls: str, scope: str = "support") -> None:
        """Settle calls that were not held."""
        limits = self.limits if scope else self.whole
        for call in calls:
            await self.quota.settle(limits, call, Amount(sum(TOKENS), COST), encode_entry(entry(call, scope=scope)))

    async def reserve(self, call: str = "") -> Admitted:
        """Hold a call, and rebuild the counters when they are lost."""
        call = call or uuid.uuid4().hex
        try:
            answer = await self.quota.reserve(self.limits, call, Amount(1, 1), HOLD)
        except RebuildNeededError:
            await rebuild(self.redis, self.quota, self.limits, self.database)
            answer = await self.quota.reserve(self.limits, call, Amount(1, 1), HOLD)
        assert isinstance(answer, Admitted)
        return answer

    async def move(self) -> None:
        """Move everything to Postgres."""
        await move_all(self.redis, self.database, self.key)

    async def used(self) -> tuple[int, int, int]:
        """Return entries, tokens and cost that were counted, of which day, month and ever have to agree."""
        scope: ScopeUsage = (await self.quota.usage(self.limits))["tenant"]
        counted = scope.counted
        assert (counted.day_tokens, counted.day_cost) == (counted.month_tokens, counted.month_cost)
        assert (counted.day_tokens, counted.day_cost) == (scope.tokens, scope.cost)
        return scope.entries, scope.tokens, scope.cost

    async def waiting(self) -> int:
        """Return how many entries are in Redis."""
        return int(await self.redis.command("XLEN", naming.ledger_stream(self.key)))

    async def rows(self) -> list[str]:
        """Return the calls in Postgres, as often as they are there."""
        connection = await asyncpg.connect(self.url)
        found = await connection.fetch("SELECT call FROM ledger_entries WHERE tenant_key = $1 ORDER BY call", self.key)
        await connection.close()
        return [row[0] for row in found]

    async def fetch(self, query: str) -> list[Any]:
        """Ask Postgres; `$1` is the tenant's key."""
        connection = await asyncpg.connect(self.url)
        found = await connection.fetch(query, self.key)
        await connection.close()
        return [tuple(row) for row in found]

    async def drifts(self) -> list[Drift] | None:
        """Compare ledger and counters."""
        return await self.comparison.tenant(self.limits)

    async def lose(self) -> None:
        """Take everything of the tenant out of Redis, as a flush would."""
        names = [str(key) for key in self.limits.keys[1:]]
        await self.redis.command("DEL", *names)


async def back(redis: Redis) -> None:
    """Wait until Redis answers."""
    async with asyncio.timeout(20):
        while not redis.available:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def tenant_of(redis_url: str, url: str, key: str = "") -> AsyncIterator[Tenant]:
    """Start what a process has."""
    redis = Redis(redis_url, SCRIPT, answer_seconds=2)
    keeper = asyncio.create_task(redis.run())
    database = LedgerDatabase(url)
    await back(redis)
    made = Tenant(redis, database, url, key)
    made.redis_url = redis_url
    yield made
    keeper.cancel()
    await database.close()
    await redis.close()


@contextlib.asynccontextmanager
async def raw(redis_url: str) -> AsyncIterator[Client]:
    """A plain client with the gateway's rights."""
    async with Client.from_url(redis_url, protocol=2, driver_info=None) as client:
        yield client
