"""Kubernetes objects as the operator reads them, with as little in them as a test needs."""

import base64

from assistant_crds import naming
from assistant_operator.desired.platform import Credentials, Platform, Resources
from assistant_operator.tenant.resolve import Defaults, resolve
from assistant_operator.tenant.snapshot import Snapshot

NOW = "2026-11-23T12:00:00Z"
DEFAULTS = Defaults(requests_per_minute=600, replicas=1, requests={"cpu": "100m"}, limits={"memory": "256Mi"})
PROVIDERS = frozenset({"demo", "openai"})
CREDENTIALS = Credentials(
    stores={"postgres_dsn": "postgresql://a:b@c/d", "redis_url": "redis://a:b@c/0", "weaviate_api_key": "k"},
    api_key="ak_" + "x" * 43,
)


def platform(**changes):
    values = {
        "namespace": "assistant-platform",
        "routes_namespace": "assistant-platform-routes",
        "gateway_url": "http://assistant-gateway.assistant-platform.svc:8081",
        "api_image": "registry.example/api:1",
        "image_pull_policy": "IfNotPresent",
        "log_format": "json",
        "otlp_endpoint": "",
        "worker_resources": Resources({"cpu": "100m"}, {"memory": "512Mi"}),
    }
    return Platform(**(values | changes))


def _resource(kind, name, spec, **metadata):
    return {
        "apiVersion": naming.API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "acme",
            "uid": f"uid-{kind}-{name}",
            "generation": 1,
            "creationTimestamp": "2026-11-23T10:00:00Z",
            **metadata,
        },
        "spec": spec,
    }


def assistant(name="support", model=None, deleting=False, **spec):
    metadata = {"deletionTimestamp": NOW, "finalizers": [naming.FINALIZER]} if deleting else {}
    return _resource("Assistant", name, {"model": model or {"provider": "demo", "name": "m"}, **spec}, **metadata)


def knowledge_base(name="handbook", embedding=None, deleting=False, **spec):
    metadata = {"deletionTimestamp": NOW, "finalizers": [naming.FINALIZER]} if deleting else {}
    embedding = embedding or {"provider": "demo", "name": "e", "dimensions": 16}
    return _resource("KnowledgeBase", name, {"embedding": embedding, **spec}, **metadata)


def tenant(**spec):
    return _resource("Tenant", "acme", spec)


def own_endpoint(name="llm", key="token"):
    reference = {"name": name, "key": key}
    return {"name": "m", "endpoint": {"url": "https://llm.example.com/v1", "apiKeySecretRef": reference}}


def secret(**data):
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}


def snapshot(*resources, **changes):
    values = {
        "namespace": "acme",
        "uid": "uid-acme",
        "assistants": [item for item in resources if item["kind"] == "Assistant"],
        "knowledge_bases": [item for item in resources if item["kind"] == "KnowledgeBase"],
    }
    return Snapshot(**(values | changes))


def resolved(*resources, providers=PROVIDERS, **changes):
    return resolve(snapshot(*resources, **changes), providers, DEFAULTS)


def pod(name="assistant-api-1", component=naming.API, ready=True, **status):
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": name, "namespace": "acme", "uid": f"uid-{name}", "labels": {naming.LABEL_NAME: component}},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions, **status},
    }


def deployment(name=naming.API, replicas=1, available=1, conditions=()):
    status = {"availableReplicas": available, "readyReplicas": available, "conditions": list(conditions)}
    return {"metadata": {"name": name}, "spec": {"replicas": replicas}, "status": status}
