"""The second tenant's attempts on the first: by network, token, credential and name. All of them fail."""

from __future__ import annotations

import asyncio
import base64
import json
from urllib.parse import urlsplit

import asyncpg
import e2e_probe
import httpx
import jwt
import openai
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric import rsa
from e2e_platform import PLATFORM, ROUTES, NewTenant, Platform, Tenant, eventually
from e2e_probe import Probe
from e2e_stores import Stores

from assistant_crds import naming
from assistant_demo.kubernetes import CommandError

GATEWAY = f"http://assistant-gateway.{PLATFORM}.svc:8081"
STORES = [("assistant-postgres", 5432), ("assistant-redis", 6379), ("assistant-weaviate", 8080)]
METADATA = "169.254.169.254"  # where clouds tell a machine its credentials
# Ports on which stores and operator listen for themselves.
INNER_PORTS = [
    ("assistant-weaviate", 6060),
    ("assistant-weaviate", 7100),
    ("assistant-weaviate", 7101),
    ("assistant-weaviate", 8300),
    ("assistant-weaviate", 8301),
    ("assistant-operator", 8080),
]
CHAT_BODY = {"model": "plain", "messages": [{"role": "user", "content": "Hello"}]}
TENANT_POD = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}


@pytest.fixture(scope="module")
def mallory(shared_tenant: NewTenant) -> Tenant:
    """A second tenant, with an assistant and a knowledge base of its own."""
    tenant = shared_tenant("mallory")
    tenant.knowledge_base("notes")
    tenant.assistant("own", knowledgeBases=[{"name": "notes"}])
    tenant.wait_ready()
    return tenant


@pytest.fixture(scope="module")
def stranger(mallory: Tenant) -> Probe:
    """A pod in the second tenant's namespace without any label of ours."""
    return e2e_probe.start(mallory, "stranger")


@pytest.fixture(scope="module")
def impostor(shared_tenant: NewTenant) -> Probe:
    """A pod that carries the labels of a tenant's API, in a namespace where no policy of ours holds it."""
    return e2e_probe.start(shared_tenant("impostor"), "impostor", {**TENANT_POD, naming.LABEL_NAME: "impostor"})


# --- network


def test_the_network_lets_neither_pod_reach_the_others_api(acme: Tenant, stranger: Probe, impostor: Probe) -> None:
    """The API of the first tenant takes no connection from another tenant's namespace, by name or address."""
    address = acme.pods()[0]["status"]["podIP"]
    for probe in (stranger, impostor):
        assert not probe.connects(f"{naming.API}.{acme.namespace}.svc", 8080)
        assert not probe.connects(address, 8080)
        assert not probe.connects(address, 9090)


def test_a_pod_of_a_tenants_namespace_reaches_its_own_api(mallory: Tenant, stranger: Probe) -> None:
    """The probe would be able to connect if it were let: its own namespace's API answers."""
    assert stranger.connects(f"{naming.API}.{mallory.namespace}.svc", 8080)


@pytest.mark.parametrize(("service", "port"), [*STORES, ("assistant-gateway", 8081)])
def test_the_network_keeps_foreign_pods_from_stores_and_gateway(stranger: Probe, service: str, port: int) -> None:
    """A pod that is not one of the platform's tenants' pods reaches neither a store nor the gateway."""
    assert not stranger.connects(f"{service}.{PLATFORM}.svc", port)


def test_stolen_store_credentials_are_of_no_use_to_a_foreign_pod(acme: Tenant, stranger: Probe) -> None:
    """With the first tenant's Secret in hand, a pod of the second still finds no store to present it to."""
    stolen = acme.platform.secret(acme.namespace, naming.STORES_SECRET)
    for key in ("postgres_dsn", "redis_url", "weaviate_url"):
        address = urlsplit(stolen[key])
        assert address.hostname
        assert not stranger.connects(address.hostname, address.port or 80)


def test_the_operators_and_gateways_other_ports_are_closed(stranger: Probe, impostor: Probe) -> None:
    """Metrics and probes of the platform's parts are not for tenants."""
    for probe in (stranger, impostor):
        assert not probe.connects(f"assistant-gateway.{PLATFORM}.svc", 9090)
        assert not probe.connects(f"assistant-operator.{PLATFORM}.svc", 9090)


def test_a_tenants_own_pods_reach_nothing_that_they_do_not_need(acme: Tenant, platform: Platform) -> None:
    """API and worker reach gateway and stores, but no API server, no cloud metadata and no other port."""
    server = platform.cluster.get("service", "kubernetes", "default")
    assert server is not None
    closed = [
        (server["spec"]["clusterIP"], 443),
        ("kubernetes.default.svc", 443),
        (METADATA, 80),
        (f"assistant-gateway.{PLATFORM}.svc", 9090),
        (f"assistant-operator.{PLATFORM}.svc", 9090),
        *((pod["status"]["podIP"], port) for name, port in INNER_PORTS for pod in platform.pods(PLATFORM, name)),
    ]
    for pod in (acme.pods()[0], acme.pods(naming.WORKER)[0]):
        probe = Probe(acme, pod["metadata"]["name"])
        assert probe.connects(f"assistant-gateway.{PLATFORM}.svc", 8081), "the probe reaches nothing: nothing is shown"
        assert probe.connects(f"assistant-postgres.{PLATFORM}.svc", 5432)
        assert [(host, port) for host, port in closed if probe.connects(host, port)] == []


# --- identity at the gateway


def test_an_impostor_reaches_the_gateway_but_is_nobody_there(impostor: Probe) -> None:
    """The network label opens the way, and only the way: without a token, 401."""
    assert impostor.request(f"{GATEWAY}/v1/models")[0] == 401
    assert impostor.request(f"{GATEWAY}/v1/models", "garbage")[0] == 401


def test_the_token_of_another_service_account_is_refused(mallory: Tenant, impostor: Probe) -> None:
    """Right audience, wrong account: 403."""
    stolen = e2e_probe.token(mallory, "default", naming.GATEWAY_AUDIENCE)
    assert impostor.request(f"{GATEWAY}/v1/chat/completions", stolen, CHAT_BODY)[0] == 403


def test_a_token_for_another_audience_is_refused(mallory: Tenant, impostor: Probe) -> None:
    """A token meant for the API server does not open the gateway."""
    stolen = e2e_probe.token(mallory, naming.API, "https://kubernetes.default.svc.cluster.local")
    assert impostor.request(f"{GATEWAY}/v1/chat/completions", stolen, CHAT_BODY)[0] == 401


def test_a_tenants_own_token_reaches_only_its_own_assistants(mallory: Tenant, impostor: Probe) -> None:
    """The tenant comes from the token's namespace: another tenant's assistant is unknown, its own answers."""
    token = e2e_probe.token(mallory, naming.API, naming.GATEWAY_AUDIENCE)
    assert impostor.request(f"{GATEWAY}/v1/chat/completions", token, CHAT_BODY)[0] == 404
    assert impostor.request(f"{GATEWAY}/v1/chat/completions", token, {**CHAT_BODY, "model": "own"})[0] == 200
    status, models = impostor.request(f"{GATEWAY}/v1/models", token)
    assert status == 200
    assert [model["id"] for model in json.loads(models)["data"]] == ["own"]


def test_a_token_with_a_forged_namespace_is_refused(acme: Tenant, mallory: Tenant, impostor: Probe) -> None:
    """Neither a rewritten claim under the old signature, nor a key of one's own, nor no signature at all gets in."""
    token = e2e_probe.token(mallory, naming.API, naming.GATEWAY_AUDIENCE)
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["kubernetes.io"]["namespace"] = acme.namespace
    claims["sub"] = f"system:serviceaccount:{acme.namespace}:{naming.API}"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    kid = jwt.get_unverified_header(token)["kid"]
    attempts = [
        f"{head}.{forged}.{signature}",
        jwt.encode(claims, own, algorithm="RS256", headers={"kid": kid}),
        jwt.encode(claims, None, algorithm="none", headers={"kid": kid}),
    ]
    for attempt in attempts:
        assert impostor.request(f"{GATEWAY}/v1/chat/completions", attempt, CHAT_BODY)[0] == 401


def test_the_operators_door_is_closed_to_tenants(acme: Tenant, mallory: Tenant, impostor: Probe) -> None:
    """What the gateway tells the operator about a tenant, it tells no tenant."""
    token = e2e_probe.token(mallory, naming.API, naming.GATEWAY_AUDIENCE)
    assert impostor.request(f"{GATEWAY}/internal/v1/tenants/{acme.namespace}/probe", token)[0] == 403


# --- stores: the second tenant's own credentials, on the first tenant's data


def test_the_database_refuses_another_tenants_role(acme: Tenant, mallory: Tenant, stores: Stores) -> None:
    """With its own login, the second tenant can neither open the first's database nor become its owner."""
    own = stores.postgres_dsn(acme.platform.secret(mallory.namespace, naming.STORES_SECRET)["postgres_dsn"])
    server, database = own.rsplit("/", 1)
    assert database == naming.database(mallory.store_key)

    async def attempt() -> None:
        connection = await asyncpg.connect(own, timeout=10)
        try:
            assert await connection.fetchval("SELECT current_database()") == naming.database(mallory.store_key)
            for role in (naming.owner_role(acme.store_key), naming.owner_role(mallory.store_key)):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(f'SET ROLE "{role}"')
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("CREATE TABLE mine (id int)")
        finally:
            await connection.close()
        for foreign in (naming.database(acme.store_key), "postgres", "template1"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(f"{server}/{foreign}", timeout=10)

    asyncio.run(attempt())


def test_redis_refuses_another_tenants_keys_and_every_broad_command(
    acme: Tenant, mallory: Tenant, stores: Stores
) -> None:
    """With its own user, the second tenant reads and writes no key, neither the first's nor one of its own."""
    url = stores.redis_url(acme.platform.secret(mallory.namespace, naming.STORES_SECRET)["redis_url"])
    own, other = naming.redis_prefix(mallory.store_key), naming.redis_prefix(acme.store_key)
    with redis.Redis.from_url(url, protocol=2, driver_info=None, socket_timeout=10) as client:
        assert client.ping()
        attempts = (
            lambda: client.set(f"{own}probe", "1", ex=60),
            lambda: client.get(f"{own}probe"),
            lambda: client.publish(f"{own}channel", "hello"),
            lambda: client.eval("return 1", 0),
            lambda: client.get(f"{other}anything"),
            lambda: client.set(f"{other}anything", "1"),
            lambda: client.get(f"{naming.quota_prefix(mallory.store_key)}rpm:own"),
            lambda: client.delete(f"{naming.quota_prefix(acme.store_key)}rpm:plain"),
            lambda: client.publish(f"{other}channel", "hello"),
            lambda: client.keys("*"),
            client.flushall,
            lambda: client.config_get("*"),
            client.acl_list,
        )
        for attempt in attempts:
            with pytest.raises(redis.exceptions.NoPermissionError):
                attempt()


def test_weaviate_refuses_another_tenants_vectors(acme: Tenant, mallory: Tenant, stores: Stores) -> None:
    """With its own key, the second tenant reads, writes and lists nothing of the first's knowledge."""
    key = acme.platform.secret(mallory.namespace, naming.STORES_SECRET)["weaviate_api_key"]
    foreign = naming.knowledge_base_key(acme.store_key, acme.get("knowledgebase", "handbook")["metadata"]["uid"])
    collection = naming.VECTOR_COLLECTION
    listed = stores.weaviate(f"/objects?class={collection}&tenant={foreign}&limit=1")
    assert listed.is_success, listed.text
    assert listed.json()["objects"], "the first tenant has nothing to steal: the test shows nothing"
    assert stores.weaviate(f"/objects?class={collection}&tenant={foreign}&limit=1", key).status_code == 403
    thing = {"class": collection, "tenant": foreign, "properties": {"text": "planted"}}
    assert stores.weaviate("/objects", key, method="POST", json=thing).status_code == 403
    match = {"class": collection, "where": {"path": ["page"], "operator": "GreaterThan", "valueInt": -1}}
    wipe = stores.weaviate(f"/batch/objects?tenant={foreign}", key, method="DELETE", json={"match": match})
    assert wipe.status_code == 403
    assert stores.weaviate(f"/schema/{collection}", key, method="DELETE").status_code == 403
    tenants = stores.weaviate(f"/schema/{collection}/tenants", key)
    assert foreign not in tenants.text


# --- the API and Kubernetes


def test_the_key_of_one_tenant_is_no_key_of_another(acme: Tenant, mallory: Tenant) -> None:
    """An API key opens the endpoint it was made for, and no other."""
    with acme.openai(api_key=mallory.key) as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_documents_of_another_tenant_are_not_found(acme: Tenant, mallory: Tenant) -> None:
    """A guessed or stolen identifier of another tenant's document or knowledge base is a 404."""
    with acme.http() as client:
        document = client.get("/api/v1/knowledge-bases/handbook/documents").json()["data"][0]
    with mallory.http() as client:
        assert client.get(f"/api/v1/knowledge-bases/notes/documents/{document['id']}").status_code == 404
        assert client.delete(f"/api/v1/knowledge-bases/notes/documents/{document['id']}").status_code == 404
        assert client.get("/api/v1/knowledge-bases/handbook").status_code == 404


def test_a_tenants_service_account_may_do_nothing_in_kubernetes(mallory: Tenant) -> None:
    """The account of the tenant's pods can read no Secret, not even its own, and no policy of the gateway."""
    account = f"system:serviceaccount:{mallory.namespace}:{naming.API}"
    for verb, kind, namespace in (
        ("get", "secrets", mallory.namespace),
        ("get", "secrets", ROUTES),
        ("get", "secrets", PLATFORM),
        ("patch", "assistants.assistantplatform.io", mallory.namespace),
        ("create", "pods", mallory.namespace),
    ):
        with pytest.raises(CommandError) as caught:  # kubectl's exit code is 1 when the answer is no
            mallory.cluster.kubectl("auth", "can-i", verb, kind, "-n", namespace, f"--as={account}")
        assert "no" in caught.value.args[0] or not caught.value.output


def test_a_pod_of_a_tenant_carries_no_token_but_the_gateways(acme: Tenant) -> None:
    """No pod of a tenant has a token for the API server, and every one keeps to the restricted standard."""
    for pod in [*acme.pods(), *acme.pods(naming.WORKER)]:
        assert pod["spec"]["automountServiceAccountToken"] is False
        audiences = [
            source["serviceAccountToken"]["audience"]
            for volume in pod["spec"]["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in source
        ]
        assert audiences == [naming.GATEWAY_AUDIENCE]


def test_a_namespace_made_again_under_its_name_inherits_nothing(new_tenant: NewTenant, platform: Platform) -> None:
    """Names in the stores come from the namespace's UID: its successor gets new ones, and a new key."""
    first = new_tenant("again")
    first.assistant("helper")
    first.wait_ready()
    key, store_key = first.key, first.store_key
    platform.cluster.delete("namespace", first.namespace)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    platform.cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": first.namespace, "labels": labels}}
    )
    second = platform.tenant(first.namespace)
    second.assistant("helper")
    second.wait_ready()
    assert second.store_key != store_key
    assert second.key != key

    def refused() -> None:
        with httpx.Client(base_url=second.url, trust_env=False) as client:
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 401

    eventually(refused, seconds=10)
