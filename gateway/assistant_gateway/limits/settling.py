"""Calls that have ended, on their way into Redis: at once, or when it is back. And what they leave of gone tenants."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TypeAlias

from assistant_gateway.limits.ahead import Ahead
from assistant_gateway.limits.leases import Leases
from assistant_gateway.limits.limit_scope import Amount, Limits
from assistant_gateway.limits.quota import Quota
from assistant_gateway.limits.redis import Redis, UnavailableError

AT_ONCE = 200
CLEAR_SECONDS = 2.0
GONE_SECONDS = 3600.0  # calls of a tenant that is gone end within this time; the drain knows it as long

Settling: TypeAlias = tuple[Limits, str, Amount, bytes]


class Settlements:
    """Settles calls, each until Redis has taken it."""

    def __init__(self, redis: Redis | None, quota: Quota | None, leases: Leases, ahead: Ahead) -> None:
        self._ahead = ahead
        self._redis = redis
        self._quota = quota
        self._leases = leases
        self._unsettled: deque[Settling] = deque()
        self._settling: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, int] = {}  # how many of `_unsettled` each tenant has
        self._gone: dict[str, float] = {}  # tenants that were removed, and when
        self._left: dict[str, Limits] = {}  # of these: who may have keys again
        self._clear_at = 0.0

    def __len__(self) -> int:
        return len(self._unsettled) + len(self._settling)

    @property
    def _is_away(self) -> bool:
        return self._redis is None or not self._redis.available

    def waiting(self, tenant: str) -> int:
        """Return how many calls of a tenant wait for Redis."""
        return self._waiting.get(tenant, 0)

    # --- settling ----------------------------------------------------------------------------------------------

    def settle(self, settling: Settling) -> None:
        """Settle a call in the background, or when Redis is back."""
        if self._is_away:
            self._wait(settling)
            return
        task = asyncio.get_running_loop().create_task(self._settle(settling))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, settling: Settling) -> None:
        if self._quota is None:
            return
        try:
            await self._quota.settle(*settling)
        except UnavailableError:
            self._wait(settling)
            return
        self._ahead.discard(settling[1])
        self._leases.settled(settling[1])
        if settling[0].tenant in self._gone:
            self._left[settling[0].tenant] = settling[0]

    def _wait(self, settling: Settling) -> None:
        self._unsettled.append(settling)
        tenant = settling[0].tenant
        self._ahead.add(tenant, settling[1], settling[3])
        self._waiting[tenant] = self._waiting.get(tenant, 0) + 1

    def _next(self) -> Settling:
        settling = self._unsettled.popleft()
        tenant = settling[0].tenant
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            del self._waiting[tenant]
        return settling

    async def catch_up(self) -> None:
        """Settle what waits; what Redis refuses again has its next turn later."""
        left = len(self._unsettled)
        while left > 0 and not self._is_away:
            batch = [self._next() for _ in range(min(AT_ONCE, left))]
            left -= len(batch)
            self._settling.add(task := asyncio.create_task(self._settle_all(batch)))
            task.add_done_callback(self._settling.discard)
            await asyncio.shield(task)

    async def _settle_all(self, batch: list[Settling]) -> None:
        await asyncio.gather(*(self._settle(settling) for settling in batch))

    # --- tenants that are gone ---------------------------------------------------------------------------------

    def forget(self, tenant: str) -> None:
        """Note that a tenant is gone: keys that its last calls make in Redis are to be removed again."""
        self._gone[tenant] = time.monotonic()

    def remember(self, tenant: str) -> None:
        """Note that a tenant is there."""
        if self._gone:
            self._gone.pop(tenant, None)
            self._left.pop(tenant, None)

    async def clear(self) -> None:
        """Remove what calls left in Redis that ended after their tenant's keys were removed."""
        now = time.monotonic()
        if not self._gone or now < self._clear_at or self._quota is None or self._is_away:
            return
        self._clear_at = now + CLEAR_SECONDS
        for tenant in [tenant for tenant, since in self._gone.items() if now - since > GONE_SECONDS]:
            self.remember(tenant)
        for tenant, limits in list(self._left.items()):
            with contextlib.suppress(UnavailableError):
                if await self._quota.clear(limits):
                    self._left.pop(tenant, None)
