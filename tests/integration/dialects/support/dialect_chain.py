"""The chain for the table of dialects: tenant API and gateway as processes, real stores, one document taken in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
from api_process import KEY, ApiProcess, api_process, assistant, document
from api_tenant import make_tenant
from dialect_provider import OUTCOMES, TABLE, Providers, providers
from gateway_processes import Started, process
from gateway_world import PLATFORM, ROUTES, Cluster, policy
from redis.asyncio import Redis

from assistant_cluster import stores
from assistant_cluster.server import free_ports
from assistant_crds.contracts import AssistantPolicy, EmbeddingPolicy, ModelRoute
from assistant_gateway.config import Settings
from assistant_gateway.ledger.entry import LedgerEntry, decode_entry

NAMESPACE = "dialects"
PRICE = {"inputPerMillion": "1", "outputPerMillion": "2"}  # whole micro-units per token: no rounding in any bill
BACKUP = "openai"  # the dialect that answers where another fails
CONTENT = b"# Workshop\n\nThe bottom bracket of the Larkspur takes 42 newton metres.\n"


@dataclass
class Chain:
    """What runs."""

    api: ApiProcess
    gateway: Started
    providers: Providers
    redis: Redis
    ledger_key: str

    def client(self) -> openai.AsyncOpenAI:
        """The official client, which reads what the API sends."""
        return openai.AsyncOpenAI(base_url=f"{self.api.url}/v1", api_key=KEY, max_retries=0)

    async def entries(self, name: str, count: int) -> list[LedgerEntry]:
        """Return the ledger's entries of an assistant's chats, once there are so many."""
        async with asyncio.timeout(30):
            while True:
                found = [decode_entry(fields[b"entry"]) for _, fields in await self.redis.xrange(self.ledger_key)]
                chats = [entry for entry in found if entry.name == name]
                if len(chats) >= count:
                    return chats
                await asyncio.sleep(0.02)


def names() -> list[str]:
    """Return the assistants: one for each dialect and outcome."""
    return [f"{dialect}-{outcome}" for dialect in TABLE for outcome in OUTCOMES]


def _route(name: str) -> AssistantPolicy:
    dialect, _, outcome = name.rpartition("-")
    return AssistantPolicy(
        route=ModelRoute(provider=dialect, model=outcome),
        fallbacks=[] if outcome == "answer" else [ModelRoute(provider="backup", model="answer")],
    )


def _settings(cluster: Cluster, folder: Path, upstream: str, redis_url: str, port: int) -> Settings:
    provider = {"breaker": {"minCalls": 1000}, "models": {"*": PRICE}}
    entries = {name: {"url": f"{upstream}/{name}/v1", **provider} for name in TABLE}
    entries["backup"] = {"url": f"{upstream}/{BACKUP}/v1", **provider}
    (folder / "catalog.yaml").write_text(json.dumps({"providers": entries}))
    (folder / "keys").mkdir()
    return Settings(
        namespace=PLATFORM,
        routes_namespace=ROUTES,
        catalog_file=folder / "catalog.yaml",
        provider_keys_dir=folder / "keys",
        redis_url=redis_url,
        host="127.0.0.1",
        port=port,
        metrics_port=0,
        kubernetes_url=cluster.url,
        kubernetes_credentials_dir=cluster.credentials,
    )


@contextlib.asynccontextmanager
async def chain(
    cluster: Cluster, folder: Path, postgres: stores.Postgres, redis: stores.Redis, weaviate: stores.Weaviate
) -> AsyncIterator[Chain]:
    """Start everything, and take the document in."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(providers())
        sealed = cluster.put_policy(
            policy(
                NAMESPACE,
                [],
                assistants={name: _route(name) for name in names()},
                knowledge_bases={
                    "handbook": EmbeddingPolicy(route=ModelRoute(provider="gemini", model="embed"), dimensions=256)
                },
            )
        )
        (port,) = free_ports(1)
        settings = _settings(cluster, folder, upstream.url, redis.gateway_url, port)
        gateway = await stack.enter_async_context(process(settings))
        tenant = await make_tenant(postgres, weaviate, ["handbook"])
        assistants = [assistant(name, "handbook") for name in names()]
        config = document(gateway.url, assistants, tenant.knowledge_bases, tenant.key)
        pods = [
            stack.enter_context(api_process(folder / module, config, tenant.mounted(), module=f"assistant_api{module}"))
            for module in ("", ".worker")
        ]
        for pod in pods:
            (pod.folder / "token").write_text(cluster.token(NAMESPACE))
        await asyncio.to_thread(pods[0].wait_ready)
        await _take_in(pods[0])
        client = await stack.enter_async_context(Redis.from_url(redis.gateway_url, protocol=2, driver_info=None))
        yield Chain(pods[0], gateway, upstream, client, f"quota:{{{sealed.tenant.key}}}:ledger")


async def _take_in(api: ApiProcess) -> None:
    """Upload the document and wait until it is searchable."""
    documents = f"{api.url}/api/v1/knowledge-bases/handbook/documents"
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=10) as client:
        uploaded = await client.post(documents, files={"file": ("handbook.md", CONTENT, "text/markdown")})
        assert uploaded.status_code == 202, uploaded.text
        end = time.monotonic() + 60
        while (found := (await client.get(f"{documents}/{uploaded.json()['id']}")).json())["status"] != "ready":
            assert found["status"] in {"pending", "processing"}, found
            assert time.monotonic() < end, found
            await asyncio.sleep(0.1)
