"""The running platform, and tenants in it, as the end-to-end tests see them: through kubectl and the public API."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai

from assistant_crds import naming
from assistant_demo import endpoint, installation
from assistant_demo.errors import DemoError
from assistant_demo.kubernetes import Kubernetes, Object, secret
from assistant_demo.settings import STAND_IN, STAND_IN_NAMESPACE, STAND_IN_PORT, STAND_IN_SERVICE

T = TypeVar("T")
CHAT = {"provider": STAND_IN.provider, "name": STAND_IN.chat}
EMBEDDING = {"provider": STAND_IN.provider, "name": STAND_IN.embedding, "dimensions": STAND_IN.dimensions}
PLATFORM = installation.NAMESPACE
ROUTES = f"{PLATFORM}-routes"
API_PORT = 8080


def eventually(check: Callable[[], T], *, seconds: float, every: float = 0.3) -> T:
    """Return what `check` returns once it raises no error of the kinds that pass; the last error when time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, DemoError, httpx.TransportError, openai.APIConnectionError, OSError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(every)


@dataclass
class Platform:
    """A cluster with the platform in it."""

    cluster: Kubernetes
    images: dict[str, str]
    folder: Path  # for port-forwards
    audit_log: Path | None  # of the API server, where the cluster is our own node
    leaving: list[str] = field(default_factory=list)  # namespaces whose deletion has begun

    def tenant(self, namespace: str) -> Tenant:
        """The tenant of a namespace."""
        return Tenant(self, namespace)

    def service(self, namespace: str, name: str, port: int) -> str:
        """Base URL under which this machine reaches a Service, past NetworkPolicies only by a port-forward."""
        return endpoint.reach(self.cluster, self.folder, namespace, name, port)

    def forward(self, namespace: str, target: str, port: int) -> int:
        """Local port of a port-forward: it enters the pod itself, so no NetworkPolicy is in its way."""
        return endpoint.forward(self.cluster, self.folder, namespace, target, port)

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """Decoded data of a Secret."""
        found = self.cluster.get("secret", name, namespace)
        assert found is not None, f"there is no Secret {name} in {namespace}"
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}

    def pods(self, namespace: str, name: str) -> list[Object]:
        """Pods of a part, by its name label, that are not being deleted."""
        pods = self.cluster.list("pods", namespace, f"{naming.LABEL_NAME}={name}")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def stand_in_activity(self) -> dict[str, Any]:
        """What the stand-in model server is doing and was asked last."""
        port = self.forward(STAND_IN_NAMESPACE, f"service/{STAND_IN_SERVICE}", STAND_IN_PORT)
        activity: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/activity", trust_env=False).json()
        return activity

    def wait_until_left(self) -> None:
        """Wait until every namespace that is being deleted is gone, and its tenant with it."""
        while self.leaving:
            self.cluster.kubectl("wait", "--for=delete", f"namespace/{self.leaving[-1]}", "--timeout=120s", seconds=130)
            self.leaving.pop()

    def wait_for_workloads(self, *namespaces: str, seconds: float = 120) -> None:
        """Wait until all Deployments and StatefulSets of namespaces (default: the platform's) run."""

        def settled() -> None:
            for namespace in namespaces or (PLATFORM,):
                workloads = self.cluster.list("deployments,statefulsets", namespace)
                waiting = [text for workload in workloads if (text := installation._unfinished(workload))]
                assert not waiting, waiting

        eventually(settled, seconds=seconds, every=1)


@dataclass
class Tenant:
    """One namespace with assistants."""

    platform: Platform
    namespace: str
    applied: list[tuple[str, str]] = field(default_factory=list)

    @property
    def cluster(self) -> Kubernetes:
        return self.platform.cluster

    @cached_property
    def uid(self) -> str:
        """The namespace's UID, from which its names in the stores derive."""
        namespace = self.cluster.get("namespace", self.namespace)
        assert namespace is not None
        uid: str = namespace["metadata"]["uid"]
        return uid

    @property
    def store_key(self) -> str:
        """The tenant's name in the stores."""
        return naming.tenant_key(self.uid)

    def assistant(self, name: str = "helper", **spec: Any) -> Object:
        """Apply an Assistant that the stand-in answers for, unless `spec` says otherwise; does not wait."""
        return self._apply("Assistant", name, {"model": dict(CHAT), **spec})

    def knowledge_base(self, name: str = "handbook", **spec: Any) -> Object:
        """Apply a KnowledgeBase; does not wait."""
        return self._apply("KnowledgeBase", name, {"embedding": dict(EMBEDDING), **spec})

    def secret(self, name: str, **values: str) -> None:
        """Apply a Secret of the tenant's own."""
        self.cluster.apply(secret(name, self.namespace, values))

    def _apply(self, kind: str, name: str, spec: dict[str, Any]) -> Object:
        resource = {
            "apiVersion": naming.API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        self.cluster.apply(resource)
        return resource

    def get(self, kind: str, name: str) -> Object:
        """Return a resource; an AssertionError when it is not there."""
        found = self.cluster.get(kind, name, self.namespace)
        assert found is not None, f"there is no {kind} {name} in {self.namespace}"
        return found

    def resources(self) -> list[Object]:
        """Every Assistant and KnowledgeBase."""
        return self.cluster.list("assistants,knowledgebases", self.namespace)

    def delete(self, kind: str, name: str, *, wait: bool = True) -> None:
        """Delete a resource, by default until it is gone."""
        waiting = ("--wait=true", "--timeout=120s") if wait else ("--wait=false",)
        self.cluster.kubectl("delete", kind, name, "-n", self.namespace, *waiting, seconds=130)

    def wait_ready(self, seconds: float = 90) -> float:
        """Wait until everything in the namespace is Ready at its present generation; returns the seconds it took."""
        started = time.monotonic()

        def ready() -> None:
            resources = self.resources()
            assert resources, f"nothing is declared in {self.namespace}"
            waiting = [reason for resource in resources if (reason := installation.unready(resource))]
            assert not waiting, waiting

        eventually(ready, seconds=seconds, every=0.5)
        return time.monotonic() - started

    def conditions(self, kind: str, name: str) -> dict[str, Object]:
        """Conditions by type, of the present generation only."""
        resource = self.get(kind, name)
        generation = resource["metadata"]["generation"]
        conditions = resource.get("status", {}).get("conditions", [])
        return {entry["type"]: entry for entry in conditions if entry["observedGeneration"] == generation}

    def wait_condition(
        self, kind: str, name: str, condition: str, status: str, seconds: float, reason: str = ""
    ) -> Object:
        """Wait until a condition has a status, and a reason if one is given; returns it."""

        def there() -> Object:
            found = self.conditions(kind, name).get(condition, {})
            assert (found.get("status"), found.get("reason")) == (status, reason or found.get("reason")), found
            return found

        return eventually(there, seconds=seconds)

    @property
    def key(self) -> str:
        """The first API key, which the operator made."""
        return self.platform.secret(self.namespace, naming.API_KEY_SECRET)[naming.API_KEY_KEY]

    @property
    def url(self) -> str:
        """Base URL of the API for this machine."""
        return self.platform.service(self.namespace, naming.API, API_PORT)

    @contextlib.contextmanager
    def openai(self, **options: Any) -> Iterator[openai.OpenAI]:
        """The official client, as a user would point it at the tenant."""
        given = {"base_url": f"{self.url}/v1", "api_key": self.key, "max_retries": 0, "timeout": 60, **options}
        with openai.OpenAI(**given) as client:
            yield client

    @contextlib.contextmanager
    def http(self) -> Iterator[httpx.Client]:
        """A plain client with the tenant's key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False) as client:
            yield client

    def upload(self, name: str, content: bytes, knowledge_base: str = "handbook") -> dict[str, Any]:
        """Upload a document; returns the API's answer."""
        with self.http() as client:
            answer = client.post(f"/api/v1/knowledge-bases/{knowledge_base}/documents", files={"file": (name, content)})
            assert answer.is_success, answer.text
            document: dict[str, Any] = answer.json()
            return document

    def wait_document(
        self, identifier: str, *states: str, seconds: float = 60, knowledge_base: str = "handbook"
    ) -> dict[str, Any]:
        """Wait until a document has one of the states."""
        with self.http() as client:

            def there() -> dict[str, Any]:
                answer = client.get(f"/api/v1/knowledge-bases/{knowledge_base}/documents/{identifier}")
                assert answer.is_success, answer.text
                document: dict[str, Any] = answer.json()
                assert document["status"] in states, document
                return document

            return eventually(there, seconds=seconds)

    def pods(self, name: str = naming.API) -> list[Object]:
        """The tenant's pods of one part."""
        return self.platform.pods(self.namespace, name)


NewTenant = Callable[[str], Tenant]  # from a name's beginning to a tenant in a new namespace


def content_of(stream: Any) -> str:
    """Read a stream of the official client to its end; returns its text."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def audit_events(log: Path, offset: int) -> Iterator[dict[str, Any]]:
    """Events that were appended to an audit log after an offset; a rotated log is read from its start."""
    with log.open("rb") as file:
        file.seek(offset if offset <= log.stat().st_size else 0)
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
