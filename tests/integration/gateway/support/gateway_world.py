"""What surrounds the gateway in a test: an API server with its ServiceAccounts and policies, a catalogue, clients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from assistant_crds import contracts, naming
from assistant_crds.contracts import (
    AssistantPolicy,
    EmbeddingPolicy,
    Endpoint,
    ModelRoute,
    TenantIdentity,
    TenantPolicy,
)
from assistant_gateway.config import Settings
from assistant_gateway.server import Server

PLATFORM = "assistant-platform"
ROUTES = "assistant-platform-routes"


@dataclass
class Cluster:
    """A real API server with what the chart would have made for the gateway, and no more."""

    url: str
    kubectl: Callable[..., subprocess.CompletedProcess[str]]
    credentials: Path  # the gateway's own token and the cluster's certificate
    tokens: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and insist on success."""
        done = self.kubectl(*arguments, input=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply objects as administrator."""
        self.run("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)}))

    def token(self, namespace: str, account: str = naming.API, audience: str = naming.GATEWAY_AUDIENCE) -> str:
        """Return a token as the kubelet would project it."""
        key = (namespace, account, audience)
        if key not in self.tokens:
            service_account = {"apiVersion": "v1", "kind": "ServiceAccount"}
            self.apply(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
                {**service_account, "metadata": {"name": account, "namespace": namespace}},
            )
            audiences = [f"--audience={audience}"] if audience else []
            command = ("create", "token", account, "-n", namespace, *audiences, "--duration=1h")
            self.tokens[key] = self.run(*command).strip()
        return self.tokens[key]

    def put_policy(self, policy: TenantPolicy) -> TenantPolicy:
        """Write a policy as the operator does; return it sealed."""
        sealed = contracts.seal(policy)
        self.apply(policy_secret(sealed.tenant.key, contracts.encode(sealed)))
        return sealed

    def delete_policy(self, policy: TenantPolicy) -> None:
        """Remove a policy."""
        self.run("delete", "secret", "-n", ROUTES, naming.policy_secret(policy.tenant.key), "--wait=true")


def policy_secret(key: str, document: bytes) -> dict[str, Any]:
    """Return the Secret that carries a policy."""
    metadata = {
        "name": naming.policy_secret(key),
        "namespace": ROUTES,
        "labels": {naming.LABEL_MANAGED_BY: naming.MANAGED_BY},
    }
    data = {naming.POLICY_KEY: base64.b64encode(document).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def prepare(url: str, kubectl: Callable[..., subprocess.CompletedProcess[str]], folder: Path) -> Cluster:
    """Make the namespaces, the gateway's ServiceAccount and exactly the rights the chart gives it."""
    cluster = Cluster(url, kubectl, folder)
    role = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    subject = {"kind": "ServiceAccount", "name": "assistant-gateway", "namespace": PLATFORM}
    group = "rbac.authorization.k8s.io"
    cluster.apply(
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in (PLATFORM, ROUTES)),
        {**role, "kind": "Role", "metadata": {"name": "gateway", "namespace": ROUTES}}
        | {"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]},
        {**role, "kind": "RoleBinding", "metadata": {"name": "gateway", "namespace": ROUTES}}
        | {"roleRef": {"apiGroup": group, "kind": "Role", "name": "gateway"}, "subjects": [subject]},
        {**role, "kind": "ClusterRoleBinding", "metadata": {"name": "gateway-issuer"}}
        | {
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:service-account-issuer-discovery"},
            "subjects": [subject],
        },
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(cluster.token(PLATFORM, "assistant-gateway", ""))
    view = json.loads(cluster.run("config", "view", "--raw", "-o", "json"))["clusters"][0]["cluster"]
    certificate = view.get("certificate-authority-data")
    content = base64.b64decode(certificate) if certificate else Path(view["certificate-authority"]).read_bytes()
    (folder / "ca.crt").write_bytes(content)
    return cluster


def identity(namespace: str) -> TenantIdentity:
    """Return the identity of a namespace whose UID is its name."""
    return TenantIdentity(namespace=namespace, uid=namespace, key=naming.tenant_key(namespace))


def policy(namespace: str, models: list[str], **changes: Any) -> TenantPolicy:
    """Return a policy with one assistant per model of the catalogue's provider, and the knowledge base `handbook`."""
    embedding = ModelRoute(model="embed", provider="demo")
    fields: dict[str, Any] = {
        "tenant": identity(namespace),
        "generation": "",
        "models_allow": ["*"],
        "requests_per_minute": None,
        "assistants": {name: AssistantPolicy(route=ModelRoute(model=name, provider="demo")) for name in models},
        "knowledge_bases": {"handbook": EmbeddingPolicy(route=embedding, dimensions=8)},
    }
    return TenantPolicy(**{**fields, **changes})


def own_endpoint(url: str, model: str = "good", key: str | None = None) -> AssistantPolicy:
    """Return an assistant with the tenant's own server behind it."""
    return AssistantPolicy(route=ModelRoute(model=model, endpoint=Endpoint(url=url, api_key=key)))


@dataclass
class Running:
    """A gateway that serves, and a client for it."""

    server: Server
    settings: Settings
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        """Where the OpenAI wire is spoken."""
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def operations(self) -> str:
        """Where probes and metrics are."""
        return f"http://127.0.0.1:{self.server.metrics_port}"

    async def ready(self) -> None:
        """Wait until it may be asked."""
        async with asyncio.timeout(30):
            while True:
                async with self.client.get(f"{self.operations}/readyz") as answer:
                    if answer.status == 200:
                        return
                await asyncio.sleep(0.02)

    async def shared(self) -> None:
        """Wait until it asks Redis: it is ready before, with limits of its own."""
        async with asyncio.timeout(30):
            while True:
                async with self.client.get(f"{self.operations}/readyz") as answer:
                    if (await answer.json())["checks"]["redis"] == "ok":
                        return
                await asyncio.sleep(0.02)

    async def metric(self, line: str) -> float:
        """Return the value of one time series, 0 when it is not there."""
        async with self.client.get(f"{self.operations}/metrics") as answer:
            for found in (await answer.text()).splitlines():
                if found.startswith(line + " "):
                    return float(found.rsplit(" ", 1)[1])
        return 0.0


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Start a gateway and stop it."""
    server = Server(settings)
    await server.start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as client:
        gateway = Running(server, settings, client)
        try:
            await gateway.ready()
            yield gateway
        finally:
            await server.stop(drain_seconds=0)


async def until_still(written: Callable[[], int]) -> int:
    """Wait until a provider gets rid of nothing more; return what it had by then.

    It takes less than the second after which a client that does not read is gone.
    """
    seen: list[int] = []
    async with asyncio.timeout(30):
        while len(seen) < 4 or len(set(seen[-4:])) > 1:
            seen.append(written())
            await asyncio.sleep(0.1)
    return seen[-1]
