"""The ledger behind a whole gateway: each call over HTTP is a row in Postgres, also the last one of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
from gateway_world import Cluster, Running, policy, running
from ledger_database import make_ledger
from redis.asyncio import Redis as Client

from assistant_crds import naming
from assistant_crds.contracts import Budget
from assistant_gateway.config import Settings
from assistant_gateway.ledger.compare import Comparison
from assistant_gateway.ledger.database import LedgerDatabase


async def call(cluster: Cluster, gateway: Running, namespace: str) -> int:
    """Ask as a tenant's pod until its policy is known; return the status."""
    headers = {"Authorization": f"Bearer {cluster.token(namespace)}"}
    body = {"model": "good", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
    async with asyncio.timeout(30):
        while True:
            url = f"{gateway.url}/v1/chat/completions"
            async with gateway.client.post(url, json=body, headers=headers) as answer:
                await answer.read()
                if answer.status != 404:
                    return answer.status
            await asyncio.sleep(0.05)


async def rows(url: str, key: str) -> int:
    """Return how many calls of a tenant are in Postgres."""
    connection = await asyncpg.connect(url)
    found = await connection.fetchval("SELECT count(*) FROM ledger_entries WHERE tenant_key = $1", key)
    await connection.close()
    return int(found)


async def test_a_call_is_a_row_also_the_last_one(cluster: Cluster, settings: Callable[..., Settings], postgres) -> None:
    """Entries are moved while the gateway runs, and once more when it goes down; nothing is left in Redis."""
    url, key = await make_ledger(postgres), naming.tenant_key("ledger-http")
    cluster.put_policy(
        policy("ledger-http", ["good"], budget=Budget(amount_micros=10**9, currency="USD", period="Day"))
    )
    made = settings(ledger_url=url, ledger_drain_seconds=0.1)
    document = made.catalog_file.read_text().replace("keyRef: demo,", PRICED)
    made.catalog_file.write_text(document)
    async with running(made) as gateway:
        assert await call(cluster, gateway, "ledger-http") == 200
        await arrive(url, key, 1)
    async with running(settings(ledger_url=url, ledger_drain_seconds=600)) as gateway:
        assert await call(cluster, gateway, "ledger-http") == 200
        await gateway.server.stop(drain_seconds=0)
        assert await rows(url, key) == 2
    async with Client.from_url(made.redis_url, protocol=2, driver_info=None) as client:
        assert await client.xlen(naming.ledger_stream(key)) == 0


async def test_ledger_counters_and_metric_agree(cluster: Cluster, settings: Callable[..., Settings], postgres) -> None:
    """After a crowd at two gateways, what the rows cost is what was counted against the budget and what is exported."""
    name = "ledger-metric"
    url, key = await make_ledger(postgres), naming.tenant_key(name)
    cluster.put_policy(policy(name, ["good"], budget=Budget(amount_micros=10**9, currency="USD", period="Day")))
    made = settings(ledger_url=url, ledger_drain_seconds=0.1)
    made.catalog_file.write_text(made.catalog_file.read_text().replace("keyRef: demo,", PRICED))
    async with running(made) as one, running(settings(ledger_url=url, ledger_drain_seconds=0.1)) as two:
        for gateway in (one, two):
            assert await call(cluster, gateway, name) == 200
        statuses = []
        for _ in range(12):
            statuses += await asyncio.gather(
                *(call(cluster, gateway, name) for _ in range(5) for gateway in (one, two))
            )
        assert 200 in statuses
        assert set(statuses) <= {200, 503, 504}  # the last two: a busy machine
        await arrive(url, key, 2 + len(statuses) - statuses.count(503))
        limits = one.server._gateway._policies.get(name).terms.limits
        database = LedgerDatabase(url)
        assert await Comparison(one.server._limiter._redis, database, dict, 1).tenant(limits) == []
        await database.close()
        counted = (await one.server._limiter._quota.usage(limits))["tenant"].cost
        labels = f'assistant="good",model="good",provider="demo",tenant="{name}"'
        exported = await one.metric(f"assistant_model_cost_micros_total{{{labels}}}")  # of this process, so of both
    connection = await asyncpg.connect(url)
    ledger = await connection.fetchval("SELECT sum(cost)::bigint FROM ledger_entries WHERE tenant_key = $1", key)
    await connection.close()
    assert ledger == counted == exported >= 190


async def arrive(url: str, key: str, count: int) -> None:
    """Wait until so many calls are in Postgres."""
    async with asyncio.timeout(20):
        while await rows(url, key) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


PRICED = "keyRef: demo, models: {'*': {inputPerMillion: '10', outputPerMillion: '20'}},"
