"""A store that goes away is told by name within 15 seconds, and all is well again once it is back, without a touch."""

import asyncio
import contextlib
import time

import pytest
from operator_world import condition, eventually, running
from pydantic import SecretStr

from assistant_cluster import stores


def redis_settings(store):
    return {"redis_url": SecretStr(store.operator_url), "tenant_redis": store.address}


def postgres_settings(store):
    return {"postgres_dsn": SecretStr(store.dsn), "tenant_postgres": store.address}


def weaviate_settings(store):
    return {
        "weaviate_url": store.url,
        "weaviate_grpc": store.grpc,
        "weaviate_api_key": SecretStr(store.api_key),
        "tenant_weaviate_url": store.url,
        "tenant_weaviate_grpc": store.grpc,
    }


STORES = {
    "redis": (stores.redis, redis_settings, "QuotaSynced"),
    "postgres": (stores.postgres, postgres_settings, "KnowledgeReady"),
    "weaviate": (stores.weaviate, weaviate_settings, "KnowledgeReady"),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["stopped", "frozen"])
async def test_a_store_that_goes_away_is_told_and_healed(world, way):
    """The condition names the store; the endpoint serves on; what was asked for meanwhile is finished afterwards."""
    with contextlib.ExitStack() as stack:
        own = {store: stack.enter_context(start()) for store, (start, _, _) in STORES.items()}
        changes = {}
        for store, (_, settings, _) in STORES.items():
            changes |= settings(own[store])
        async with running(world.settings.model_copy(update=changes), world.pod_port):
            await world.knowledge_base()
            await world.assistant(knowledgeBases=[{"name": "handbook"}])
            for store, (_, _, kind) in STORES.items():
                await eventually(lambda: world.is_ready("Assistant", "support"))
                await go_away_and_come_back(world, store, own[store].server, kind, way)


async def go_away_and_come_back(world, store, server, kind, way):
    await asyncio.to_thread(server.stop if way == "stopped" else server.pause)
    gone = time.monotonic()

    async def is_told():
        found = condition(await world.get("Assistant", "support"), kind)
        return (found["status"], found["reason"]) == ("False", "StoreUnreachable") and found

    told = await eventually(is_told, 15)
    print(f"told after {time.monotonic() - gone:.1f} s: {told['message']}")
    assert f"Store {store}" in told["message"]
    assert condition(await world.get("Assistant", "support"), "EndpointAnswering")["status"] == "True"
    await world.assistant(f"meanwhile-{store}")

    await asyncio.to_thread(server.start if way == "stopped" else server.resume)
    back = time.monotonic()
    await eventually(lambda: world.is_ready("Assistant", "support"))
    await eventually(lambda: world.is_ready("Assistant", f"meanwhile-{store}"))
    print(f"{store} healed after {time.monotonic() - back:.1f} s")


async def test_a_redis_that_lost_its_users_gets_them_back(world):
    """A store that starts anew with nothing is filled again: the operator notices the server's new life."""
    with stores.redis() as own:
        changed = world.settings.model_copy(update=redis_settings(own))
        async with running(changed, world.pod_port) as operator:
            await world.assistant()
            await eventually(lambda: world.is_ready("Assistant", "support"))
            key = await world.tenant_key()

            def lose():
                own.server.stop()
                for file in own.server.folder.rglob("*.acl"):
                    file.unlink()
                own.server.start()

            await asyncio.to_thread(lose)

            async def is_back():
                return f"user {key}" in await operator.context.redis.leftovers(key)

            await eventually(is_back)
