"""What the operator keeps up, takes away, and finishes although it is killed in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable

import e2e_operator
import openai
import pytest
from e2e_platform import NewTenant, Platform, Tenant, audit_events, eventually
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
HELLO = [{"role": "user", "content": "Hello"}]


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
    eventually(lambda: answers(tidy), seconds=60)  # new credentials mean new pods, and the old one has the old ones


def answers(tenant: Tenant, wanted: str = "", model: str = "helper") -> None:
    """Ask an assistant; a refusal for the moment is an AssertionError."""
    try:
        with tenant.openai() as client:
            answer = client.chat.completions.create(model=model, messages=HELLO)
    except openai.APIStatusError as error:
        raise AssertionError(str(error)) from error
    assert wanted in (answer.choices[0].message.content or "")


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
    answers(tenant)
    stores.plant_key(tenant)  # caches and counters expire within seconds, so one is left that does not
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

# Seconds between one tenant's change and the next one's: when the operator is killed after the last, it is at the
# beginning, in the middle and at the end of its work for different tenants.
STAGGER = (0.5, 0.4, 0.3, 0.3, 0.2)
WORK_SECONDS = 0.3
RECOVERY_SECONDS = 120


@pytest.mark.timeout(900)
def test_killed_in_the_middle_of_making_changing_and_deleting_it_finishes_each(
    new_tenant: NewTenant, platform: Platform, stores: Stores
) -> None:
    """SIGKILL while tenants are made, changed and deleted, at different points of each, and once more on recovery.

    Each time the next operator brings every tenant to the end state: Ready and answering with what was declared last,
    and in the end nothing left of any of them.
    """
    tenants = [new_tenant("kill") for _ in STAGGER]

    def make(tenant: Tenant) -> None:
        tenant.knowledge_base()
        tenant.assistant("helper", instructions="Version one.", knowledgeBases=[])
        tenant.assistant("reader", knowledgeBases=[{"name": "handbook"}])

    def change(tenant: Tenant) -> None:
        tenant.assistant("helper", instructions="Version two.")
        tenant.knowledge_base("notes")
        tenant.delete("assistant", "reader", wait=False)
        tenant.assistant("writer", instructions="Number three.")

    def delete(tenant: Tenant) -> None:
        for kind, name in (("kb", "handbook"), ("kb", "notes"), ("assistant", "helper"), ("assistant", "writer")):
            tenant.delete(kind, name, wait=False)

    for act, what in ((make, "making"), (change, "changing"), (delete, "deleting")):
        staggered(tenants, act)
        e2e_operator.kill(platform)
        killed = time.monotonic()
        e2e_operator.wait_until_leading(platform)
        time.sleep(WORK_SECONDS)
        e2e_operator.kill(platform)
        for tenant in tenants:
            if act is delete:
                eventually(lambda tenant=tenant: _assert_equal(tenant.resources(), []), seconds=RECOVERY_SECONDS)
                continue
            tenant.wait_ready(seconds=RECOVERY_SECONDS)
            version = "«Version one.»" if act is make else "«Version two.»"
            eventually(lambda tenant=tenant, version=version: answers(tenant, version), seconds=30)
            with tenant.openai() as client:
                served = {model.id for model in client.models.list()}
            assert served == {"helper", "reader"} if act is make else {"helper", "writer"}
        print(f"\nkilled twice while {what} {len(tenants)} tenants: done {time.monotonic() - killed:.0f} s later")
    for tenant in tenants:
        assert_nothing_left(tenant, stores)


def staggered(tenants: list[Tenant], act: Callable[[Tenant], None]) -> None:
    """Do the same to one tenant after another, with pauses in between."""
    for tenant, pause in zip(tenants, STAGGER, strict=True):
        act(tenant)
        time.sleep(pause)


# --- at rest


@pytest.mark.timeout(600)
def _wait_out_the_days_end(seconds: float) -> None:
    """Return when the next so many seconds hold no writes of a new day's usage: a day ends at midnight, in UTC here.

    Those statuses are written within a minute, and the gateway is asked again every few seconds.
    """
    into_the_day = time.time() % 86400
    if into_the_day > 86400 - seconds:
        time.sleep(86400 - into_the_day)
        into_the_day = 0.0
    time.sleep(max(0.0, 90 - into_the_day))


def test_at_rest_the_operator_writes_nothing(acme: Tenant, platform: Platform) -> None:
    """Over two full compares, the API server's audit log holds no write of the operator but its lease."""
    if platform.audit_log is None:
        pytest.skip("this cluster's audit log cannot be read from here; on the local node it can")
    acme.wait_ready()
    platform.wait_until_left()
    time.sleep(10)  # counts of documents, and what earlier tests left to do
    quiet = 2 * RESYNC_SECONDS + 5
    _wait_out_the_days_end(quiet)
    log = platform.audit_log
    offset = log.stat().st_size
    time.sleep(quiet)
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
