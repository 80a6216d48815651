"""Five hundred calls at once from three processes that are killed, on a Redis that is killed as well.

`QUOTA_CROWD_SECONDS` sets how long the crowd lasts, `QUOTA_CROWD_ROUNDS` how often it comes: 20 times with
`TEST_LONG=1`.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import quota_caller
from quota_caller import ASSISTANTS, HOLD, REQUESTS_PER_MINUTE, SECOND, entries_of, levels_at, limits_at, totals_of

from assistant_cluster import stores
from assistant_gateway.limits import gcra
from assistant_gateway.limits.quota import SCRIPT, Quota, ScopeUsage
from assistant_gateway.limits.redis import Redis, UnavailableError

SECONDS = float(os.environ.get("QUOTA_CROWD_SECONDS", "12"))
ROUNDS = int(os.environ.get("QUOTA_CROWD_ROUNDS", "20" if os.environ.get("TEST_LONG") == "1" else "1"))
CALLS = (167, 167, 166)
BURST = gcra.RateLimit("assistant", "", REQUESTS_PER_MINUTE).burst


class Crowd:
    """The three processes."""

    def __init__(self, url: str, started: float, folder: Path) -> None:
        self.url, self.started, self.folder = url, started, folder
        self.output = folder / "output"
        self.processes = [self._start(count) for count in CALLS]
        self.kills = 0

    def _start(self, count: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, quota_caller.__file__, self.url, str(self.started), str(count)]
        with self.output.open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output)

    def complete(self) -> bool:
        """Whether all of them are calling."""
        output = self.output.read_text() if self.output.exists() else ""
        assert all(process.poll() is None for process in self.processes), output[-3000:]
        return all(f"calling {process.pid}\n" in output for process in self.processes)

    def kill_one(self) -> None:
        """Kill any of them with SIGKILL and start another in its place."""
        index = random.randrange(len(CALLS))
        process = self.processes[index]
        process.kill()
        process.wait(10)
        self.processes[index] = self._start(CALLS[index])
        self.kills += 1

    def stop(self) -> None:
        """Kill all."""
        for process in self.processes:
            process.kill()
            process.wait(10)

    def rebuilds(self) -> int:
        """How often a process found that Redis had lost something."""
        return self.output.read_text().count("rebuilt ")

    def late(self) -> list[tuple[str, str]]:
        """What was settled after its hold had expired."""
        return re.findall(r"^late (\d+) (\d+)$", self.output.read_text(), re.MULTILINE)


async def ask(quota: Quota) -> dict[str, ScopeUsage]:
    """Ask for the counters until there is an answer."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await quota.usage(limits_at(0, ASSISTANTS[0]))
            except UnavailableError:
                await asyncio.sleep(0.02)


def check_limits(usage: dict[str, ScopeUsage], elapsed: float, crowd: Crowd) -> None:
    """Nothing that is used and held together goes over a limit; what came late was given back before."""
    late_tokens = sum(int(tokens) for tokens, _ in crowd.late())
    late_cost = sum(int(cost) for _, cost in crowd.late())
    for field, level in levels_at(elapsed + 0.2).items():
        if field not in usage:
            continue
        scope = usage[field]
        cost = scope.counted.day_cost if level.period == "Day" else scope.counted.month_cost
        assert level.tokens is not None
        assert level.budget is not None
        assert scope.counted.day_tokens + scope.held_tokens <= level.tokens + late_tokens
        assert cost + scope.held_cost <= level.budget + late_cost
        if level.requests_per_minute:
            assert scope.entries <= BURST + level.requests_per_minute / 60 * (elapsed + 0.2)


async def trouble(store: stores.Redis, quota: Quota, crowd: Crowd) -> tuple[int, int]:
    """Kill callers and Redis at random and look at the limits all along; return restarts, and looks that saw holds."""
    restarts, holding = 0, 0
    end = time.time() + SECONDS
    while time.time() < end:
        await asyncio.sleep(random.uniform(0.05, 0.4))
        event = random.random()
        if event < 0.3 and crowd.complete():
            crowd.kill_one()
        elif event < 0.4:
            os.killpg(store.server.pid, random.choice([signal.SIGKILL, signal.SIGTERM]))
            await asyncio.to_thread(store.server.stop)
            await asyncio.to_thread(store.server.start)
            restarts += 1
        usage = await ask(quota)
        check_limits(usage, time.time() - crowd.started, crowd)
        holding += any(scope.held_cost for scope in usage.values())
    return restarts, holding


def check_books(usage: dict[str, ScopeUsage], entries: list[dict[str, Any]]) -> None:
    """Nothing is held any more, no request is there twice, and the entries add up to the counters."""
    assert all((scope.held_tokens, scope.held_cost) == (0, 0) for scope in usage.values())
    assert max(Counter(str(entry["request"]) for entry in entries).values()) == 1
    for total in totals_of(entries):
        scope = usage[total.field]
        assert (scope.entries, scope.tokens, scope.cost) == (total.entries, total.tokens, total.cost)
        assert (scope.counted.month_tokens, scope.counted.month_cost) == (total.month_tokens, total.month_cost)


@pytest.mark.timeout(SECONDS + 90)
@pytest.mark.parametrize("number", range(ROUNDS))
async def test_a_crowd_stays_within_every_limit(number: int, tmp_path: Path) -> None:
    """No limit is passed at any moment, every hold comes back, and the stream's entries are what was counted."""
    with stores.redis() as store:
        # What it has answered it has written to its log, so that it loses nothing when it is killed.
        store.server.stop()
        store.server.command += ["--appendfsync", "no"]
        store.server.start()
        redis = Redis(store.gateway_url, SCRIPT, answer_seconds=1)
        keeper = asyncio.create_task(redis.run())
        quota = Quota(redis)
        async with asyncio.timeout(20):
            while not redis.available:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await quota.restore(limits_at(0, ASSISTANTS[0]), 1, "0-0", [])
        crowd = Crowd(store.gateway_url, time.time(), tmp_path)
        try:
            while not crowd.complete():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            restarts, holding = await trouble(store, quota, crowd)
        finally:
            crowd.stop()
        before = await ask(quota)
        await asyncio.sleep(HOLD / SECOND + 0.2)
        for _ in range(100):  # some are taken back with every call
            usage = await ask(quota)
        _, entries = await entries_of(store.gateway_url)
        keeper.cancel()
        await redis.close()
    print(
        f"{len(entries)} entries, {crowd.kills} kills, {restarts} restarts, {crowd.rebuilds()} rebuilds,"
        f" {len(crowd.late())} late; {usage}"
    )
    assert holding > 5
    assert crowd.rebuilds() == 0
    assert before["tenant"].held_cost > 0  # killed in the middle of calls
    check_books(usage, entries)
