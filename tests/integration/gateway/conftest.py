"""The gateway's surroundings: one prepared API server per session, one gateway per test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from gateway_provider import SECRET, Provider, provider
from gateway_world import PLATFORM, ROUTES, Cluster, Running, prepare, running

from assistant_gateway.config import Settings


@pytest.fixture(scope="session")
def cluster(kube, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The API server with the gateway's rights."""
    return prepare(kube.url, kube.kubectl, tmp_path_factory.mktemp("gateway-credentials"))


@pytest.fixture
async def upstream() -> AsyncIterator[Provider]:
    """A scripted provider."""
    async with provider() as state:
        yield state


@pytest.fixture
def settings(cluster: Cluster, upstream: Provider, redis_store, tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a gateway whose catalogue has the scripted provider as `demo`, with short time-outs."""

    def make(**changes: object) -> Settings:
        (tmp_path / "keys").mkdir(exist_ok=True)
        (tmp_path / "keys" / "demo").write_text(SECRET + "\n")
        catalog = tmp_path / "catalog.yaml"
        if not catalog.exists():
            catalog.write_text(
                f"providers:\n  demo: {{url: {upstream.url}, keyRef: demo, connectSeconds: 0.5, firstByteSeconds: 0.5,"
                " idleSeconds: 0.6, breaker: {minCalls: 1000}}\n"  # its faults are asked for
                "  gone: {url: http://127.0.0.1:9/v1}\n"
                "tenantEndpoints: {allowHosts: []}\n"
            )
        values: dict[str, object] = {
            "namespace": PLATFORM,
            "routes_namespace": ROUTES,
            "catalog_file": catalog,
            "provider_keys_dir": tmp_path / "keys",
            "redis_url": redis_store.gateway_url,
            "host": "127.0.0.1",
            "port": 0,
            "metrics_port": 0,
            "kubernetes_url": cluster.url,
            "kubernetes_credentials_dir": cluster.credentials,
            "drain_seconds": 0.0,
            "stream_seconds": 1.0,
        }
        return Settings(**{**values, **changes})

    return make


@pytest.fixture
async def gateway(settings: Callable[..., Settings]) -> AsyncIterator[Running]:
    """A gateway that is ready and shares its limits, which it does not leave when the machine is busy."""
    async with running(settings(redis_answer_seconds=5.0)) as started:
        await started.shared()
        yield started


@pytest.fixture
def ask(cluster: Cluster, gateway: Running) -> Callable[..., object]:
    """Make a function that sends a chat request as a tenant's pod; leave with `async with`."""

    def send(namespace: str, model: str, **fields: object):
        headers = {"Authorization": f"Bearer {cluster.token(namespace)}"}
        headers |= fields.pop("headers", {})  # type: ignore[arg-type]
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
        return gateway.client.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers)

    return send
