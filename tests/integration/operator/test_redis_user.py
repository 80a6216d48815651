"""What a tenant's Redis user may do: ask whether Redis is there; and what it can take of the memory of all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError

from assistant_cluster import stores
from assistant_crds import naming
from assistant_operator.adapters.redis import Redis

TENANT = "t_redis"
LIMIT = 100 * 2**20


@pytest.fixture
def store() -> Iterator[stores.Redis]:
    """A Redis that believes itself in a container of 100 MiB."""
    with stores.redis() as found:
        found.server.stop()
        found.server.environment["REDIS_MEMORY_LIMIT"] = str(LIMIT)
        found.server.start()
        yield found


@contextlib.asynccontextmanager
async def operator_of(found: stores.Redis) -> AsyncIterator[Redis]:
    redis = Redis(found.operator_url, lambda: None)
    yield redis
    await redis.close()


def tenant_of(found: stores.Redis) -> Client:
    return Client(
        port=found.port,
        username=naming.redis_user(TENANT),
        password="word",
        protocol=2,
        driver_info=None,
        retry=Retry(NoBackoff(), 0),
    )


async def test_a_tenant_may_ping_and_nothing_else(store: stores.Redis) -> None:
    """No key can be written or read, not even under the tenant's own prefix, and no channel used."""
    own = naming.redis_prefix(TENANT)
    async with operator_of(store) as operator, tenant_of(store) as tenant:
        assert await operator.ensure_user(TENANT, "word")
        assert not await operator.ensure_user(TENANT, "word")
        assert await tenant.ping()
        for command in (
            ["SET", f"{own}x", "1"],
            ["GET", f"{own}x"],
            ["APPEND", f"{own}x", "1"],
            ["SETRANGE", f"{own}x", 1 << 20, "1"],
            ["PUBLISH", f"{own}x", "1"],
            ["SUBSCRIBE", f"{own}x"],
            ["EVAL", "return 1", 0],
            ["MULTI"],
            ["CLIENT", "LIST"],
            ["INFO"],
        ):
            with pytest.raises(NoPermissionError):
                await tenant.execute_command(*command)


async def test_the_rights_of_an_earlier_release_are_taken_back(store: stores.Redis) -> None:
    """A user that may write is made anew by the next run, and by every one that finds more than is wanted."""
    name, own = naming.redis_user(TENANT), naming.redis_prefix(TENANT)
    async with operator_of(store) as operator, Client.from_url(store.operator_url, driver_info=None) as admin:
        for more in (["+set", f"~{own}*"], [f"&{own}*", "+publish"], ["+@read"], ["(+get ~*)"], ["nopass"]):
            await operator.ensure_user(TENANT, "word")
            await admin.execute_command("ACL SETUSER", name, *more)
            assert await operator.ensure_user(TENANT, "word"), more
            assert not await operator.ensure_user(TENANT, "word"), more


async def test_memory_ends_below_the_containers_limit(store: stores.Redis) -> None:
    """Redis refuses to grow when it has used 60 % of its container's memory, and evicts no counter."""
    async with Client.from_url(store.operator_url, driver_info=None) as admin:
        memory = await admin.info("memory")
    assert memory["maxmemory"] == LIMIT * 60 // 100
    assert memory["maxmemory_policy"] == "noeviction"


async def test_a_tenant_that_only_pings_fills_no_memory(store: stores.Redis) -> None:
    """Large arguments, and answers that nobody reads, end the tenant's own connections; the gateway is served."""
    async with operator_of(store) as operator:
        await operator.ensure_user(TENANT, "word")
    async with Client.from_url(store.gateway_url, protocol=2, driver_info=None) as gateway:
        with pytest.raises((RedisError, OSError)):
            async with tenant_of(store) as tenant:
                await tenant.execute_command("PING", "x" * (5 * 2**20))

        async def never_reads() -> None:
            reader, writer = await asyncio.open_connection(stores.HOST, store.port)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"AUTH %s word\r\n" % naming.redis_user(TENANT).encode())
            ping = b"*2\r\n$4\r\nPING\r\n$1000000\r\n" + b"x" * 1_000_000 + b"\r\n"
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    for _ in range(200):
                        writer.write(ping)
                        await writer.drain()
            writer.close()

        tasks = [asyncio.create_task(never_reads()) for _ in range(3)]
        while not all(task.done() for task in tasks):
            assert await gateway.set("quota:neighbour", "1")
            await asyncio.sleep(0.01)
        async with Client.from_url(store.operator_url, driver_info=None) as admin:
            assert (await admin.info("memory"))["used_memory_peak"] < LIMIT * 60 // 100
