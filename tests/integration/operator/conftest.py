"""An operator's context on a real API server and real stores; each test has namespaces of its own."""

import asyncio
import itertools
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lightkube.types import PatchType
from operator_context import connect
from operator_world import OURS, Gateway, Node, all_objects, condition, read_token, remove_tenants

from assistant_cluster import stores
from assistant_crds import naming
from assistant_operator.adapters.cluster import Cluster
from assistant_operator.config import Settings
from assistant_operator.queue import Result
from assistant_operator.reconcile.context import Context
from assistant_operator.reconcile.run import reconcile

MIGRATIONS = Path(__file__).parents[3] / "api" / "assistant_api" / "database" / "migrations"
_numbers = itertools.count()


@dataclass
class World:
    """What a test works with: an administrator's view of the cluster, and the operator's settings."""

    cluster: Cluster
    settings: Settings
    gateway: Gateway
    node: Node
    namespace: str
    pod_port: int

    async def make_namespace(self, name: str) -> None:
        await self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    async def assistant(self, name: str = "support", **spec: Any) -> dict[str, Any]:
        return await self._resource("Assistant", name, {"model": {"provider": "demo", "name": "m"}, **spec})

    async def knowledge_base(self, name: str = "handbook", **spec: Any) -> dict[str, Any]:
        embedding = {"provider": "demo", "name": "e", "dimensions": 16}
        return await self._resource("KnowledgeBase", name, {"embedding": embedding, **spec})

    async def _resource(self, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": self.namespace}
        obj = {"apiVersion": naming.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        client = self.cluster._client
        return await client.patch(
            self.cluster._resources[kind],
            name,
            obj,
            namespace=self.namespace,
            patch_type=PatchType.APPLY,
            field_manager="user",
            force=True,
        )

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return await self.cluster.get(kind, name, None if kind == "Tenant" else self.namespace)

    async def tenant_key(self) -> str:
        namespace = await self.cluster.get("Namespace", self.namespace)
        assert namespace is not None
        return naming.tenant_key(namespace["metadata"]["uid"])

    async def is_ready(self, kind: str, name: str) -> bool:
        resource = await self.get(kind, name)
        ready = condition(resource or {}, "Ready")
        return (
            resource is not None
            and ready.get("status") == "True"
            and ready["observedGeneration"] == resource["metadata"]["generation"]
        )

    async def tell(self) -> None:
        """Print what is not Ready: a test that waited for it in vain fails without a reason otherwise."""
        for kind in ("Assistant", "KnowledgeBase"):
            for resource in await self.cluster.list(kind, self.namespace):
                conditions = (resource.get("status") or {}).get("conditions") or []
                wrong = [f"{item['type']}: {item['message']}" for item in conditions if item["status"] != "True"]
                if wrong or not conditions:
                    print(f"{kind} {resource['metadata']['name']}: {' '.join(wrong) or 'no status'}")

    async def delete(self, kind: str, name: str) -> None:
        await self.cluster.delete(kind, name, None if kind == "Tenant" else self.namespace)

    async def run(self, context: Context) -> Result:
        """Run the tenant's reconcile once."""
        return await reconcile(self.namespace, context)

    async def settle(self, context: Context, runs: int = 100) -> None:
        """Run the tenant's reconcile, as the queue would, until it writes nothing and asks for no further run soon."""
        for _ in range(runs):
            result = await reconcile(self.namespace, context)
            # What is not Ready waits for an event, which the node may be about to cause.
            if not (result.requeue or result.changed) and (result.requeue_after is None or not await self.node.step()):
                return
            await asyncio.sleep(0.05)
        resources = [*await self.cluster.list("Assistant", self.namespace)]
        resources += await self.cluster.list("KnowledgeBase", self.namespace)
        raise AssertionError(f"the tenant does not settle: {result} {[item.get('status') for item in resources]}")

    async def leftovers(self, context: Context, key: str) -> list[str]:
        """Return whatever is left of a tenant, in the cluster and in the stores."""
        objects = [f"{kind}/{name}" for kind, name in await all_objects(self.cluster, self.namespace)]
        policies = await self.cluster.list("Secret", self.settings.routes_namespace, OURS)
        return [
            *objects,
            *(secret["metadata"]["name"] for secret in policies if key.replace("_", "-") in secret["metadata"]["name"]),
            *await context.postgres.leftovers(key),
            *await context.redis.leftovers(key),
            *await context.weaviate.leftovers(key),
        ]


@pytest.fixture
async def world(
    kube: Any, postgres: Any, redis_store: Any, weaviate_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    suffix = f"{os.getpid()}-{next(_numbers)}-{uuid.uuid4().hex[:4]}"
    platform, routes, namespace = f"p-{suffix}", f"r-{suffix}", f"t-{suffix}"
    (tmp_path / "catalog.yaml").write_text("providers: {demo: {url: 'http://127.0.0.1:1/v1'}}")
    cluster = Cluster.connect(lambda: None)
    await remove_tenants(cluster)  # of other rooms' tests
    (pod_port,) = stores.free_ports(1)
    async with Gateway(cluster, routes).serve() as gateway, Node(cluster, namespace, pod_port).run() as node:
        settings = Settings(
            namespace=platform,
            routes_namespace=routes,
            pod_name="operator-1",
            postgres_dsn=postgres.dsn,
            redis_url=redis_store.operator_url,
            weaviate_url=weaviate_store.url,
            weaviate_grpc=weaviate_store.grpc,
            weaviate_api_key=weaviate_store.api_key,
            migrations_dir=MIGRATIONS,
            tenant_postgres=postgres.address,
            tenant_redis=redis_store.address,
            tenant_weaviate_url=weaviate_store.url,
            tenant_weaviate_grpc=weaviate_store.grpc,
            gateway_url=f"http://127.0.0.1:{gateway.port}",
            gateway_token_file=read_token(tmp_path),
            catalog_file=tmp_path / "catalog.yaml",
            api_image="localhost/assistant-platform/api:test",
            metrics_port=stores.free_ports(1)[0],
            log_format="console",
        )
        world = World(cluster, settings, gateway, node, namespace, pod_port)
        for name in (platform, routes, namespace):
            await world.make_namespace(name)
        yield world
        await world.tell()
    await remove_tenants(cluster)
    await cluster.close()


@pytest.fixture
async def context(world: World) -> AsyncIterator[Context]:
    async with connect(world.settings, world.pod_port) as context:
        yield context
