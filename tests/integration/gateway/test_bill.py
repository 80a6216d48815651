"""What is charged is what the provider billed, or a row says why not: over HTTP, while Redis and gateways are killed.

Requests, and what the provider makes of them, are generated. Gateways are processes; clients go on when one of them, or
Redis, is killed. 300 calls as a rule, 20,000 with TEST_LONG=1.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
import pytest
import yaml
from aiohttp import web
from gateway_processes import Started, process
from gateway_world import Cluster, policy
from ledger_database import make_ledger
from scripted_calls import Scripted, request_body
from served_app import served

from assistant_cluster import stores
from assistant_crds import naming
from assistant_crds.contracts import AssistantPolicy, Budget, ModelRoute
from assistant_gateway.config import Settings
from assistant_gateway.limits.limit_scope import Limits
from assistant_gateway.limits.quota import SCRIPT, Quota
from assistant_gateway.limits.redis import Redis

CALLS = 20_000 if os.environ.get("TEST_LONG") == "1" else 300
CLIENTS = 12
EVERY = 50 if CALLS < 1000 else 300  # calls between one trouble and the next
GATEWAYS = 2
SETTLE_SECONDS = 1.0  # from the end of a call to its entry in Redis
AWAY_SECONDS = 3.0  # the same while Redis is away: to its row in Postgres
OUTAGE_SECONDS = 5.0
LIMITED, RATED, FREE = "bill-limited", "bill-rated", "bill-free"
PRICES = {"inputPerMillion": "3", "outputPerMillion": "15", "cachedInputPerMillion": "0.3"}  # as in scripted_calls
MUCH = 10**13


@dataclass
class Models:
    """The provider: does what the script of a call says, and keeps a bill."""

    scripts: dict[int, Scripted] = field(default_factory=dict)
    bills: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    url: str = ""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer, or not."""
        body = await request.json()
        number = int(body["messages"][0]["content"].split()[1])
        script = self.scripts[number]
        if script.end == "refused":
            return web.json_response({"error": {"message": "no", "type": "invalid_request_error"}}, status=400)
        self.bills[number].append(script.bill())
        if script.end == "time-out":
            await asyncio.sleep(60)
        if script.end in {"whole", "nested", "another answer"}:
            return web.Response(body=script.document(), content_type="application/json")
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        text = "w" * min(script.answered, 5000)
        await answer.write(b'data: {"choices":[{"index":0,"delta":{"content":"' + text.encode() + b'"}}]}\n\n')
        if script.end == "broken stream":
            await asyncio.sleep(0.02)
            assert request.transport is not None
            request.transport.abort()
        elif script.end == "client gone":
            await asyncio.sleep(60)
        else:
            await answer.write(b"data: " + script.document() + b"\n\ndata: [DONE]\n\n")
        return answer

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve."""
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self.chat)
        async with served(app) as origin:
            self.url = f"{origin}/v1"
            yield


@dataclass
class Call:
    """A call as its client saw it; times are of the monotonic clock."""

    tenant: str
    gateway: int
    began: float
    ended: float = float("inf")
    seen: str = ""


@dataclass
class World:
    """Gateways and their clients."""

    cluster: Cluster
    settings: Settings
    redis: stores.Redis
    models: Models
    chance: random.Random
    stack: contextlib.AsyncExitStack
    alive: dict[int, Started] = field(default_factory=dict)
    killed: dict[int, tuple[float, float]] = field(default_factory=dict)  # when; how old what it lost may be
    calls: dict[int, Call] = field(default_factory=dict)
    names: itertools.count[int] = field(default_factory=itertools.count)
    troubles: Counter[str] = field(default_factory=Counter)

    async def start(self) -> None:
        """Start one more gateway."""
        name = next(self.names)
        self.alive[name] = await self.stack.enter_async_context(process(self.settings, f"log-{name}"))

    async def call(self, client: aiohttp.ClientSession, number: int, tenant: str = "") -> None:
        """Make one call."""
        chance = self.chance
        script = self.models.scripts[number] = Scripted.made(chance)
        tenant = tenant or chance.choice((LIMITED, RATED, FREE))
        model = "unpriced" if tenant != LIMITED and chance.random() < 0.2 else "priced"
        gateway, started = chance.choice(list(self.alive.items()))
        call = self.calls[number] = Call(tenant, gateway, time.monotonic())
        body = {**request_body(chance, f"call {number} "), "model": model}
        body["stream"] = script.end in {"stream", "broken stream", "client gone", "another answer"}
        headers = {"Authorization": f"Bearer {self.cluster.token(tenant)}", "x-request-id": f"call-{number}"}
        try:
            async with client.post(f"{started.url}/v1/chat/completions", json=body, headers=headers) as answer:
                call.seen = str(answer.status)
                if script.end == "client gone" and answer.status == 200:
                    await answer.content.readany()  # and hang up
                else:
                    await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            call.seen = type(error).__name__
        call.ended = time.monotonic()

    async def trouble(self, kind: str) -> None:
        """Kill a gateway or Redis, or both, or end a gateway in good order; then all is as before."""
        self.troubles[kind] += 1
        if "redis" in kind:
            os.killpg(self.redis.server.pid, signal.SIGKILL)
            await asyncio.to_thread(self.redis.server.stop)
            await asyncio.sleep(OUTAGE_SECONDS if "kill" in kind else self.chance.uniform(0.1, 1.0))
        if "kill" in kind or "end" in kind:
            name = self.chance.choice(list(self.alive))
            gateway = self.alive.pop(name).process
            if "kill" in kind:
                self.killed[name] = time.monotonic(), AWAY_SECONDS if "redis" in kind else SETTLE_SECONDS
                gateway.kill()
            else:
                gateway.send_signal(signal.SIGTERM)
            await gateway.wait()
        if "redis" in kind:
            await asyncio.to_thread(self.redis.server.start)
        while len(self.alive) < GATEWAYS:
            await self.start()


async def run(world: World) -> None:
    """Make all calls, with trouble in between."""
    numbers = iter(range(CALLS))
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as client:

        async def keep_calling() -> None:
            for number in numbers:
                await world.call(client, number)

        async def make_trouble() -> None:
            for number, kind in enumerate(
                itertools.cycle(("kill", "redis", "end", "kill, redis away", "end, redis away"))
            ):
                while len(world.calls) < (number + 1) * EVERY:
                    if len(world.calls) >= CALLS - EVERY:
                        return
                    await asyncio.sleep(0.01)
                await world.trouble(kind)

        await asyncio.gather(make_trouble(), *(keep_calling() for _ in range(CLIENTS)))
        # Counters that lack what a killed process wrote to the ledger are restored with the next call. The drains of
        # all processes have to have looked by then.
        await asyncio.sleep(2)
        for number in range(2 * GATEWAYS):
            await world.call(client, CALLS + number, (LIMITED, RATED)[number % 2])


async def rows_of(url: str) -> dict[int, list[Any]]:
    """Return the ledger by call, when nothing more comes."""
    query = """SELECT request, tenant_key, coalesce(cost, 0) AS cost, input + output AS tokens, source, unpriced
               FROM ledger_entries"""
    connection = await asyncpg.connect(url)
    try:
        found: list[Any] = []
        async with asyncio.timeout(60):
            while True:
                await asyncio.sleep(2.5)
                before, found = len(found), await connection.fetch(query)
                if before == len(found):
                    break
    finally:
        await connection.close()
    by_call = defaultdict(list)
    for row in found:
        by_call[int(row["request"].removeprefix("call-"))].append(row)
    return by_call


async def counted(store: stores.Redis, tenant: str) -> tuple[int, int]:
    """Return the tokens and money of a tenant's counters."""
    redis = Redis(store.gateway_url, SCRIPT, answer_seconds=5)
    keeper = asyncio.create_task(redis.run())
    try:
        async with asyncio.timeout(20):
            while not redis.available:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        usage = (await Quota(redis).usage(Limits.of(naming.tenant_key(tenant), "UTC")))["tenant"]
        return usage.tokens, usage.cost
    finally:
        keeper.cancel()
        await redis.close()


def judge(number: int, world: World, rows: list[Any]) -> str:
    """Return what the ledger says of a call: `equal`, why it says something else, or `lost`."""
    bills, call = world.models.bills.get(number, []), world.calls[number]
    told = (number, world.models.scripts[number], call, bills, [dict(row) for row in rows])
    for row in rows:
        if row["source"] == "reported" and not row["unpriced"]:
            assert row["cost"] == 0 or row["cost"] in bills, told
    assert len(rows) <= max(1, len(bills)), told
    if sum(row["cost"] for row in rows) == sum(bills):
        return "equal"
    reasons = ["unpriced" if row["unpriced"] else row["source"] for row in rows]
    if {"unpriced", "estimated"} & set(reasons):
        return reasons[0]
    assert not rows, told
    # Only what a killed gateway had under way, or had not written yet, may be missing.
    killed, age = world.killed.get(call.gateway, (-1.0, 0.0))
    assert call.began <= killed <= call.ended + age, told
    return "lost"


@pytest.mark.timeout(120 + CALLS)
async def test_the_ledger_is_the_providers_bill_whatever_is_killed(
    cluster: Cluster, settings: Callable[..., Settings], record_property: Callable[[str, object], None]
) -> None:
    """Each call has a row that is equal to its bill or says why not; none is lost but under way in a killed gateway."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    models, levels = Models(), {"tokens_per_day": MUCH, "budget": Budget(MUCH, "USD", "Month")}
    routes = {"priced": ModelRoute(model="m", provider="demo"), "unpriced": ModelRoute(model="m", provider="other")}
    assistants = {name: AssistantPolicy(route=route) for name, route in routes.items()}
    for tenant, limits in ((LIMITED, levels), (RATED, {"requests_per_minute": 60_000}), (FREE, {})):
        cluster.put_policy(policy(tenant, [], assistants=assistants, **limits))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(models.serving())
        redis, postgres = stack.enter_context(stores.redis()), stack.enter_context(stores.postgres())
        url = await make_ledger(postgres)
        made = settings(redis_url=redis.gateway_url, ledger_url=url, ledger_drain_seconds=0.5, stream_seconds=5.0)
        provider = {"url": models.url, "firstByteSeconds": 2, "idleSeconds": 5, "breaker": {"minCalls": 10**6}}
        providers = {"demo": {**provider, "models": {"*": PRICES}}, "other": provider}
        made.catalog_file.write_text(yaml.safe_dump({"providers": providers}))
        world = World(cluster, made, redis, models, random.Random(seed), stack)
        for _ in range(GATEWAYS):
            await world.start()
        await run(world)
        rows = await rows_of(url)
        found = Counter(judge(number, world, rows.get(number, [])) for number in world.calls)
        seen = Counter(call.seen for call in world.calls.values())
        print(f"{dict(found)}; clients saw {dict(seen)}; {dict(world.troubles)}")
        record_property("calls lost with a killed gateway", f"{found['lost']} of {CALLS}")
        assert rows.keys() <= world.calls.keys()
        assert found["equal"] > CALLS / 3
        assert world.troubles.total() >= 5
        for tenant in (LIMITED, RATED):
            key = naming.tenant_key(tenant)
            own = [row for found_rows in rows.values() for row in found_rows if row["tenant_key"] == key]
            sums = sum(row["tokens"] for row in own), sum(row["cost"] for row in own)
            assert await counted(redis, tenant) == sums, f"counters and ledger of {tenant} differ"
