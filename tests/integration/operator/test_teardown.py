"""Nothing of a tenant is left once its last resource goes, whatever the way."""

import asyncio
import contextlib
from dataclasses import replace

from operator_context import connect
from operator_world import condition
from pydantic import SecretStr
from redis.asyncio import Redis
from structlog.testing import capture_logs

from assistant_crds import naming
from assistant_crds.contracts import TenantIdentity
from assistant_operator.desired import policy
from assistant_operator.desired.compare import with_digest
from assistant_operator.reconcile.run import reconcile
from assistant_operator.reconcile.teardown import LEDGER_SECONDS


async def set_up(world, context):
    await world.assistant()
    await world.knowledge_base()
    await world.settle(context)
    key = await world.tenant_key()
    redis = Redis.from_url(context.settings.redis_url.get_secret_value(), driver_info=None)
    await redis.execute_command("ACL", "SETUSER", "writer", "on", ">w", "+set", "~*")
    writer = Redis.from_url(f"redis://writer:w@{context.settings.tenant_redis}/0", driver_info=None)
    await writer.set(f"{naming.redis_prefix(key)}cache", "1")
    await writer.set(f"{naming.quota_prefix(key)}rpm:support", "1")
    await redis.execute_command("ACL", "DELUSER", "writer")
    await writer.aclose()
    await redis.aclose()
    return key


async def test_the_last_resource_takes_everything_with_it(world, context):
    """After the last resource no object, policy, role, database, key, user or vector tenant is left."""
    key = await set_up(world, context)
    assert await world.leftovers(context, key)

    await world.delete("Assistant", "support")
    await world.delete("KnowledgeBase", "handbook")
    await world.settle(context)

    assert await world.get("Assistant", "support") is None
    assert await world.get("KnowledgeBase", "handbook") is None
    assert await world.leftovers(context, key) == []


async def test_stores_are_emptied_only_after_the_pods_are_gone(world, context):
    """While a pod still runs, the data stays and the resource says what it waits for."""
    key = await set_up(world, context)
    world.node.keeps_pods = True
    await world.delete("KnowledgeBase", "handbook")
    await world.delete("Assistant", "support")
    for _ in range(3):
        await reconcile(world.namespace, context)

    assert await context.postgres.leftovers(key)
    waiting = condition(await world.get("Assistant", "support"), "Ready")
    assert (waiting["status"], waiting["reason"]) == ("False", "Deleting")
    assert "assistant-" in waiting["message"]

    world.node.keeps_pods = False
    await world.settle(context)
    assert await world.leftovers(context, key) == []


async def test_a_namespace_that_is_deleted_is_emptied(world, context):
    """In a namespace that goes away nothing can be created; its tenant is removed and its resources are let go."""
    key = await set_up(world, context)
    await world.cluster._client.delete(world.cluster._resources["Namespace"], world.namespace)
    for _ in range(40):
        await reconcile(world.namespace, context)
        assistant = await world.get("Assistant", "support")
        if not assistant or not assistant["metadata"].get("finalizers"):
            break
        await asyncio.sleep(0.1)

    assert await world.leftovers(context, key) == []
    assert not (await world.get("KnowledgeBase", "handbook"))["metadata"].get("finalizers")


async def test_a_resource_made_anew_starts_from_nothing(world, context):
    """A resource that is made again after the last one went gets new credentials and an empty database."""
    key = await set_up(world, context)
    before = await world.cluster.get("Secret", naming.STORES_SECRET, world.namespace)
    await world.delete("Assistant", "support")
    await world.delete("KnowledgeBase", "handbook")
    await world.settle(context)
    await world.assistant()
    await world.settle(context)

    after = await world.cluster.get("Secret", naming.STORES_SECRET, world.namespace)
    assert after["data"]["postgres_dsn"] != before["data"]["postgres_dsn"]
    assert await world.is_ready("Assistant", "support")
    assert await context.weaviate.knowledge_bases(key) == []


async def test_a_former_tenant_is_removed_by_its_record(world, context):
    """A record whose namespace was made anew, or is gone, is enough to find and remove what is left in the stores."""
    former = TenantIdentity(namespace=world.namespace, uid="former-uid", key=naming.tenant_key("former-uid"))
    await context.weaviate.ensure_user(former.key, "")
    await context.weaviate.ensure_access(former.key, [f"{former.key}_abc"])
    await context.redis.ensure_user(former.key, "password")
    record = with_digest(policy.secret(policy.closed(former), context.settings.routes_namespace))
    await context.cluster.apply(record)
    await world.assistant()
    await world.settle(context)

    assert await world.is_ready("Assistant", "support")
    assert await context.weaviate.leftovers(former.key) == []
    assert await context.redis.leftovers(former.key) == []
    assert await context.cluster.get("Secret", record["metadata"]["name"], context.settings.routes_namespace) is None


async def test_a_single_assistant_is_let_go_at_once(world, context):
    """Deleting one of several assistants takes it from configuration and policy; the others do not notice."""
    await world.assistant("stays")
    await world.assistant("goes")
    await world.settle(context)
    await world.delete("Assistant", "goes")
    await world.settle(context)
    assert await world.get("Assistant", "goes") is None
    assert await world.is_ready("Assistant", "stays")


async def test_objects_of_others_with_our_label_stay(world, context):
    """An object that only carries our label is not ours: neither pruning nor tear-down touches it."""
    labels = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}
    metadata = {"name": "mine", "namespace": world.namespace, "labels": labels}
    await world.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}})
    await world.assistant()
    await world.settle(context)
    await world.delete("Assistant", "support")
    await world.settle(context)
    assert await world.cluster.get("ConfigMap", "mine", world.namespace) is not None


async def test_another_operator_finishes_a_tear_down(world, context):
    """Tear-down needs nothing but what the cluster says: an operator that knows nothing finishes it."""
    key = await set_up(world, context)
    await world.delete("Assistant", "support")
    await world.delete("KnowledgeBase", "handbook")
    await reconcile(world.namespace, context)
    async with connect(world.settings, world.pod_port) as successor:
        await world.settle(successor)
        assert await world.leftovers(successor, key) == []


@contextlib.asynccontextmanager
async def gateway_of(context):
    """A client that may do with the ledger's streams what a gateway does."""
    redis = Redis.from_url(context.settings.redis_url.get_secret_value(), driver_info=None)
    await redis.execute_command("ACL", "SETUSER", "drainer", "on", ">w", "+xadd", "+xdel", "~quota:*")
    async with Redis.from_url(f"redis://drainer:w@{context.settings.tenant_redis}/0", driver_info=None) as client:
        yield client
    await redis.execute_command("ACL", "DELUSER", "drainer")
    await redis.aclose()


def with_ledger(context):
    """Return the context of an operator whose platform has a ledger."""
    return replace(context, settings=context.settings.model_copy(update={"ledger_url": SecretStr("postgresql://x")}))


async def test_counters_stay_until_the_last_calls_are_in_the_ledger(world, context):
    """What a tenant used is on its bill: its stream is not removed before the gateway has moved it."""
    key, context = await set_up(world, context), with_ledger(context)
    async with gateway_of(context) as gateway:
        entry = await gateway.xadd(naming.ledger_stream(key), {"at": "1", "entry": "{}"})
        await world.delete("KnowledgeBase", "handbook")
        await world.delete("Assistant", "support")
        for _ in range(20):
            await reconcile(world.namespace, context)
            waiting = condition(await world.get("Assistant", "support"), "Ready")
            if "ledger" in waiting["message"]:
                break
            await asyncio.sleep(0.1)
        assert "1 of its calls are not in the ledger's database yet" in waiting["message"]
        assert await context.redis.leftovers(key)
        await gateway.xdel(naming.ledger_stream(key), entry)
    await world.settle(context)
    assert await world.leftovers(context, key) == []


async def test_a_tenant_goes_also_when_nobody_moves_its_calls(world, context):
    """After a while the operator says how many calls are lost to the ledger, and goes on."""
    key, context = await set_up(world, context), with_ledger(context)
    clock = [context.monotonic()]
    context.monotonic = lambda: clock[0]
    async with gateway_of(context) as gateway:
        await gateway.xadd(naming.ledger_stream(key), {"at": "1", "entry": "{}"})
    await world.delete("KnowledgeBase", "handbook")
    await world.delete("Assistant", "support")
    for _ in range(20):
        await reconcile(world.namespace, context)
        if key in context.memory.undrained:
            break
        await asyncio.sleep(0.1)
    clock[0] += LEDGER_SECONDS + 1
    with capture_logs() as lines:
        await world.settle(context)
    assert [line["n"] for line in lines if "lost to the ledger" in line["event"]] == [1]
    assert await world.leftovers(context, key) == []


async def test_a_knowledge_base_that_went_without_its_finalizer_leaves_nothing(world, context):
    """Whoever takes the finalizer away first leaves no vectors and rows: the stores are compared with the resources."""
    await world.assistant()
    await world.knowledge_base("kept")
    base = await world.knowledge_base("freed")
    await world.settle(context)
    key = await world.tenant_key()
    vectors = naming.knowledge_base_key(key, base["metadata"]["uid"])
    async with context.postgres.session(key) as session:
        await session.execute(
            """INSERT INTO documents (id, knowledge_base, name, media_type, bytes, sha256, status, chunks)
               VALUES (gen_random_uuid(), $1, 'a.md', 'text/markdown', 3, 'x', 'ready', 1)""",
            vectors,
        )
    await world.cluster.patch_metadata("KnowledgeBase", await world.get("KnowledgeBase", "freed"), {"finalizers": []})
    await world.delete("KnowledgeBase", "freed")
    assert await world.get("KnowledgeBase", "freed") is None
    assert vectors in await context.weaviate.knowledge_bases(key)

    await world.settle(context)

    assert len(await context.weaviate.knowledge_bases(key)) == 1
    assert await context.postgres.strangers(key, []) == []
    assert await world.is_ready("KnowledgeBase", "kept")


async def test_another_operator_finds_what_was_left_while_none_ran(world):
    """A new process, which remembers nothing, compares the stores with the resources at its first look."""
    async with connect(world.settings, world.pod_port) as first:
        await world.assistant()
        await world.knowledge_base("kept")
        await world.knowledge_base("freed")
        await world.settle(first)
    key = await world.tenant_key()
    await world.cluster.patch_metadata("KnowledgeBase", await world.get("KnowledgeBase", "freed"), {"finalizers": []})
    await world.delete("KnowledgeBase", "freed")
    async with connect(world.settings, world.pod_port) as second:
        await world.settle(second)
        assert len(await second.weaviate.knowledge_bases(key)) == 1


async def test_a_pod_that_nothing_ends_holds_up_no_removal_for_long(world, context, monkeypatch):
    """A pod with our name and label that somebody made by hand is waited for within bounds."""
    from assistant_operator.reconcile import teardown

    await set_up(world, context)
    key = await world.tenant_key()
    world.node.keeps_pods = True
    await world.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "assistant-x",
                "namespace": world.namespace,
                "labels": {naming.LABEL_MANAGED_BY: naming.MANAGED_BY, naming.LABEL_NAME: naming.API},
                "annotations": {"template": ""},
            },
            "spec": {"serviceAccountName": naming.API, "containers": [{"name": "c", "image": "x"}]},
        }
    )
    await world.delete("Assistant", "support")
    await world.delete("KnowledgeBase", "handbook")
    await reconcile(world.namespace, context)
    assert "Waits for pod" in condition(await world.get("Assistant", "support"), "Ready")["message"]
    monkeypatch.setattr(teardown, "ORPHAN_SECONDS", 0)
    await world.settle(context)
    assert await world.get("Assistant", "support") is None
    assert await world.leftovers(context, key) == []
