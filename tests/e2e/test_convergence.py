"""What the operator keeps up, takes away, and finishes although it is killed in the middle."""

from __future__ import annotations

import time

import e2e_operator
import pytest
from e2e_platform import CHAT, NewTenant, Platform, Tenant, audit_events, eventually
from e2e_stores import Stores
from e2e_values import RESYNC_SECONDS

from assistant_crds import naming

CHILDREN = [
    ("deployment", naming.API),
    ("deployment", naming.WORKER),
    ("service", naming.API),
    ("configmap", naming.CONFIG_MAP),
    ("secret", naming.STORES_SECRET),
    ("serviceaccount", naming.API),
    ("networkpolicy", naming.API),
]
TEARDOWN_SECONDS = 90


@pytest.fixture(scope="module")
def tidy(shared_tenant: NewTenant) -> Tenant:
    """A tenant with an assistant and a knowledge base, whose objects get deleted."""
    tenant = shared_tenant("repair")
    tenant.knowledge_base()
    tenant.assistant("helper", knowledgeBases=[{"name": "handbook"}])
    tenant.wait_ready()
    return tenant


@pytest.mark.parametrize(("kind", "name"), CHILDREN)
def test_a_deleted_child_object_comes_back(tidy: Tenant, kind: str, name: str) -> None:
    """Whatever of a tenant's objects is deleted by hand is made again, and the assistant is Ready again."""
    before = tidy.get(kind, name)["metadata"]["uid"]
    tidy.delete(kind, name)

    def back() -> None:
        assert tidy.get(kind, name)["metadata"]["uid"] != before

    eventually(back, seconds=15)
    tidy.wait_ready()
    with tidy.openai() as client:
        client.chat.completions.create(model="helper", messages=[{"role": "user", "content": "Hello"}])


def test_a_changed_child_object_is_put_right(tidy: Tenant) -> None:
    """An edit by hand of what the operator declares is undone."""
    patch = '{"spec": {"ports": [{"name": "http", "port": 8080, "targetPort": 1}]}}'
    tidy.cluster.kubectl("patch", "service", naming.API, "-n", tidy.namespace, "--type=merge", "-p", patch)

    def right() -> None:
        assert tidy.get("service", naming.API)["spec"]["ports"][0]["targetPort"] != 1

    eventually(right, seconds=15)


def test_deleting_the_last_resource_leaves_nothing(new_tenant: NewTenant, stores: Stores) -> None:
    """Objects, database, roles, Redis keys and user, vectors, their user and role, and the policy: all gone."""
    tenant = new_tenant("gone")
    tenant.knowledge_base()
    tenant.assistant("helper", knowledgeBases=[{"name": "handbook"}], limits={"requestsPerMinute": 60})
    tenant.wait_ready()
    tenant.wait_document(tenant.upload("note.md", b"# Note\n\nThe gate opens at seven.\n")["id"], "ready")
    with tenant.openai() as client:
        client.chat.completions.create(model="helper", messages=[{"role": "user", "content": "When?"}])
    there = stores.traces(tenant.store_key)
    assert set(there) >= {
        *("databases", "roles", "redis keys", "redis users", "vector tenants", "vector users", "vector roles"),
        "policies",
    }, there
    tenant.delete("assistant", "helper")
    assert stores.traces(tenant.store_key)["vector tenants"], "the knowledge base still exists"
    tenant.delete("knowledgebase", "handbook")
    assert_nothing_left(tenant, stores)


def test_a_deleted_knowledge_base_takes_its_vectors_and_rows_along(new_tenant: NewTenant, stores: Stores) -> None:
    """With a neighbour still there, only this knowledge base's vectors go; a new one of its name starts empty."""
    tenant = new_tenant("forget")
    for name in ("one", "two"):
        tenant.knowledge_base(name)
    tenant.assistant("helper", knowledgeBases=[{"name": "two"}])
    tenant.wait_ready()
    for name in ("one", "two"):
        document = tenant.upload("note.txt", b"The gate opens at seven.", name)
        tenant.wait_document(document["id"], "ready", knowledge_base=name)
    assert len(stores.traces(tenant.store_key)["vector tenants"]) == 2
    tenant.delete("knowledgebase", "one")
    assert len(stores.traces(tenant.store_key)["vector tenants"]) == 1
    tenant.knowledge_base("one")
    tenant.wait_ready()
    with tenant.http() as client:
        assert client.get("/api/v1/knowledge-bases/one/documents").json()["data"] == []
        assert len(client.get("/api/v1/knowledge-bases/two/documents").json()["data"]) == 1


def test_deleting_the_namespace_leaves_nothing(new_tenant: NewTenant, stores: Stores, platform: Platform) -> None:
    """`kubectl delete namespace` is enough: the stores are emptied before the namespace goes."""
    tenant = new_tenant("nsgone")
    tenant.knowledge_base()
    tenant.assistant("helper", knowledgeBases=[{"name": "handbook"}])
    tenant.wait_ready()
    key = tenant.store_key
    platform.cluster.delete("namespace", tenant.namespace, seconds=TEARDOWN_SECONDS)
    assert stores.traces(key) == {}


def assert_nothing_left(tenant: Tenant, stores: Stores) -> None:
    """Neither the stores nor the namespace hold anything of ours."""
    eventually(lambda: _assert_equal(stores.traces(tenant.store_key), {}), seconds=TEARDOWN_SECONDS, every=1)
    kinds = "deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,networkpolicies,pdb"
    kept = {"kube-root-ca.crt", "default"}  # Kubernetes' own

    def empty() -> None:
        objects = tenant.cluster.list(kinds, tenant.namespace)
        names = [f"{item['kind']}/{item['metadata']['name']}" for item in objects]
        assert [name for name in names if name.split("/")[1] not in kept] == []

    eventually(empty, seconds=60, every=1)


def _assert_equal(one: object, other: object) -> None:
    assert one == other


# --- killed in the middle

DELAYS = (0.1, 0.4, 0.9, 1.6, 2.6)  # seconds between a change and the kill: before, within and after the work


@pytest.mark.timeout(600)
def test_killed_while_it_makes_a_tenant_it_finishes_after_its_restart(
    new_tenant: NewTenant, platform: Platform
) -> None:
    """SIGKILL at several moments of making a tenant: each ends in a Ready assistant that answers."""
    for delay in DELAYS:
        tenant = new_tenant("killmake")
        tenant.knowledge_base()
        tenant.assistant("helper", knowledgeBases=[{"name": "handbook"}])
        time.sleep(delay)
        e2e_operator.kill(platform)
        took = tenant.wait_ready(seconds=120)
        print(f"\nkilled {delay} s after the apply: Ready {took:.1f} s later")
        with tenant.openai() as client:
            client.chat.completions.create(model="helper", messages=[{"role": "user", "content": "Hello"}])


@pytest.mark.timeout(600)
def test_killed_while_it_changes_a_tenant_it_finishes_after_its_restart(
    new_tenant: NewTenant, platform: Platform
) -> None:
    """SIGKILL at several moments of a change: the change is served, and nothing of the old state stays."""
    tenant = new_tenant("killchange")
    tenant.assistant("helper")
    tenant.wait_ready()
    for number, delay in enumerate(DELAYS):
        name = f"extra-{number}"
        tenant.assistant(name, instructions=f"Number {number}.")
        tenant.assistant("helper", instructions=f"Version {number}.")
        time.sleep(delay)
        e2e_operator.kill(platform)
        tenant.wait_ready(seconds=120)
        with tenant.openai() as client:
            assert {model.id for model in client.models.list()} == {"helper", name}
            answer = client.chat.completions.create(model="helper", messages=[{"role": "user", "content": "Hello"}])
            assert f"«Version {number}.»" in (answer.choices[0].message.content or "")
        tenant.delete("assistant", name)


@pytest.mark.timeout(600)
def test_killed_while_it_takes_a_tenant_away_it_leaves_nothing_all_the_same(
    new_tenant: NewTenant, platform: Platform, stores: Stores
) -> None:
    """SIGKILL at several moments of a deletion: in the end no object, role, database, key, vector or policy is left."""
    tenants = [new_tenant("killgone") for _ in DELAYS]
    for tenant in tenants:
        tenant.knowledge_base()
        tenant.assistant("helper", model=dict(CHAT), knowledgeBases=[{"name": "handbook"}])
    for tenant in tenants:
        tenant.wait_ready(seconds=120)
    for tenant, delay in zip(tenants, DELAYS, strict=True):
        tenant.delete("assistant", "helper", wait=False)
        tenant.delete("knowledgebase", "handbook", wait=False)
        time.sleep(delay)
        e2e_operator.kill(platform)
        eventually(lambda tenant=tenant: _assert_equal(tenant.resources(), []), seconds=120, every=1)
        assert_nothing_left(tenant, stores)


# --- at rest


@pytest.mark.timeout(600)
def test_at_rest_the_operator_writes_nothing(acme: Tenant, platform: Platform) -> None:
    """Over two full compares, the API server's audit log holds no write of the operator but its lease."""
    if platform.audit_log is None:
        pytest.skip("this cluster's audit log cannot be read from here; on the local node it can")
    acme.wait_ready()
    time.sleep(10)  # counts of documents, and what earlier tests left to do
    log = platform.audit_log
    offset = log.stat().st_size
    time.sleep(2 * RESYNC_SECONDS + 5)
    events = list(audit_events(log, offset))
    by_operator = [event for event in events if event["user"]["username"].endswith(":assistant-operator")]
    assert by_operator, "the operator asked for nothing: the log is not what it should be"
    writes = [
        (event["verb"], event.get("objectRef", {}).get("resource"), event.get("objectRef", {}).get("name"))
        for event in by_operator
        if event["verb"] not in {"get", "list", "watch"}
    ]
    leases = [write for write in writes if write[1] == "leases"]
    print(f"\n{len(by_operator)} requests of the operator, of them {len(leases)} renewals of its lease")
    assert [write for write in writes if write[1] != "leases"] == []
