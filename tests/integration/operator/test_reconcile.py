"""A tenant's whole life on a real API server and real stores, run by run."""

import base64
import time

import asyncpg
import msgspec
import pytest
from operator_context import connect
from operator_world import all_objects, condition
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from assistant_crds import naming
from assistant_crds.contracts import TenantConfig, TenantPolicy
from assistant_operator.adapters.weaviate import Weaviate


def secret_values(secret):
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


async def policy_of(world):
    name = naming.policy_secret(await world.tenant_key())
    secret = await world.cluster.get("Secret", name, world.settings.routes_namespace)
    return msgspec.json.decode(secret_values(secret)[naming.POLICY_KEY], type=TenantPolicy)


async def config_of(world):
    config_map = await world.cluster.get("ConfigMap", naming.CONFIG_MAP, world.namespace)
    return msgspec.json.decode(config_map["data"][naming.CONFIG_KEY], type=TenantConfig)


async def test_first_assistant_becomes_ready(world, context):
    """A first Assistant gets its objects, a policy at the gateway, and a status that says Ready and where it is."""
    await world.assistant()

    await world.settle(context)

    assistant = await world.get("Assistant", "support")
    assert condition(assistant, "Ready")["status"] == "True"
    assert assistant["metadata"]["finalizers"] == [naming.FINALIZER]
    assert assistant["status"]["url"] == f"http://assistant-api.{world.namespace}.svc:8080/v1"
    assert assistant["status"]["replicas"] == {"ready": 1, "desired": 1}
    assert assistant["status"]["limit"] == "600/min"
    assert set(await all_objects(world.cluster, world.namespace)) == {
        ("ServiceAccount", "assistant-api"),
        ("Secret", "assistant-stores"),
        ("Secret", "assistant-admin"),
        ("Secret", "assistant-api-key"),
        ("ConfigMap", "assistant-config"),
        ("NetworkPolicy", "assistant-default-deny"),
        ("NetworkPolicy", "assistant-api"),
        ("Service", "assistant-api"),
        ("Deployment", "assistant-api"),
    }
    assert list((await policy_of(world)).assistants) == ["support"]
    assert [item.name for item in (await config_of(world)).assistants] == ["support"]


async def test_nothing_is_written_at_rest(world):
    """Once settled, further runs write nothing to cluster or stores, even with nothing remembered."""
    writes = []
    async with connect(world.settings, world.pod_port) as context:
        await world.assistant()
        await world.knowledge_base()
        await world.settle(context)
    async with connect(world.settings, world.pod_port, guard=lambda: writes.append(1)) as context:
        await world.settle(context, runs=1)
        await world.settle(context, runs=1)
    assert writes == []


async def test_credentials_in_the_secret_work_and_reach_no_further(world, context, postgres):
    """What the tenant's pods get opens its own database, keys and vectors, and nobody else's."""
    await world.assistant()
    base = await world.knowledge_base()
    await world.settle(context)
    key = await world.tenant_key()
    stores = secret_values(await world.cluster.get("Secret", naming.STORES_SECRET, world.namespace))

    connection = await asyncpg.connect(stores["postgres_dsn"])
    assert await connection.fetchval("SELECT count(*) FROM documents") == 0
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("CREATE TABLE mine (a int)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("SELECT * FROM pg_stat_database")
    await connection.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(stores["postgres_dsn"].removesuffix(key) + "postgres")

    redis = Redis.from_url(stores["redis_url"], driver_info=None)
    assert await redis.ping()
    for name in (f"{{{key}}}:a", naming.quota_prefix(key) + "rpm:support"):
        with pytest.raises(NoPermissionError):
            await redis.get(name)
        with pytest.raises(NoPermissionError):
            await redis.set(name, "1")
    await redis.aclose()

    mine = Weaviate(stores["weaviate_url"], stores["weaviate_grpc"], stores["weaviate_api_key"], lambda: None)
    vectors = naming.knowledge_base_key(key, base["metadata"]["uid"])
    client = await mine._connected()
    collection = client.collections.use(naming.VECTOR_COLLECTION).with_tenant(vectors)
    await collection.data.insert({"text": "hello", "document_id": "d"}, vector=[0.1] * 16)
    assert await mine.vectors(vectors) == 1
    await mine.close()


async def test_knowledge_base_is_counted_and_removed_with_a_receipt(world, context):
    """A KnowledgeBase shows what it holds; deleting it removes rows and vectors, tells how many, and the rest stays."""
    await world.assistant()
    base = await world.knowledge_base()
    await world.settle(context)
    key = await world.tenant_key()
    vectors = naming.knowledge_base_key(key, base["metadata"]["uid"])
    await insert_document(world, vectors, chunks=2)
    client = await context.weaviate._connected()
    collection = client.collections.use(naming.VECTOR_COLLECTION).with_tenant(vectors)
    for number in range(3):
        await collection.data.insert({"text": f"chunk {number}", "document_id": "d"}, vector=[0.1] * 16)

    await world.settle(context)

    status = (await world.get("KnowledgeBase", "handbook"))["status"]
    assert {name: status[name] for name in ("documents", "pending", "failed", "vectors", "orphans")} == {
        "documents": 1,
        "pending": 0,
        "failed": 0,
        "vectors": 3,
        "orphans": 1,
    }
    assert ("Deployment", naming.WORKER) in await all_objects(world.cluster, world.namespace)

    await world.delete("KnowledgeBase", "handbook")
    await world.settle(context)

    assert await world.get("KnowledgeBase", "handbook") is None
    assert await context.weaviate.knowledge_bases(key) == []
    assert await context.postgres.rows(key, [vectors]) == {}
    events = await world.cluster.list("Event", world.namespace)
    told = [event["message"] for event in events if event["message"].startswith("Removed")]
    assert told == ["Removed 3 vectors and 1 documents."]
    assert ("Deployment", naming.WORKER) not in await all_objects(world.cluster, world.namespace)
    assert await world.is_ready("Assistant", "support")


async def insert_document(world, vectors, chunks):
    stores = secret_values(await world.cluster.get("Secret", naming.STORES_SECRET, world.namespace))
    connection = await asyncpg.connect(stores["postgres_dsn"])
    await connection.execute(
        """INSERT INTO documents (id, knowledge_base, name, media_type, bytes, sha256, status, chunks)
           VALUES (gen_random_uuid(), $1, 'a.md', 'text/markdown', 3, 'x', 'ready', $2)""",
        vectors,
        chunks,
    )
    await connection.close()


async def test_missing_secret_is_told_and_mended_without_touching_neighbours(world, context):
    """An Assistant whose Secret is missing says which; its neighbour serves on; the key goes to the gateway only."""
    reference = {"name": "llm", "key": "token"}
    own = {"name": "m", "endpoint": {"url": "https://llm.example.com/v1", "apiKeySecretRef": reference}}
    await world.assistant("broken", model=own)
    await world.assistant("fine")
    await world.settle(context)

    broken = await world.get("Assistant", "broken")
    refused = condition(broken, "RefsResolved")
    assert (refused["status"], refused["reason"]) == ("False", "SecretNotFound")
    assert "Secret llm" in refused["message"]
    assert condition(broken, "Ready")["message"] == refused["message"]
    assert condition(broken, "ModelReachable")["reason"] == "Waiting"
    assert await world.is_ready("Assistant", "fine")
    assert context.index.secret(world.namespace, "llm")

    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "llm", "namespace": world.namespace}}
    await world.cluster.apply({**secret, "stringData": {"token": "sk-very-secret"}})
    await world.settle(context)

    assert await world.is_ready("Assistant", "broken")
    policy = await policy_of(world)
    assert policy.assistants["broken"].route.endpoint.api_key == "sk-very-secret"
    assert "sk-very-secret" not in str(await config_of(world))


async def test_tenant_limits_and_serving_take_effect(world, context):
    """A Tenant's limits, replicas and models hold over what the namespace's own resources say."""
    await world.assistant(limits={"requestsPerMinute": 5000})
    await world.assistant("forbidden", model={"provider": "demo", "name": "big"})
    spec = {
        "limits": {"requestsPerMinute": 120},
        "serving": {"replicas": {"min": 2}},
        "models": {"allow": ["demo/m"]},
    }
    await world.cluster.apply(
        {"apiVersion": naming.API_VERSION, "kind": "Tenant", "metadata": {"name": world.namespace}, "spec": spec}
    )
    await world.settle(context)

    assert (await world.get("Assistant", "support"))["status"]["limit"] == "120/min"
    forbidden = condition(await world.get("Assistant", "forbidden"), "Accepted")
    assert (forbidden["status"], forbidden["reason"]) == ("False", "ModelNotAllowed")
    objects = await all_objects(world.cluster, world.namespace)
    assert objects["Deployment", naming.API]["spec"]["replicas"] == 2
    assert ("PodDisruptionBudget", naming.API) in objects
    tenant = await world.get("Tenant", world.namespace)
    assert await world.is_ready("Tenant", world.namespace)
    assert (tenant["status"]["assistants"], tenant["status"]["limit"]) == (2, "120/min")
    await world.delete("Tenant", world.namespace)


async def test_changed_instructions_reach_pods_without_a_roll_out(world, context):
    """New instructions change the ConfigMap and annotate the pods; the Deployment stays as it is."""
    await world.assistant(instructions="Be kind.")
    await world.settle(context)
    before = (await all_objects(world.cluster, world.namespace))["Deployment", naming.API]["metadata"]["generation"]

    await world.assistant(instructions="Be brief.")
    started = time.monotonic()
    await world.settle(context)

    assert time.monotonic() - started < 3
    config = await config_of(world)
    assert config.assistants[0].instructions == "Be brief."
    pods = await world.cluster.list("Pod", world.namespace)
    assert [pod["metadata"]["annotations"][naming.ANNOTATION_CONFIG] for pod in pods] == [config.generation]
    after = (await all_objects(world.cluster, world.namespace))["Deployment", naming.API]["metadata"]["generation"]
    assert after == before
    assert await world.is_ready("Assistant", "support")


async def test_ready_waits_for_the_pods_to_serve_this_generation(world, context):
    """A pod that still serves the former configuration keeps Ready false, and is named."""
    await world.assistant(instructions="Be kind.")
    await world.settle(context)
    world.node.frozen = True
    await world.assistant(instructions="Be brief.")
    with pytest.raises(AssertionError, match="does not settle"):
        await world.settle(context, runs=6)

    stale = condition(await world.get("Assistant", "support"), "EndpointAnswering")
    assert (stale["status"], stale["reason"]) == ("False", "StaleConfiguration")
    assert "Pod assistant-api-" in stale["message"]

    world.node.frozen = False
    await world.settle(context)
    assert await world.is_ready("Assistant", "support")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}}, "ImagePullFailed"),
        ({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}, "ContainerFailing"),
    ],
)
async def test_pods_that_cannot_start_are_told(world, context, state, reason):
    """A pod that cannot start makes WorkloadAvailable false with its name, and heals when a good one replaces it."""
    world.node.broken = state
    await world.assistant()
    await world.settle(context)
    broken = condition(await world.get("Assistant", "support"), "WorkloadAvailable")
    assert (broken["status"], broken["reason"]) == ("False", reason)
    assert "assistant-api-" in broken["message"]

    world.node.broken = None
    for pod in await world.cluster.list("Pod", world.namespace):
        await world.node._remove(pod)
    await world.settle(context)
    assert await world.is_ready("Assistant", "support")


async def test_unreachable_model_is_told_and_healed(world, context):
    """What the gateway says of a model is on the resource, with the gateway's sentence."""
    world.gateway.unreachable.add("support")
    await world.assistant()
    await world.settle(context)  # the gateway says when it changes; until then there is nothing to do
    told = condition(await world.get("Assistant", "support"), "ModelReachable")
    assert (told["status"], told["reason"]) == ("False", "ProviderUnreachable")
    assert condition(await world.get("Assistant", "support"), "Ready")["status"] == "False"

    world.gateway.unreachable.clear()
    await world.settle(context)
    assert await world.is_ready("Assistant", "support")


async def test_gateway_that_is_away_is_told(world, context):
    """Without the gateway nothing is known of limits and models; the status says so and heals."""
    await world.assistant()
    await world.settle(context)
    world.gateway.down = True
    with pytest.raises(AssertionError, match="does not settle"):
        await world.settle(context, runs=4)
    told = condition(await world.get("Assistant", "support"), "QuotaSynced")
    assert (told["status"], told["reason"]) == ("False", "GatewayUnreachable")
    world.gateway.down = False
    await world.settle(context)
    assert await world.is_ready("Assistant", "support")


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ConfigMap", "Secret", "ServiceAccount", "NetworkPolicy"])
async def test_deleted_and_changed_objects_come_back(world, context, kind):
    """A child object that was deleted, or changed by hand, is as it was after the next run; passwords stay the same."""
    await world.assistant()
    await world.settle(context)
    before = await all_objects(world.cluster, world.namespace)
    for found, name in before:
        if found == kind and name != naming.API_KEY_SECRET:
            await world.cluster.delete(kind, name, world.namespace)
    await world.settle(context)
    after = await all_objects(world.cluster, world.namespace)
    assert set(after) == set(before)
    assert await world.is_ready("Assistant", "support")


async def test_broken_credentials_are_repaired(world, context):
    """A Secret that lost a key, and stores whose passwords were changed, are made right again."""
    await world.assistant()
    await world.settle(context)
    key = await world.tenant_key()
    secret = await world.cluster.get("Secret", naming.STORES_SECRET, world.namespace)
    kept = {name: value for name, value in secret["data"].items() if name not in {"redis_url", "weaviate_api_key"}}
    await world.cluster._client.patch(
        world.cluster._resources["Secret"],
        naming.STORES_SECRET,
        [{"op": "replace", "path": "/data", "value": kept}],
        namespace=world.namespace,
        patch_type=_json_patch(),
    )
    redis = Redis.from_url(world.settings.redis_url.get_secret_value(), driver_info=None)
    await redis.execute_command("ACL", "SETUSER", key, "+@all", "~*", "nopass")
    await redis.aclose()
    context.memory.checked.clear()
    await world.settle(context)

    stores = secret_values(await world.cluster.get("Secret", naming.STORES_SECRET, world.namespace))
    assert stores["postgres_dsn"] == base64.b64decode(kept["postgres_dsn"]).decode()
    assert stores["weaviate_api_key"]
    tenant = Redis.from_url(stores["redis_url"], driver_info=None)
    assert await tenant.ping()
    with pytest.raises(Exception, match="permission"):
        await tenant.get("another")
    await tenant.aclose()
    await (await asyncpg.connect(stores["postgres_dsn"])).close()


def _json_patch():
    from lightkube.types import PatchType

    return PatchType.JSON


async def test_deleting_the_api_key_makes_a_new_one(world, context):
    """The first API key is 256 bits of randomness, known to pods by its hash; deleting its Secret rotates it."""
    import hashlib

    await world.assistant()
    await world.settle(context)

    async def key():
        secret = await world.cluster.get("Secret", naming.API_KEY_SECRET, world.namespace)
        return secret_values(secret)[naming.API_KEY_KEY]

    first = await key()
    assert first.startswith("ak_")
    assert len(first) == 46
    assert (await config_of(world)).api_keys[0].sha256 == hashlib.sha256(first.encode()).hexdigest()
    await world.cluster.delete("Secret", naming.API_KEY_SECRET, world.namespace)
    await world.settle(context)
    assert await key() != first
    assert (await config_of(world)).api_keys[0].sha256 == hashlib.sha256((await key()).encode()).hexdigest()
