"""A process full of calls that reserve and settle, to be killed at any moment: `python quota_caller.py URL T0 CALLS`.

Limits grow with the time since T0, so that they bind all along and there is always something held.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import uuid
from typing import Any

import msgspec
from redis.asyncio import Redis as Client
from redis.exceptions import RedisError

from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.quota import SCRIPT, Admitted, Quota, RebuildNeededError, Totals
from assistant_gateway.limits.redis import Redis, UnavailableError

TENANT = "t_crowd"
ASSISTANTS = ("support", "sales")
HOLD = 6_000_000
REQUESTS_PER_MINUTE = 6000
SECOND = 1_000_000


def levels_at(elapsed: float) -> dict[str, LimitScope]:
    """Return the limits so many seconds after the start, by `LimitScope.field`; they only ever grow."""
    elapsed = round(elapsed, 1)
    found = [LimitScope("tenant", tokens=int(9000 + 50_000 * elapsed), budget=int(4000 + 60_000 * elapsed))]
    below = {"requests_per_minute": REQUESTS_PER_MINUTE, "tokens": int(7000 + 30_000 * elapsed)}
    budget = int(3000 + 35_000 * elapsed)
    found += [LimitScope("assistant", name, **below, budget=budget, period="Day") for name in ASSISTANTS]
    return {level.field: level for level in found}


def limits_at(elapsed: float, assistant: str) -> Limits:
    """Return what a call counts on."""
    levels = levels_at(elapsed)
    return Limits.of(TENANT, "UTC", [levels["tenant"], levels[f"assistant:{assistant}"]])


started_calling: list[int] = []


async def calls(quota: Quota, url: str, started: float) -> None:
    """Call for ever: settle, hang up without a word, settle twice."""
    while True:
        assistant, request = random.choice(ASSISTANTS), uuid.uuid4().hex
        worst = Amount(random.randint(0, 300), random.randint(0, 300))
        limits = limits_at(time.time() - started, assistant)
        try:
            answer = await quota.reserve(limits, request, worst, HOLD)
        except UnavailableError:
            await asyncio.sleep(0.05)
            continue
        except RebuildNeededError:
            await rebuild(quota, url, limits)
            continue
        if not isinstance(answer, Admitted):
            await asyncio.sleep(random.uniform(0, 0.2))
            continue
        if not started_calling:
            started_calling.append(os.getpid())
            tell(f"calling {os.getpid()}")
        await asyncio.sleep(random.uniform(0, 0.15))
        fate = random.random()
        if fate < 0.02:
            continue  # its hold expires
        share = random.random()
        used = Amount(int(worst.tokens * share), int(worst.cost * share)) if fate > 0.1 else worst
        entry = {"request": request, "assistant": assistant, **msgspec.structs.asdict(used)}
        for _ in range(2 if 0.1 < fate < 0.2 else 1):
            await settle(quota, limits, request, used, json.dumps(entry).encode())


def tell(line: str) -> None:
    """Write a line in one piece."""
    os.write(1, line.encode() + b"\n")


rebuilding = asyncio.Lock()


async def entries_of(url: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the ledger's stream, and the id of its last entry."""
    async with Client.from_url(url, protocol=2, driver_info=None) as client:
        found = await client.xrange(f"quota:{{{TENANT}}}:ledger")
    return (found[-1][0].decode() if found else "0-0"), [json.loads(fields[b"entry"]) for _, fields in found]


def totals_of(entries: list[dict[str, Any]]) -> list[Totals]:
    """Add up a ledger of one day."""
    found = []
    for field in ("tenant", *(f"assistant:{name}" for name in ASSISTANTS)):
        own = [entry for entry in entries if field in ("tenant", f"assistant:{entry['assistant']}")]
        tokens, cost = (sum(entry[name] for entry in own) for name in ("tokens", "cost"))
        found.append(Totals(field, tokens, cost, tokens, cost, len(own), tokens, cost))
    return found


async def rebuild(quota: Quota, url: str, limits: Limits) -> None:
    """Restore the counters from the stream, which is the whole ledger here."""
    if rebuilding.locked():
        async with rebuilding:
            return
    async with rebuilding:
        try:
            last, entries = await entries_of(url)
            if await quota.restore(limits, time.time_ns() // 1000, last, totals_of(entries)):
                tell(f"rebuilt {len(entries)}")
        except (UnavailableError, RedisError, OSError):
            await asyncio.sleep(0.05)


async def settle(quota: Quota, limits: Limits, request: str, used: Amount, entry: bytes) -> None:
    """Settle, however often it takes; tell when it came too late for its hold."""
    while True:
        try:
            done = await quota.settle(limits, request, used, entry)
        except UnavailableError:
            await asyncio.sleep(0.02)
            continue
        if done.late:
            tell(f"late {done.tokens} {done.cost}")
        return


async def main(url: str, started: float, count: int) -> None:
    """Run the calls."""
    redis = Redis(url, SCRIPT, answer_seconds=0.5)
    keeper = asyncio.create_task(redis.run())
    quota = Quota(redis)
    await asyncio.gather(keeper, *(calls(quota, url, started) for _ in range(count)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
