"""Five hundred calls at once over three gateway processes that are killed, on a Redis that restarts, by clients that
hang up.

`QUOTA_GATEWAY_SECONDS` sets how long it lasts, `QUOTA_GATEWAY_ROUNDS` how often: 20 times with `TEST_LONG=1`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import yaml
from gateway_processes import Started, process
from gateway_world import Cluster, policy
from redis.asyncio import Redis as Client

from assistant_cluster import stores
from assistant_crds import naming
from assistant_crds.contracts import AssistantPolicy, Budget, ModelRoute
from assistant_gateway.config import Settings
from assistant_gateway.ledger.entry import LedgerEntry, decode_entry
from assistant_gateway.limits.limit_scope import Limits, LimitScope
from assistant_gateway.limits.quota import SCRIPT, Quota, ScopeUsage
from assistant_gateway.limits.redis import Redis, UnavailableError

FULL = os.environ.get("TEST_LONG") == "1"
SECONDS = float(os.environ.get("QUOTA_GATEWAY_SECONDS", "8"))
ROUNDS = int(os.environ.get("QUOTA_GATEWAY_ROUNDS", "20" if FULL else "1"))
CALLS = 500
MODELS = ("good", "paced")


@dataclass
class Crowd:
    """The processes, their tenant, and what the clients saw."""

    cluster: Cluster
    store: stores.Redis
    namespace: str
    settings: Settings
    processes: list[Started] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    step: int = 0

    @property
    def limits(self) -> Limits:
        """What a call of the tenant as a whole counts on."""
        return Limits.of(naming.tenant_key(self.namespace), "UTC")

    def levels(self) -> dict[str, LimitScope]:
        """Return the limits that hold now; they only ever grow."""
        tokens, budget = 30_000 + 15_000 * self.step, 60_000 + 40_000 * self.step
        found = [LimitScope("tenant", tokens=tokens, budget=budget)]
        found += [
            LimitScope("assistant", name, tokens=tokens * 2 // 3, budget=budget * 2 // 3, period="Day")
            for name in MODELS
        ]
        return {level.field: level for level in found}

    def raise_limits(self) -> None:
        """Write the next policy."""
        self.step += 1
        levels = self.levels()

        def budget(name: str) -> Budget:
            level = levels[name]
            return Budget(amount_micros=level.budget or 0, currency="USD", period=level.period)

        assistants = {
            name: AssistantPolicy(
                route=ModelRoute(model=name, provider="demo"),
                tokens_per_day=levels[f"assistant:{name}"].tokens,
                budget=budget(f"assistant:{name}"),
            )
            for name in MODELS
        }
        changes = {"assistants": assistants, "tokens_per_day": levels["tenant"].tokens, "budget": budget("tenant")}
        self.cluster.put_policy(policy(self.namespace, [], **changes))

    async def start(self) -> Started:
        """Start one more process."""
        return await self.stack.enter_async_context(process(self.settings, f"log{next(self.numbers)}"))

    async def kill_one(self) -> None:
        """Kill any of them with SIGKILL, and put another in its place."""
        index = random.randrange(len(self.processes))
        self.processes[index].process.kill()
        await self.processes[index].process.wait()
        self.processes[index] = await self.start()

    async def restart_redis(self) -> None:
        """Kill Redis or end it, and start it again."""
        os.killpg(self.store.server.pid, random.choice([signal.SIGKILL, signal.SIGTERM]))
        await asyncio.to_thread(self.store.server.stop)
        await asyncio.to_thread(self.store.server.start)

    async def call_for_ever(self, client: aiohttp.ClientSession) -> None:
        """Call; read to the end, or hang up before the answer or in the middle of it."""
        headers = {"Authorization": f"Bearer {self.cluster.token(self.namespace)}"}
        while True:
            body = {
                "model": random.choice(MODELS),
                "messages": [{"role": "user", "content": "Hi"}],
                "max_tokens": random.randint(20, 60),
                "stream": random.random() < 0.5,
            }
            url = f"{random.choice(self.processes).url}/v1/chat/completions"
            patience = random.uniform(0, 1.0) if random.random() < 0.2 else 60
            try:
                async with asyncio.timeout(patience), client.post(url, json=body, headers=headers) as answer:
                    await answer.read()
                    self.outcomes[str(answer.status)] += 1
                    refused = answer.status != 200
            except TimeoutError:
                self.outcomes["hung up"] += 1
                refused = False
            except aiohttp.ClientError:
                self.outcomes["broken"] += 1
                refused = True
            await asyncio.sleep(random.uniform(1.0, 4.0) if refused else random.uniform(0, 2.0))

    @contextlib.asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Have all clients call."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as client:
            tasks = [asyncio.create_task(self.call_for_ever(client)) for _ in range(CALLS)]
            try:
                yield
                assert not [task for task in tasks if task.done()]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def metered(self) -> tuple[int, int]:
        """Return tokens and cost by the metrics of the processes that live."""
        found = Counter[str]()
        async with aiohttp.ClientSession() as client:
            for one in self.processes:
                async with client.get(f"{one.operations}/metrics") as answer:
                    for line in (await answer.text()).splitlines():
                        if f'tenant="{self.namespace}"' in line:
                            found[line.partition("{")[0]] += int(float(line.rpartition(" ")[2]))
        return found["assistant_model_tokens_total"], found["assistant_model_cost_micros_total"]

    async def entries(self) -> list[LedgerEntry]:
        """Return the ledger."""
        async with Client.from_url(self.store.gateway_url, protocol=2, driver_info=None) as client:
            found = await client.xrange(self.limits.keys[4])
        return [decode_entry(fields[b"entry"]) for _, fields in found]

    async def time_passes(self) -> None:
        """Bring every deadline forward to now: what killed processes held is due."""
        async with Client.from_url(self.store.gateway_url, protocol=2, driver_info=None) as client:
            names = await client.zrangebyscore(self.limits.keys[3], "-inf", "+inf")
            if names:
                await client.zadd(self.limits.keys[3], dict.fromkeys(names, 1))


async def ask(quota: Quota, limits: Limits) -> dict[str, ScopeUsage]:
    """Ask for the counters until there is an answer."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(UnavailableError):
                return await quota.usage(limits)
            await asyncio.sleep(0.02)


def check_limits(usage: dict[str, ScopeUsage], crowd: Crowd) -> None:
    """Nothing that is used and held together is over a limit."""
    for name, level in crowd.levels().items():
        if name in usage:
            scope = usage[name]
            cost = scope.counted.day_cost if level.period == "Day" else scope.counted.month_cost
            assert scope.counted.day_tokens + scope.held_tokens <= (level.tokens or 0), (name, usage)
            assert cost + scope.held_cost <= (level.budget or 0), (name, usage)


async def trouble(crowd: Crowd, quota: Quota, seconds: float, *, kills: bool) -> tuple[int, int, int]:
    """Kill, restart, raise the limits; look at them all along. Return kills, restarts, and looks that saw holds."""
    killed = restarted = holding = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or not restarted or (kills and not killed):
        await asyncio.sleep(random.uniform(0.05, 0.5))
        event = random.random()
        if event < 0.15 and kills:
            await crowd.kill_one()
            killed += 1
        elif event < 0.3:
            await crowd.restart_redis()
            restarted += 1
        elif event < 0.6:
            await asyncio.to_thread(crowd.raise_limits)
        for _ in range(5):  # most calls hold something for milliseconds only
            usage = await ask(quota, crowd.limits)
            check_limits(usage, crowd)
            holding += any(scope.held_cost for scope in usage.values())
            await asyncio.sleep(0.01)
    return killed, restarted, holding


async def books_agree(crowd: Crowd, quota: Quota, before: tuple[int, int], metered: tuple[int, int]) -> None:
    """Wait until ledger, counters and metric say the same of what was used since `before`."""
    async with asyncio.timeout(60):
        while True:
            entries = await crowd.entries()
            usage = (await ask(quota, crowd.limits)).get("tenant")
            now = await crowd.metered()
            written = (sum(entry.tokens for entry in entries), sum(entry.cost for entry in entries))
            counted = (usage.tokens, usage.cost) if usage else (0, 0)
            told = (now[0] - metered[0], now[1] - metered[1])
            if written == counted and (written[0] - before[0], written[1] - before[1]) == told:
                return
            await asyncio.sleep(0.2)


async def quiet(crowd: Crowd) -> list[LedgerEntry]:
    """Return the ledger when nothing more is written to it."""
    entries, since = await crowd.entries(), time.monotonic()
    while time.monotonic() < since + 2.0:
        await asyncio.sleep(0.2)
        found = await crowd.entries()
        if len(found) != len(entries):
            entries, since = found, time.monotonic()
    return entries


@pytest.fixture
def priced(settings: Callable[..., Settings]) -> Callable[..., Settings]:
    """Settings whose provider has prices."""

    def make(**changes: object) -> Settings:
        made = settings(**changes)
        document = yaml.safe_load(made.catalog_file.read_text())
        document["providers"]["demo"] |= {
            "connectSeconds": 20,
            "firstByteSeconds": 20,
            "idleSeconds": 20,
            "models": {"*": {"inputPerMillion": "10", "outputPerMillion": "20"}},
        }
        made.catalog_file.write_text(yaml.safe_dump(document))
        return made

    return make


@pytest.mark.timeout(SECONDS * 10 + 400)
@pytest.mark.parametrize("number", range(ROUNDS))
async def test_gateways_that_die_under_a_crowd_stay_within_every_limit(
    cluster: Cluster, priced: Callable[..., Settings], number: int, tmp_path: Path
) -> None:
    """No limit is passed at any moment, holds come back, each call is in the ledger once, as in the metric."""
    with stores.redis() as store:
        store.server.stop()
        store.server.command += ["--appendfsync", "no"]  # killed, it loses nothing
        store.server.start()
        settings = priced(redis_url=store.gateway_url)
        crowd = Crowd(cluster, store, f"gateway-crowd-{number}", settings)
        redis = Redis(store.gateway_url, SCRIPT, answer_seconds=20)  # this process is busy as well
        keeper = asyncio.create_task(redis.run())
        quota = Quota(redis)
        crowd.raise_limits()
        async with crowd.stack:
            crowd.processes = list(await asyncio.gather(*(crowd.start() for _ in range(3))))
            async with crowd.calling():
                killed, restarted, holding = await trouble(crowd, quota, SECONDS, kills=True)
            entries = await quiet(crowd)
            before, metered = (sum(e.tokens for e in entries), sum(e.cost for e in entries)), await crowd.metered()
            async with crowd.calling():
                more = await trouble(crowd, quota, SECONDS / 2, kills=False)
            await quiet(crowd)
            await books_agree(crowd, quota, before, metered)
            await crowd.time_passes()
            for _ in range(200):  # some are taken back with every call
                usage = await ask(quota, crowd.limits)
        entries = await crowd.entries()
        keeper.cancel()
        await redis.close()
    print(
        f"{killed} kills, {restarted + more[1]} Redis restarts, {len(entries)} entries, {holding + more[2]} looks saw"
        " holds, clients saw"
        f" {dict(crowd.outcomes)}"
    )
    check_limits(usage, crowd)
    assert all((scope.held_tokens, scope.held_cost) == (0, 0) for scope in usage.values())
    assert max(Counter(entry.call for entry in entries).values()) == 1
    assert holding + more[2] > 0
    assert crowd.outcomes["200"] > 10
    assert crowd.outcomes["429"] > 0
    assert crowd.outcomes["hung up"] > 0
