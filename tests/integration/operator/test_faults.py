"""An API server that refuses, and events and stores that lie: everything is as it should be a short while afterwards.

Shortened as a rule; TEST_LONG=1 has the API server away for five minutes each.
"""

import asyncio
import contextlib
import os
import time

import asyncpg
import pytest
from fault_proxy import FaultProxy
from operator_world import all_objects, condition, eventually
from redis.asyncio import Redis

from assistant_crds import naming
from assistant_operator.main import Operator

LONG = os.environ.get("TEST_LONG") == "1"
AWAY_SECONDS = 300 if LONG else 4
# What is promised: all that waited is done so soon after the API server is back.
BACK_SECONDS = 30
# Half a minute at most until the full comparison, in this test.
RESYNC_SECONDS = 6.0


@pytest.fixture
async def proxy(world, kube, tmp_path, monkeypatch):
    """The way that the operator takes to the API server; the test's own is another."""
    async with FaultProxy(kube.kubeconfig).serve(tmp_path / "proxied.kubeconfig") as proxy:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "proxied.kubeconfig"))
        yield proxy


@contextlib.asynccontextmanager
async def kept_running(world, **changes):
    """Run an operator, and another one whenever it ends, as the kubelet would."""
    settings = world.settings.model_copy(update={"resync_seconds": RESYNC_SECONDS, **changes})
    current, stopping = [], asyncio.Event()

    async def run():
        while not stopping.is_set():
            current[:] = [Operator(settings, world.pod_port)]
            await current[0].run()
            await asyncio.sleep(0.5)

    task = asyncio.create_task(run())
    try:
        yield current
    finally:
        stopping.set()
        for operator in current:
            operator.stop()  # in good order: what it began ends with it
        await asyncio.wait_for(task, 60)


@pytest.mark.timeout(900 if LONG else 180)
@pytest.mark.parametrize("fault", ["refuse", "fail_writes"])
async def test_an_api_server_that_refuses_leaves_nothing_undone(world, proxy, fault):
    """What was asked for meanwhile is done within 30 s of its return, with no new event."""
    async with kept_running(world, resync_seconds=300.0):
        await world.assistant()
        await eventually(lambda: world.is_ready("Assistant", "support"))
        setattr(proxy, fault, True)
        await world.assistant("meanwhile")
        await world.assistant(instructions="Be brief.")
        await world.cluster.delete("Service", naming.API, world.namespace)
        await asyncio.sleep(AWAY_SECONDS)
        assert proxy.failed
        setattr(proxy, fault, False)
        back = time.monotonic()
        for name in ("support", "meanwhile"):
            await eventually(lambda name=name: world.is_ready("Assistant", name), BACK_SECONDS)
        assert ("Service", naming.API) in await all_objects(world.cluster, world.namespace)
        print(f"all done {time.monotonic() - back:.1f} s after its return")


@pytest.mark.timeout(180)
async def test_a_deletion_goes_on_when_the_api_server_takes_writes_again(world, proxy):
    """A tenant that is deleted while every write is answered 500 is gone soon after, and nothing of it is left."""
    async with kept_running(world, resync_seconds=300.0) as current:
        await world.assistant()
        await world.knowledge_base()
        await eventually(lambda: world.is_ready("KnowledgeBase", "handbook"))
        key = await world.tenant_key()
        proxy.fail_writes = True
        await world.delete("Assistant", "support")
        await world.delete("KnowledgeBase", "handbook")
        await asyncio.sleep(2)
        proxy.fail_writes = False

        async def is_gone():
            return not await world.leftovers(current[0].context, key)

        await eventually(is_gone, BACK_SECONDS)


@pytest.mark.timeout(180)
async def test_any_event_may_be_lost(world, proxy):
    """An event that was swallowed, a watch that expired, and watches that fall silent: the full comparison mends it."""
    async with kept_running(world):
        await world.assistant()
        await eventually(lambda: world.is_ready("Assistant", "support"))

        proxy.lose = ("services", naming.API)
        await world.cluster.delete("Service", naming.API, world.namespace)

        async def service():
            return ("Service", naming.API) in await all_objects(world.cluster, world.namespace)

        await eventually(service)
        assert proxy.lost
        proxy.lose = ("assistants", "lost")
        await world.assistant("lost")
        await eventually(lambda: world.is_ready("Assistant", "lost"))
        proxy.lose = ("", "")

        proxy.expire = True
        await world.assistant("expired")
        await eventually(lambda: world.is_ready("Assistant", "expired"))

        proxy.silent = True
        await world.assistant("unheard")
        await world.cluster.delete("ConfigMap", naming.CONFIG_MAP, world.namespace)
        await eventually(lambda: world.is_ready("Assistant", "unheard"))


async def becomes_ready(world):
    await world.knowledge_base()
    await world.assistant(knowledgeBases=[{"name": "handbook"}])
    await eventually(lambda: world.is_ready("Assistant", "support"))
    return await world.tenant_key()


@pytest.mark.timeout(180)
async def test_a_redis_user_that_was_removed_is_made_again(world, proxy):
    """What somebody changed in Redis is as it was after the next comparison."""
    async with kept_running(world):
        key = await becomes_ready(world)
        redis = Redis.from_url(world.settings.redis_url.get_secret_value(), driver_info=None)
        await redis.execute_command("ACL", "DELUSER", naming.redis_user(key))

        async def mended():
            users = await redis.execute_command("ACL", "USERS")
            return naming.redis_user(key) in {user if isinstance(user, str) else user.decode() for user in users}

        await eventually(mended)
        await redis.aclose()
        assert condition(await world.get("Assistant", "support"), "Accepted")["status"] == "True"


@pytest.mark.timeout(180)
async def test_a_database_role_that_was_changed_is_put_right(world, proxy):
    """What somebody changed of a role in Postgres is as it was after the next comparison."""
    async with kept_running(world):
        login = naming.login_role(await becomes_ready(world))
        admin = await asyncpg.connect(world.settings.postgres_dsn.get_secret_value())
        await admin.execute(f'ALTER ROLE "{login}" CONNECTION LIMIT 1')

        async def mended():
            return await admin.fetchval("SELECT rolconnlimit FROM pg_roles WHERE rolname = $1", login) > 1

        await eventually(mended)
        await admin.close()
