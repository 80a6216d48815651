"""How many pairs of reserve and settle one process gets through, on a Redis of its own.

    python tools/bench/limits/reserve_settle.py [--pairs 50000] [--callers 200] [--tenants 1] [--rounds 5]

The pairs go through the gateway's own client, with a limit of each kind on tenant and assistant and an entry of a
ledger's size. Each round is followed by its peer: as many pairs of PING through redis-py, pipelined by as many as there
are callers, which is the least that two questions could cost. `Redis CPU` and `client CPU` are processor time per pair:
unlike the rate, they hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
import uuid
from pathlib import Path

import uvloop
from redis.asyncio import Redis as Client

from assistant_cluster import stores
from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.quota import SCRIPT, Admitted, Quota
from assistant_gateway.limits.redis import Redis

ENTRY = b"x" * 400
HOLD = 60_000_000


def limits(tenant: int) -> Limits:
    """A limit of each kind on both levels, wide enough to let everything through."""
    wide: dict[str, int] = {"requests_per_minute": 10**9, "tokens": 10**12, "budget": 10**13}
    levels = [LimitScope("tenant", **wide), LimitScope("assistant", "support", **wide)]
    return Limits.of(f"t_bench{tenant}", "Europe/Berlin", levels)


def redis_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def pings(client: Client, pairs: int, callers: int) -> float:
    """Return how many pairs of PING per second go through one pipelined connection."""
    started = time.perf_counter()
    for start in range(0, 2 * pairs, callers):
        async with client.pipeline(transaction=False) as pipeline:
            for _ in range(min(callers, 2 * pairs - start)):
                pipeline.execute_command("PING")
            await pipeline.execute()
    return pairs / (time.perf_counter() - started)


async def measure(url: str, pid: int, options: argparse.Namespace) -> None:
    """Print one line per round."""
    redis = Redis(url, SCRIPT, answer_seconds=5)
    keeper = asyncio.create_task(redis.run())
    while not redis.available:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    quota, tenants = Quota(redis), [limits(tenant) for tenant in range(options.tenants)]
    for tenant in tenants:
        assert await quota.restore(tenant, 1, "0-0", [])
    rates, ratios = [], []
    client = Client.from_url(url, protocol=2, driver_info=None)
    for number in range(options.rounds):
        left = iter(range(options.pairs))
        times: list[float] = []

        async def caller(left=left, times=times) -> None:
            for index in left:
                tenant, request = tenants[index % len(tenants)], uuid.uuid4().hex
                started = time.perf_counter()
                assert isinstance(await quota.reserve(tenant, request, Amount(1500, 4200), HOLD), Admitted)
                await quota.settle(tenant, request, Amount(700, 1900), ENTRY)
                times.append(time.perf_counter() - started)

        store, own, started = redis_seconds(pid), time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(options.callers)))
        elapsed = time.perf_counter() - started
        rates.append(options.pairs / elapsed)
        micros = 1e6 / options.pairs
        own_micros, store_micros = (time.process_time() - own) * micros, (redis_seconds(pid) - store) * micros
        peer = await pings(client, options.pairs, options.callers)
        ratios.append(rates[-1] / peer)
        print(
            f"round {number + 1}: {rates[-1]:8.0f} pairs/s"
            f"   client CPU {own_micros:5.0f} µs   Redis CPU {store_micros:5.0f} µs"
            f"   pair p50 {statistics.median(times) * 1e3:6.2f} ms"
            f"   p99 {statistics.quantiles(times, n=100)[98] * 1e3:6.2f} ms"
            f"   PING pairs {peer:8.0f}/s",
            flush=True,
        )
    print(f"median {statistics.median(rates):.0f} pairs/s, {min(rates):.0f} to {max(rates):.0f}")
    print(f"ratio to pairs of PING: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    keeper.cancel()
    await client.aclose()
    await redis.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--tenants", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with stores.redis() as store:
        print(f"{options.pairs} pairs, {options.callers} callers, {options.tenants} tenants; load {os.getloadavg()[0]}")
        uvloop.run(measure(store.gateway_url, store.server.pid, options))


if __name__ == "__main__":
    main()
