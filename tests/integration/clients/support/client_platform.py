"""A whole platform for real clients: the tenant API, its worker, the gateway and the stand-in model as processes.

Only the operator is missing: what it would write is written here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from api_process import KEY, ApiProcess, api_process, assistant, document
from api_tenant import make_tenant
from gateway_processes import process
from gateway_world import PLATFORM, ROUTES, policy
from ledger_database import make_ledger
from signing_cluster import SigningCluster

from assistant_cluster import stores
from assistant_cluster.server import free_ports
from assistant_crds.contracts import AssistantPolicy, EmbeddingPolicy, ModelRoute, TenantIdentity
from assistant_gateway.config import Settings

NAMESPACE = "acme"  # of `document`
QUESTION = "How many newton metres does the bottom bracket of the Larkspur take?"
WORDS = "42 newton metres"
TITLE = "handbook.md"
# Bicycles are beyond the Basic Multilingual Plane: JavaScript counts them twice.
TEXT = """# Workshop

\U0001f6b2\U0001f6b2 The bottom bracket of the Larkspur takes 42 newton metres.

# Travel

A full day abroad is paid with 32 euros.
"""
MODEL = "stand-in"


@dataclass(frozen=True)
class ClientPlatform:
    """What a client is told."""

    api: ApiProcess
    key: str = KEY

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a client's process."""
        told = {"url": f"{self.api.url}/v1", "key": self.key, "question": QUESTION, "words": WORDS, "title": TITLE}
        home = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**home, **{f"CLIENTS_{name.upper()}": value for name, value in told.items()}}


@contextlib.contextmanager
def stand_in(folder: Path) -> Iterator[str]:
    """Start the stand-in model; return its address."""
    (port,) = free_ports(1)
    settings = {"HOST": "127.0.0.1", "PORT": str(port), "WORD_SECONDS": "0"}
    environment = {"PATH": os.environ["PATH"], **{f"MODEL_SERVER_{name}": value for name, value in settings.items()}}
    with (folder / "model.log").open("wb") as log:
        command = [sys.executable, "-m", "assistant_demo.model_server"]
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        started.wait(10)


def settings(folder: Path, cluster: SigningCluster, redis: stores.Redis, ledger: str, model_url: str) -> Settings:
    """Return the gateway's settings, with the stand-in as the provider `demo`."""
    price = {"inputPerMillion": "1", "outputPerMillion": "2"}
    provider = {"url": f"{model_url}/v1", "models": {"*": price}}
    (folder / "keys").mkdir()
    (folder / "catalog.yaml").write_text(json.dumps({"providers": {"demo": provider}}))
    return Settings(
        namespace=PLATFORM,
        routes_namespace=ROUTES,
        catalog_file=folder / "catalog.yaml",
        provider_keys_dir=folder / "keys",
        redis_url=redis.gateway_url,
        ledger_url=ledger,
        host="127.0.0.1",
        port=0,
        metrics_port=0,
        kubernetes_url=cluster.url,
        kubernetes_credentials_dir=cluster.credentials,
    )


@contextlib.asynccontextmanager
async def client_platform(
    folder: Path, postgres: stores.Postgres, redis: stores.Redis, weaviate: stores.Weaviate
) -> AsyncIterator[ClientPlatform]:
    """Start everything, with a document taken in. `limited` takes one request a minute."""
    tenant = await make_tenant(postgres, weaviate, ["handbook"])
    route = ModelRoute(model=MODEL, provider="demo")
    assistants = {name: AssistantPolicy(route=route) for name in ("support", "plain")}
    assistants["limited"] = AssistantPolicy(route=route, requests_per_minute=1)
    embedding = EmbeddingPolicy(
        route=ModelRoute(model="stand-in-embedding", provider="demo"), dimensions=tenant.handbook.dimensions
    )
    allowed = policy(
        NAMESPACE,
        [],
        tenant=TenantIdentity(namespace=NAMESPACE, uid=tenant.key, key=tenant.key),
        assistants=assistants,
        knowledge_bases={"handbook": embedding},
    )
    served = [assistant("support", "handbook"), assistant("plain", instructions=""), assistant("limited")]
    ledger = await make_ledger(postgres)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(SigningCluster(folder / "credentials", allowed).running())
        model_url = stack.enter_context(stand_in(folder))
        async with process(settings(folder, cluster, redis, ledger, model_url)) as gateway:
            config = document(gateway.url, served, tenant.knowledge_bases, tenant.key)
            mounted = tenant.mounted()
            api = stack.enter_context(api_process(folder / "api", config, mounted))
            worker = api_process(folder / "worker", config, mounted, module="assistant_api.worker")
            stack.enter_context(worker)
            for part in ("api", "worker"):
                (folder / part / "token").write_text(cluster.token(NAMESPACE))
            platform = ClientPlatform(api)
            await asyncio.to_thread(_prepare, platform)
            yield platform


def _prepare(platform: ClientPlatform) -> None:
    platform.api.wait_ready()
    base = f"{platform.api.url}/api/v1/knowledge-bases/handbook/documents"
    with httpx.Client(headers={"authorization": f"Bearer {platform.key}"}, timeout=30) as client:
        uploaded = client.post(base, files={"file": (TITLE, TEXT.encode())})
        assert uploaded.status_code == 202, uploaded.text
        end = time.monotonic() + 90
        while (found := client.get(f"{base}/{uploaded.json()['id']}").json())["status"] != "ready":
            assert time.monotonic() < end, found
            time.sleep(0.1)
