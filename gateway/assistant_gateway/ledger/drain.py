"""Moves the ledger's entries from Redis to Postgres. They leave Redis only when Postgres has committed them.

Every gateway process does this for every tenant. Two do not get in each other's way: who finds a tenant taken goes on
to the next, and what one moved the other finds to be there. A process that is killed between commit and removal leaves
entries in Redis that are in Postgres; the next one sees that, and removes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from assistant_crds import naming
from assistant_gateway.ledger import rows
from assistant_gateway.ledger.database import LedgerDatabase, LedgerUnavailableError, State
from assistant_gateway.limits.redis import Redis, UnavailableError
from assistant_observability import logs, metrics

BATCH = 500  # some 275 KB
BATCHES = 20  # of one tenant before the others have their turn
TOGETHER = 500  # questions to Redis in one round trip
RETRY_SECONDS = (0.5, 5.0)
START_SECONDS = 0.1  # until the first tenants are known
REMEMBERED_SECONDS = 3600.0  # a tenant that is gone: calls under way then are settled later

_log = logs.logger(__name__)


class Moved(msgspec.Struct, frozen=True):
    """One batch of a tenant. `entries`: how many left the stream; None: somebody else is at it."""

    entries: int | None
    more: bool = False


async def move(redis: Redis, database: LedgerDatabase, tenant: str, *, wait: bool = False) -> Moved:
    """Move the oldest entries of a tenant; `wait` for whoever is at it.

    Raises:
        LedgerUnavailableError, UnavailableError: they stay in Redis, or in both.
    """
    stream = naming.ledger_stream(tenant)
    async with database.books(tenant, wait=wait) as books:
        if books is None:
            return Moved(None)
        page = await redis.command("XRANGE", stream, "-", "+", "COUNT", BATCH)
        if not page:
            return Moved(0)
        found = [rows.read(tenant, name.decode(), fields) for name, fields in page]
        batch = [item for item in found if isinstance(item, rows.Row)]
        rejects = [item for item in found if isinstance(item, rows.Reject)]
        recorded = await books.record(batch, rejects)
    await redis.command("XDEL", stream, *(name for name, _ in page))
    for result, count in msgspec.structs.asdict(recorded).items():
        metrics.LEDGER_ENTRIES.labels(result).inc(count)
    if recorded.rejected:
        reason = next((item.reason for item in rejects), "refused by Postgres")
        _log.error("entries of the ledger set aside", tenant=tenant, entries=recorded.rejected, first=reason)
    return Moved(len(page), more=len(page) == BATCH)


async def move_all(redis: Redis, database: LedgerDatabase, tenant: str) -> None:
    """Move what a tenant's stream holds, or leave it to whoever is at it."""
    while (await move(redis, database, tenant)).more:
        pass


class Drain:
    """Moves entries, for ever, and says what waits."""

    def __init__(
        self,
        redis: Redis,
        database: LedgerDatabase,
        tenants: Callable[[], Iterable[str]],
        learned: Callable[[State], None],
        seconds: float,
        waiting: Callable[[Mapping[str, int]], None] = lambda _entries: None,
    ) -> None:
        """`tenants`: their keys; `learned` is told how far the ledger of each of them is.

        Once before anything is moved, for a Redis that has lost some; and again, when all is moved, after the start and
        after each outage of Redis: a process that was killed meanwhile may have written calls that no counter has.

        `waiting` is told at each turn how many entries of each tenant are in Redis.
        """
        self._redis = redis
        self._database = database
        self._tenants = tenants
        self._learned = learned
        self._seconds = seconds
        self._waiting = waiting
        self._seen: dict[str, float] = {}
        self._told: set[str] = set()
        self._problem = ""
        self._unsure = True  # whether Redis has been away since the ledger was last looked at
        for result in ("inserted", "known", "rejected"):
            metrics.LEDGER_ENTRIES.labels(result)

    async def run(self) -> None:
        """Move entries whenever there are some, for ever."""
        delay = RETRY_SECONDS[0]
        while True:
            try:
                more = await self.turn()
            except UnavailableError:  # Redis: who looks after it says so
                more, self._unsure = False, True
            except LedgerUnavailableError as error:
                self._fail(str(error))
                await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311
                delay = min(delay * 2, RETRY_SECONDS[1])
                continue
            delay = RETRY_SECONDS[0]
            pause = self._seconds if self._seen else START_SECONDS
            await asyncio.sleep(0 if more else pause * random.uniform(0.8, 1.2))  # noqa: S311

    async def turn(self, *, wait: bool = False) -> bool:
        """Go once over all tenants; return whether there is more to do.

        `wait` for a tenant that somebody else moves: its page may be older than what this process has appended.

        Raises:
            LedgerUnavailableError, UnavailableError: Postgres or Redis is away.
        """
        tenants = self._known_tenants()
        waiting = await self._look(tenants)
        await self._learn(tenants)
        more, alone = False, True
        for tenant in random.sample(waiting, len(waiting)):
            for _ in range(BATCHES):
                moved = await move(self._redis, self._database, tenant, wait=wait)
                alone &= moved.entries is not None
                self._recover()
                if not moved.more:
                    break
            else:
                more = True
        if self._unsure and alone and not more:
            self._told.clear()
            await self._learn(tenants)
            self._unsure = False
        return more

    async def close(self, seconds: float) -> None:
        """Move what is left before the process ends, as long as it may take; another process moves the rest."""
        with contextlib.suppress(LedgerUnavailableError, UnavailableError, TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.turn(wait=True):
                    pass

    def _known_tenants(self) -> list[str]:
        now = time.monotonic()
        self._seen |= dict.fromkeys(self._tenants(), now)
        for tenant in [tenant for tenant, seen in self._seen.items() if now - seen > REMEMBERED_SECONDS]:
            del self._seen[tenant]
            self._told.discard(tenant)
        return list(self._seen)

    async def _look(self, tenants: list[str]) -> list[str]:
        """Return who has entries, and measure how many there are and how old."""
        lengths = await self._ask(["XLEN", naming.ledger_stream(tenant)] for tenant in tenants)
        waiting = [tenant for tenant, length in zip(tenants, lengths, strict=True) if length]
        self._waiting(dict(zip(tenants, lengths, strict=True)))
        metrics.LEDGER_WAITING.set(sum(lengths))
        firsts = await self._ask(["XRANGE", naming.ledger_stream(tenant), "-", "+", "COUNT", 1] for tenant in waiting)
        oldest = min((int(first[0][0].partition(b"-")[0]) for first in firsts if first), default=None)
        metrics.LEDGER_OLDEST.set(0 if oldest is None else max(0.0, time.time() - oldest / 1000))
        return waiting

    async def _ask(self, commands: Iterable[list[str | int | bytes]]) -> list[Any]:
        asked: list[list[str | int | bytes]] = list(commands)
        answers: list[Any] = []
        for start in range(0, len(asked), TOGETHER):
            answers += await self._redis.commands(asked[start : start + TOGETHER])
        return answers

    async def _learn(self, tenants: list[str]) -> None:
        """Say how far the ledger of each tenant is that was not told of: a Redis that has less has lost some."""
        new = [tenant for tenant in tenants if tenant not in self._told]
        if new:
            for state in await self._database.states(new):
                self._learned(state)
            self._told.update(new)

    def _fail(self, reason: str) -> None:
        metrics.LEDGER_ERRORS.labels("drain").inc()
        if not self._problem:
            _log.error("the ledger in Postgres is away: entries stay in Redis", reason=reason)
        self._problem = reason

    def _recover(self) -> None:
        if self._problem:
            _log.info("the ledger in Postgres answers: entries are moved")
        self._problem = ""
