"""What is told, how soon, and what heals by itself, when something a tenant or the platform needs is missing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import e2e_operator
import pytest
import yaml
from e2e_platform import PLATFORM, NewTenant, Platform, Tenant, eventually

from assistant_crds import naming
from assistant_crds.conditions import ConditionType, Reason
from assistant_demo import endpoint
from assistant_demo.kubernetes import CommandError
from assistant_demo.settings import CHAT_MODEL, STAND_IN_NAMESPACE, STAND_IN_SERVICE

TOLD_SECONDS = 15
# While an upgrade rolls the pods of every tenant of these tests at once, on one node of two cores.
TOLD_IN_AN_UPGRADE_SECONDS = 45
HEALED_SECONDS = 30
HELLO = [{"role": "user", "content": "Hello"}]
OWN_SERVER = f"http://{STAND_IN_SERVICE}.{STAND_IN_NAMESPACE}.svc:8000/v1"


def told(
    tenant: Tenant,
    condition: ConditionType,
    reason: Reason,
    kind: str = "assistant",
    name: str = "broken",
    *,
    seconds: float = TOLD_SECONDS,
) -> str:
    """Wait until the condition and Ready are False; returns the message and prints how long it took."""
    started = time.monotonic()
    found = tenant.wait_condition(kind, name, condition, "False", seconds, reason)
    ready = tenant.wait_condition(kind, name, ConditionType.READY, "False", seconds)
    print(f"\n{condition} is False after {time.monotonic() - started:.1f} s: {found['message']}")
    assert ready["message"]
    return str(found["message"])


def healed(tenant: Tenant) -> None:
    """Wait until all is Ready without a touch, and print how long it took."""
    print(f"healed after {tenant.wait_ready(HEALED_SECONDS):.1f} s")


def answers(tenant: Tenant, model: str) -> None:
    """Ask an assistant."""
    with tenant.openai() as client:
        assert client.chat.completions.create(model=model, messages=HELLO).choices[0].message.content


def test_a_missing_secret_is_named_and_its_making_heals(new_tenant: NewTenant, platform: Platform) -> None:
    """RefsResolved=False names the Secret; its neighbour is served; once the Secret is there, all is Ready."""
    tenant = new_tenant("secret")
    reference = {"name": "llm", "key": "token"}
    tenant.assistant("neighbour")
    tenant.assistant(
        "broken", model={"name": CHAT_MODEL, "endpoint": {"url": OWN_SERVER, "apiKeySecretRef": reference}}
    )
    message = told(tenant, ConditionType.REFS_RESOLVED, Reason.SECRET_NOT_FOUND)
    assert "llm" in message
    tenant.wait_condition("assistant", "neighbour", ConditionType.READY, "True", 60)
    answers(tenant, "neighbour")
    tenant.secret("llm", other="x")
    tenant.wait_condition("assistant", "broken", ConditionType.REFS_RESOLVED, "False", TOLD_SECONDS)
    tenant.secret("llm", token=platform.secret(STAND_IN_NAMESPACE, "model-server")["api-key"])
    healed(tenant)
    answers(tenant, "broken")


def test_a_key_the_provider_refuses_is_told_and_its_change_heals(new_tenant: NewTenant, platform: Platform) -> None:
    """ModelReachable=False says that the provider refuses the key, without the key; the right key heals."""
    tenant = new_tenant("badkey")
    tenant.secret("llm", token="sk-wrong-secret")
    reference = {"name": "llm", "key": "token"}
    tenant.assistant(
        "broken", model={"name": CHAT_MODEL, "endpoint": {"url": OWN_SERVER, "apiKeySecretRef": reference}}
    )
    message = told(tenant, ConditionType.MODEL_REACHABLE, Reason.PROVIDER_UNAUTHORIZED)
    assert "sk-wrong-secret" not in message
    tenant.secret("llm", token=platform.secret(STAND_IN_NAMESPACE, "model-server")["api-key"])
    healed(tenant)


def test_an_unreachable_model_is_told_and_its_coming_heals(new_tenant: NewTenant, platform: Platform) -> None:
    """ModelReachable=False while nothing answers at the endpoint's address; once a server is there, Ready."""
    tenant = new_tenant("model")
    name = f"late-{tenant.namespace[-6:]}"
    url = f"http://{name}.{STAND_IN_NAMESPACE}.svc:8000/v1"
    tenant.secret("llm", token=platform.secret(STAND_IN_NAMESPACE, "model-server")["api-key"])
    reference = {"name": "llm", "key": "token"}
    tenant.assistant("broken", model={"name": CHAT_MODEL, "endpoint": {"url": url, "apiKeySecretRef": reference}})
    told(tenant, ConditionType.MODEL_REACHABLE, Reason.PROVIDER_UNREACHABLE)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": STAND_IN_NAMESPACE},
        "spec": {"selector": {"app.kubernetes.io/name": STAND_IN_SERVICE}, "ports": [{"port": 8000}]},
    }
    platform.cluster.apply(service)
    try:
        healed(tenant)
        answers(tenant, "broken")
    finally:
        platform.cluster.delete("service", name, STAND_IN_NAMESPACE)


@pytest.mark.parametrize(
    ("spec", "condition", "reason", "named"),
    [
        (
            {"model": {"provider": "nowhere", "name": "x"}},
            ConditionType.ACCEPTED,
            Reason.PROVIDER_UNKNOWN,
            "nowhere",
        ),
        (
            {"knowledgeBases": [{"name": "absent"}]},
            ConditionType.REFS_RESOLVED,
            Reason.KNOWLEDGE_BASE_NOT_FOUND,
            "absent",
        ),
        (
            {"instructionsFrom": {"configMapKeyRef": {"name": "prompts", "key": "x"}}},
            ConditionType.REFS_RESOLVED,
            Reason.CONFIG_MAP_NOT_FOUND,
            "prompts",
        ),
        (
            {"model": {"provider": "demo", "name": "gpt-9"}},
            ConditionType.MODEL_REACHABLE,
            Reason.MODEL_UNKNOWN,
            "gpt-9",
        ),
    ],
)
def test_each_mistake_is_told_by_name_and_its_neighbour_is_served(
    mistakes: Tenant, spec: dict, condition: ConditionType, reason: Reason, named: str
) -> None:
    """A mistake in one assistant gets its own condition and reason; the neighbour stays Ready and answers."""
    mistakes.assistant("broken", **spec)
    try:
        assert named in told(mistakes, condition, reason)

        def neighbour_is_ready() -> None:
            assert mistakes.conditions("assistant", "fine")["Ready"]["status"] == "True"

        # Each change of the namespace is a new generation, which the neighbour serves within moments.
        eventually(neighbour_is_ready, seconds=10)
        answers(mistakes, "fine")
        described = mistakes.cluster.kubectl("describe", "assistant", "broken", "-n", mistakes.namespace)
        assert named in described
    finally:
        mistakes.delete("assistant", "broken")


@pytest.fixture(scope="module")
def mistakes(shared_tenant: NewTenant) -> Tenant:
    """A tenant with one good assistant."""
    tenant = shared_tenant("mistakes")
    tenant.assistant("fine")
    tenant.wait_ready()
    return tenant


def test_a_model_the_platform_does_not_allow_is_refused(new_tenant: NewTenant) -> None:
    """Accepted=False names the Tenant's rule; allowing the model heals."""
    tenant = new_tenant("allow")

    def allow(*patterns: str) -> None:
        tenant.cluster.apply(
            {
                "apiVersion": "assistantplatform.io/v1alpha1",
                "kind": "Tenant",
                "metadata": {"name": tenant.namespace},
                "spec": {"models": {"allow": list(patterns)}},
            }
        )

    allow("openai/*")
    tenant.assistant("broken")
    told(tenant, ConditionType.ACCEPTED, Reason.MODEL_NOT_ALLOWED)
    allow("demo/*")
    healed(tenant)


@contextlib.contextmanager
def operator_environment(platform: Platform, name: str, value: str) -> Iterator[None]:
    """Set a variable of the operator, as an upgrade of the platform would, and set it back."""
    deployment = platform.cluster.get("deployment", "assistant-operator", PLATFORM)
    assert deployment is not None
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    before = next(variable["value"] for variable in environment if variable["name"] == name)

    def put(wanted: str) -> None:
        platform.cluster.kubectl("set", "env", "deployment/assistant-operator", "-n", PLATFORM, f"{name}={wanted}")
        platform.wait_for_workloads()
        e2e_operator.wait_until_leading(platform)

    put(value)
    try:
        yield
    finally:
        put(before)


def test_an_image_that_cannot_start_is_told_and_the_right_one_heals(new_tenant: NewTenant, platform: Platform) -> None:
    """WorkloadAvailable=False names the pod and the pull error; tenants that run keep running; healed afterwards."""
    running = new_tenant("image-old")
    running.assistant("fine")
    running.wait_ready()
    tenant = new_tenant("image")
    with operator_environment(platform, "OPERATOR_API_IMAGE", "localhost/assistant-platform/api:missing"):
        tenant.assistant("broken")
        message = told(
            tenant,
            ConditionType.WORKLOAD_AVAILABLE,
            Reason.IMAGE_PULL_FAILED,
            seconds=TOLD_IN_AN_UPGRADE_SECONDS,
        )
        assert "localhost/assistant-platform/api:missing" in message
        answers(running, "fine")
    healed(tenant)
    answers(tenant, "broken")
    running.wait_ready()


def test_a_store_that_is_down_is_told_and_its_return_heals(new_tenant: NewTenant, platform: Platform) -> None:
    """KnowledgeReady=False names the store; the assistant without knowledge is untouched; healed when it is back."""
    tenant = new_tenant("store")
    tenant.assistant("plain")
    tenant.wait_ready()
    scale = ("scale", "statefulset/assistant-weaviate", "-n", PLATFORM)
    platform.cluster.kubectl(*scale, "--replicas=0")
    try:
        tenant.knowledge_base("notes")
        message = told(tenant, ConditionType.KNOWLEDGE_READY, Reason.STORE_UNREACHABLE, "knowledgebase", "notes")
        assert "eaviate" in message
        answers(tenant, "plain")
    finally:
        platform.cluster.kubectl(*scale, "--replicas=1")
    platform.wait_for_workloads()
    healed(tenant)


@pytest.mark.parametrize("store", ["postgres", "redis", "weaviate"])
def test_a_restart_of_an_embedded_store_keeps_its_data(acme: Tenant, platform: Platform, store: str) -> None:
    """A store's pod may go at any time: after its return every key, document and vector is there, and all is Ready."""
    platform.cluster.kubectl("delete", "pod", f"assistant-{store}-0", "-n", PLATFORM, "--wait=true")
    platform.wait_for_workloads()
    endpoint.close(platform.folder)  # forwards into the old pod
    acme.wait_ready()
    with acme.http() as client:
        documents = client.get("/api/v1/knowledge-bases/handbook/documents").json()["data"]
        assert [document["status"] for document in documents] == ["ready"] * 5
    with acme.openai() as client:
        messages = [{"role": "user", "content": "What does error E23 mean?"}]
        answer = client.chat.completions.create(model="support", messages=messages)
    assert "105 degrees" in (answer.choices[0].message.content or "")


# --- what the API server itself refuses


@pytest.mark.parametrize(
    ("kind", "spec", "sentence"),
    [
        ("Assistant", {}, "model"),
        ("Assistant", {"model": {"name": "x"}}, "exactly one of"),
        (
            "Assistant",
            {"model": {"provider": "demo", "name": "x", "parameters": {"temperature": "hot"}}},
            "temperature",
        ),
        ("Assistant", {"model": {"provider": "demo", "name": "x"}, "tools": []}, "unknown field"),
        (
            "Assistant",
            {"model": {"name": "x", "endpoint": {"url": "http://assistant-postgres.assistant-platform.svc:5432/v1"}}},
            "inside the cluster",
        ),
        ("KnowledgeBase", {"embedding": {"provider": "demo", "name": "x", "dimensions": 1}}, "dimensions"),
        (
            "KnowledgeBase",
            {"embedding": {"provider": "demo", "name": "x", "dimensions": 8}, "limits": {"bytes": "big"}},
            "bytes",
        ),
    ],
)
def test_an_invalid_resource_is_refused_with_a_sentence(mistakes: Tenant, kind: str, spec: dict, sentence: str) -> None:
    """The API server refuses it at once, and says what is wrong in words."""
    resource = {
        "apiVersion": naming.API_VERSION,
        "kind": kind,
        "metadata": {"name": "invalid", "namespace": mistakes.namespace},
        "spec": spec,
    }
    with pytest.raises(CommandError) as caught:
        mistakes.cluster.kubectl("create", "-f", "-", stdin=yaml.safe_dump(resource))
    assert sentence.lower() in caught.value.output.lower(), caught.value.output
    assert mistakes.cluster.get(kind, "invalid", mistakes.namespace) is None


def test_a_changed_embedding_model_is_refused_with_the_way_out(acme: Tenant) -> None:
    """Vectors of two models cannot be compared, so the embedding of a knowledge base is fixed."""
    with pytest.raises(CommandError) as caught:
        acme.knowledge_base("handbook", embedding={"provider": "demo", "name": "other", "dimensions": 384})
    assert "Make a new KnowledgeBase" in caught.value.output


def test_assistants_are_not_allowed_in_the_platforms_own_namespaces(platform: Platform) -> None:
    """Neither the platform's namespace nor Kubernetes' own can be a tenant."""
    for namespace in (PLATFORM, "kube-system"):
        with pytest.raises(CommandError) as caught:
            platform.tenant(namespace).assistant("helper")
        assert namespace in caught.value.output
