"""Three processes that call all the time while Postgres or Redis goes away, or comes back with less than it had.

`LEDGER_OUTAGE_SECONDS` sets for how long Postgres is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import ledger_caller
import pytest
from ledger_database import make_ledger
from ledger_tenant import Tenant, back, tenant_of

from assistant_cluster import stores
from assistant_gateway.ledger.database import LedgerUnavailableError
from assistant_gateway.limits.redis import UnavailableError

OUTAGE_SECONDS = float(os.environ.get("LEDGER_OUTAGE_SECONDS", "4"))
EXACT_SECONDS = 10.0  # from Redis's return until the counters are right
PROCESSES, CALLS = 3, 15


class Crowd:
    """The processes and their journals."""

    def __init__(self, redis_url: str, url: str, tenant: str, folder: Path) -> None:
        self.folder = folder
        self.processes = [self._start(redis_url, url, tenant, number) for number in range(PROCESSES)]

    def _start(self, *arguments: object) -> subprocess.Popen[bytes]:
        redis_url, url, tenant, number = arguments
        command = [sys.executable, ledger_caller.__file__, redis_url, url, tenant, CALLS, self.folder / f"j{number}"]
        support = Path(ledger_caller.__file__).parent
        with (self.folder / f"output{number}").open("wb") as output:
            return subprocess.Popen(
                [str(part) for part in command],
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": str(support)},
            )

    def lines(self) -> list[list[str]]:
        """Return what was settled, or meant to be, and what was refused."""
        found = [path.read_text() for path in sorted(self.folder.glob("j*"))]
        return [line.split() for text in found for line in text.splitlines()]

    def settled(self) -> dict[str, tuple[int, int]]:
        """Return tokens and cost by call."""
        return {line[0]: (int(line[1]), int(line[2])) for line in self.lines() if len(line) == 3}

    def refused(self) -> int:
        """Return how many calls were refused because nobody could say."""
        return len([line for line in self.lines() if line == ["refused"]])

    def end(self) -> None:
        """Have all of them end in good order."""
        for process in self.processes:
            process.terminate()
        for number, process in enumerate(self.processes):
            process.wait(60)
            output = (self.folder / f"output{number}").read_text()
            assert "ended in good order" in output, output[-3000:]

    def kill(self) -> None:
        """Kill whoever still runs."""
        for process in self.processes:
            process.kill()
            process.wait(10)


@pytest.fixture
def own_redis() -> Iterator[stores.Redis]:
    """A Redis that a test may kill, and that writes its log once per second, as installed."""
    with stores.redis() as store:
        yield store


@pytest.fixture
def own_postgres() -> Iterator[stores.Postgres]:
    """A Postgres that a test may stop."""
    with stores.postgres() as store:
        yield store


@contextlib.asynccontextmanager
async def crowd_of(redis: stores.Redis, postgres: stores.Postgres, folder: Path) -> AsyncIterator[tuple[Tenant, Crowd]]:
    """Start the processes; at the end, what they settled is in the ledger and in the counters, each call once."""
    url, key = await make_ledger(postgres), f"t_{uuid.uuid4().hex[:10]}"
    async with tenant_of(redis.gateway_url, url, key) as tenant:
        tenant.limits = ledger_caller.terms(key).limits
        crowd = Crowd(redis.gateway_url, url, key, folder)
        try:
            await grow(crowd, 100)
            yield tenant, crowd
            await grow(crowd, 100)
            await asyncio.to_thread(crowd.end)
        finally:
            await asyncio.to_thread(crowd.kill)
        await back(tenant.redis)
        await exact(tenant)
        settled, rows = crowd.settled(), await tenant.rows()
        assert await tenant.waiting() == 0
        assert [call for call, times in Counter(rows).items() if times > 1] == []
        assert sorted(rows) == sorted(settled)
        expected = (len(settled), *(sum(used[index] for used in settled.values()) for index in (0, 1)))
        totals = "SELECT sum(entries)::bigint, sum(tokens)::bigint, sum(cost)::bigint FROM ledger_totals"
        assert await tenant.fetch(f"{totals} WHERE tenant_key = $1") == [expected]
        assert await tenant.used() == expected
        print(f"{len(settled)} calls settled, {crowd.refused()} refused")


async def grow(crowd: Crowd, calls: int) -> None:
    """Wait until so many more calls have been settled."""
    until = len(crowd.settled()) + calls
    async with asyncio.timeout(60):
        while len(crowd.settled()) < until:
            assert all(process.poll() is None for process in crowd.processes), crowd.folder
            await asyncio.sleep(0.1)


async def exact(tenant: Tenant) -> None:
    """Wait until calls are admitted again and the counters are what the ledger holds."""
    while True:
        with contextlib.suppress(UnavailableError, LedgerUnavailableError):
            if await tenant.drifts() == []:
                return
        await asyncio.sleep(0.1)


@pytest.mark.timeout(2 * OUTAGE_SECONDS + 180)
async def test_postgres_is_away_for_a_while(own_redis, own_postgres, tmp_path: Path) -> None:
    """Calls go on, their entries wait in Redis, and all of them are in Postgres once it is back."""
    async with crowd_of(own_redis, own_postgres, tmp_path) as (tenant, crowd):
        await asyncio.to_thread(own_postgres.server.stop)
        before = len(crowd.settled())
        await asyncio.sleep(OUTAGE_SECONDS)
        settled, waiting = len(crowd.settled()) - before, await tenant.waiting()
        await asyncio.to_thread(own_postgres.server.start)
        started = time.monotonic()
        async with asyncio.timeout(60 + OUTAGE_SECONDS):
            while await tenant.waiting() > 100:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        print(f"{settled} calls and {waiting} entries while away; moved {time.monotonic() - started:.1f} s after")
        assert settled > 100
        assert settled - 200 <= waiting
        assert crowd.refused() < settled / 10  # a busy machine may refuse some, for want of an answer in time


async def kill(store: stores.Redis) -> None:
    """End Redis without letting it write anything."""
    os.killpg(store.server.pid, signal.SIGKILL)
    await asyncio.to_thread(store.server.stop)


@pytest.mark.parametrize("loss", ["killed", "flushed", "old copy"])
async def test_redis_comes_back_with_less_than_it_had(loss: str, own_redis, own_postgres, tmp_path: Path) -> None:
    """Whatever it lost, the counters are exact again within ten seconds, and each call is in the ledger once."""
    folder, copy = own_redis.server.folder / "appendonlydir", own_redis.server.folder / "copy"
    async with crowd_of(own_redis, own_postgres, tmp_path) as (tenant, crowd):
        if loss == "old copy":
            await asyncio.to_thread(shutil.copytree, folder, copy)
            await grow(crowd, 400)
        await kill(own_redis)
        if loss != "killed":
            await asyncio.to_thread(shutil.rmtree, folder)
        if loss == "old copy":
            await asyncio.to_thread(shutil.move, copy, folder)
        await asyncio.to_thread(own_redis.server.start)
        started = time.monotonic()
        async with asyncio.timeout(EXACT_SECONDS):
            await back(tenant.redis)
            await exact(tenant)
        print(f"exact {time.monotonic() - started:.1f} s after its return")


async def test_counters_lost_while_postgres_is_away(own_redis, own_postgres, tmp_path: Path) -> None:
    """Nothing is admitted as long as nobody can know what was used; when Postgres is back, all is as it was."""
    async with crowd_of(own_redis, own_postgres, tmp_path) as (tenant, crowd):
        async with asyncio.timeout(20):
            while not await tenant.rows():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await asyncio.to_thread(own_postgres.server.stop)
        await tenant.quota.invalidate(tenant.limits)
        await asyncio.sleep(1)  # for calls that were admitted before
        before, refused = len(crowd.settled()), crowd.refused()
        await asyncio.sleep(2)
        assert len(crowd.settled()) == before
        assert crowd.refused() > refused
        await asyncio.to_thread(own_postgres.server.start)
