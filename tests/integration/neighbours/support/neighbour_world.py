"""Two tenants on one platform: real gateway, operator, tenant APIs and workers as processes, real stores, and attacks.

There is no kubelet: the processes of a tenant's pods are started here, with what the operator wrote for them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import asyncpg
import msgspec
from api_process import ApiProcess, api_process
from gateway_processes import Started, process
from gateway_world import PLATFORM, ROUTES, Cluster
from ledger_database import make_ledger
from worker_process import WorkerProcess, worker_process

from assistant_cluster import stores
from assistant_cluster.server import free_ports
from assistant_crds import naming
from assistant_crds.contracts import TenantConfig
from assistant_gateway.config import Settings

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[4]
PRICE = {"inputPerMillion": "1", "outputPerMillion": "2"}  # whole micro-units per token: no rounding in any bill
COST = (1, 2)
ATTACKER_NICE = 10  # the attackers are other machines: here they must not take the platform's processor time
# A pod has its processor reserved, which a machine with much else to do does not give a process. A busy one would
# wait longer for it than one that rests, whatever it does for its tenants.
RESERVED_NICE = -10
START_SECONDS = 240  # of a machine that does much else


@dataclass
class Stores:
    """Stores of this platform alone."""

    postgres: stores.Postgres
    redis: stores.Redis
    weaviate: stores.Weaviate | None = None  # the gateway does not use it

    @property
    def processes(self) -> dict[str, int]:
        """Process ids, which must stay what they are."""
        found = {"postgres": self.postgres, "redis": self.redis, "weaviate": self.weaviate}
        return {name: store.server.pid for name, store in found.items() if store is not None}


@dataclass
class TenantPods:
    """What runs in a tenant's namespace."""

    namespace: str
    key: str  # its name in the stores
    api_key: str
    secret: dict[str, str]
    api: ApiProcess
    worker: WorkerProcess


@dataclass
class Child:
    """A process of the test."""

    process: asyncio.subprocess.Process
    log: Path


@dataclass
class World:
    """The platform."""

    cluster: Cluster
    kubeconfig: Path
    folder: Path
    stores: Stores
    ledger_url: str
    stack: contextlib.AsyncExitStack
    ports: dict[str, int] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)
    gateway: Started = field(init=False)

    def resource(self, namespace: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        """Return a resource of the platform's kinds."""
        metadata = {"name": name} | ({"namespace": namespace} if kind != "Tenant" else {})
        return {"apiVersion": naming.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}

    async def child(self, name: str, *command: str, nice: int = 0, stdin: int | None = None) -> Child:
        """Start a process that ends with the world."""
        log = self.folder / f"{name}.log"
        environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        with log.open("wb") as output:
            started = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                env=environment,
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE if stdin else output,
                stderr=output,
                limit=2**20,
                preexec_fn=lambda: os.nice(nice) and None,
            )
        self.children[name] = Child(started, log)
        self.stack.push_async_callback(_end, started)
        return self.children[name]

    async def serve(self, name: str, script: str, nice: int = 0) -> int:
        """Start a server of the test and wait until it answers; return its port."""
        (port,) = free_ports(1)
        child = await self.child(name, str(HERE / script), str(port), nice=nice)
        await eventually(lambda: _listens(port), child)
        self.ports[name] = port
        return port

    async def start_gateway(self, port: int) -> None:
        """Start the gateway, as the chart sets it."""
        (self.folder / "keys").mkdir()
        (self.folder / "keys" / "demo").write_text("sk-platform\n")
        settings = Settings(
            namespace=PLATFORM,
            routes_namespace=ROUTES,
            catalog_file=self.folder / "catalog.yaml",
            provider_keys_dir=self.folder / "keys",
            redis_url=self.stores.redis.gateway_url,
            ledger_url=self.ledger_url,
            host="127.0.0.1",
            port=port,
            metrics_port=0,
            kubernetes_url=self.cluster.url,
            kubernetes_credentials_dir=self.cluster.credentials,
        )
        self.gateway = await self.stack.enter_async_context(process(settings))

    async def start_operator(self, port: int, namespaces: list[str]) -> None:
        """Start the operator, and what makes pods."""
        (self.folder / "operator-token").write_text(self.cluster.token(PLATFORM, naming.MANAGED_BY))
        pod_port, metrics_port = free_ports(2)
        postgres, redis, weaviate = self.stores.postgres, self.stores.redis, self.stores.weaviate
        assert weaviate is not None
        settings = {
            "namespace": PLATFORM,
            "routes_namespace": ROUTES,
            "pod_name": "operator-1",
            "postgres_dsn": postgres.dsn,
            "redis_url": redis.operator_url,
            "weaviate_url": weaviate.url,
            "weaviate_grpc": weaviate.grpc,
            "weaviate_api_key": weaviate.api_key,
            "migrations_dir": str(ROOT / "api" / "assistant_api" / "database" / "migrations"),
            "tenant_postgres": postgres.address,
            "tenant_redis": redis.address,
            "tenant_weaviate_url": weaviate.url,
            "tenant_weaviate_grpc": weaviate.grpc,
            "gateway_url": f"http://127.0.0.1:{port}",
            "gateway_token_file": str(self.folder / "operator-token"),
            "catalog_file": str(self.folder / "catalog.yaml"),
            "api_image": "localhost/assistant-platform/api:test",
            "metrics_port": metrics_port,
            "observe_seconds": 5,
        }
        file = self.folder / "operator.json"
        file.write_text(json.dumps({"settings": settings, "pod_port": pod_port, "namespaces": namespaces}))
        await self.child("node", str(HERE / "neighbour_operator.py"), "node", str(file), nice=ATTACKER_NICE)
        await self.child("operator", str(HERE / "neighbour_operator.py"), "operator", str(file))

    def found(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """Return an object, or None."""
        done = self.cluster.kubectl("get", kind, name, "-n", namespace, "-o", "json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """Return a decoded Secret, or None."""
        found = self.found("secret", name, namespace)
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()} if found else None

    def config(self, namespace: str, assistants: int) -> TenantConfig | None:
        """Return the configuration of a tenant's pods once it holds so many assistants."""
        found = self.found("configmap", naming.CONFIG_MAP, namespace)
        if found is None:
            return None
        config = msgspec.json.decode(found["data"][naming.CONFIG_KEY], type=TenantConfig)
        return config if len(config.assistants) == assistants else None

    async def start_pods(self, namespace: str, assistants: int, nice: int = 0) -> TenantPods:
        """Start a tenant's API and worker when the operator has written what they need."""
        operator = self.children["operator"]
        config = await eventually(lambda: self.config(namespace, assistants), operator)
        secret = await eventually(lambda: self.secret(namespace, naming.STORES_SECRET), operator)
        api_key = await eventually(lambda: self.secret(namespace, naming.API_KEY_SECRET), operator)
        token = self.cluster.token(namespace)
        folder = self.folder / namespace
        folder.mkdir()
        api = self.stack.enter_context(api_process(folder / "api", config, secret))
        pod: Any = SimpleNamespace(mounted=lambda: secret, config=lambda _url: config)
        worker = self.stack.enter_context(worker_process(folder / "worker", pod, config.gateway_url))
        for pid in (api.process.pid, worker.process.pid):
            os.setpriority(os.PRIO_PROCESS, pid, nice)
        (folder / "api" / "token").write_text(token)
        (folder / "worker" / "token").write_text(token)
        await eventually(api.ready, operator)
        return TenantPods(namespace, config.tenant.key, api_key[naming.API_KEY_KEY], secret, api, worker)

    async def ledger_of(self, key: str) -> dict[str, tuple[int, int, int, int]]:
        """Return calls, tokens in and out, and cost of a tenant, by model."""
        connection = await asyncpg.connect(self.ledger_url)
        try:
            query = """SELECT model, count(*), sum(input)::bigint, sum(output)::bigint, sum(cost)::bigint
                       FROM ledger_entries WHERE tenant_key = $1 GROUP BY model"""
            return {row[0]: tuple(row)[1:] for row in await connection.fetch(query, key)}
        finally:
            await connection.close()

    async def bill_is_exact(self, key: str, *models: str) -> None:
        """Wait until the ledger says of a tenant's models what the provider billed for them."""
        billed = await self.billed()
        expected = {
            model: (one["calls"], one["input"], one["output"], one["input"] * COST[0] + one["output"] * COST[1])
            for model, one in billed.items()
            if model in models
        }
        found: dict[str, Any] = {}
        for _ in range(100):
            if (found := await self.ledger_of(key)) == expected:
                return
            await asyncio.sleep(0.2)
        raise AssertionError(f"the ledger says {found}, the provider {expected}")

    async def billed(self) -> dict[str, dict[str, int]]:
        """Return what the provider has billed, by model."""
        url = f"http://127.0.0.1:{self.ports['provider']}/billed"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            return await answer.json()


class Attackers:
    """The hostile tenant's process; attacks while the context is entered."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.seen: dict[str, dict[str, int]] = {}

    @contextlib.asynccontextmanager
    async def attacking(self, *attacks: str) -> AsyncIterator[None]:
        """Attack meanwhile, with everything unless attacks are named."""
        process = self.child.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(" ".join(["go", *attacks]).encode() + b"\n")
        try:
            yield
        finally:
            process.stdin.write(b"stop\n")
            line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
            assert line, self.child.log.read_text()
            self.seen = json.loads(line)


async def start_attackers(world: World, configuration: dict[str, Any]) -> Attackers:
    """Start the hostile tenant's own process, with what its pods are given."""
    file = world.folder / "attacker.json"
    file.write_text(json.dumps(configuration))
    command = (str(HERE / "neighbour_attacker.py"), str(file))
    return Attackers(await world.child("attacker", *command, nice=ATTACKER_NICE, stdin=asyncio.subprocess.PIPE))


async def eventually(check: Callable[[], Any], child: Child, seconds: float = START_SECONDS) -> Any:
    """Return the first true answer of a question while a process lives."""
    deadline = time.monotonic() + seconds
    while not (answer := await asyncio.to_thread(check)):
        assert child.process.returncode is None, child.log.read_text()
        assert time.monotonic() < deadline, f"it did not come true:\n{child.log.read_text()[-6000:]}"
        await asyncio.sleep(0.1)
    return answer


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def peak_mebibytes(pid: int) -> float:
    """Return the most memory that a process ever held."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


async def serve_models(world: World) -> None:
    """Start the platform's provider and the hostile tenant's own, and write the catalogue."""
    provider = await world.serve("provider", "neighbour_provider.py")
    await world.serve("endpoint", "neighbour_endpoint.py", nice=ATTACKER_NICE)
    catalog = {
        "providers": {"demo": {"url": f"http://127.0.0.1:{provider}/v1", "keyRef": "demo", "models": {"*": PRICE}}},
        "tenantEndpoints": {"allowHosts": ["localhost"]},
    }
    (world.folder / "catalog.yaml").write_text(json.dumps(catalog))


@contextlib.asynccontextmanager
async def twins(cluster: Cluster, spare: stores.Postgres, folder: Path) -> AsyncIterator[tuple[World, World]]:
    """Start two gateways, each with Redis and ledger of its own, on the same providers and policies.

    The second, whose ledger is on `spare`, is what the first would be if nobody attacked it, at the same moment on the
    same machine.
    """
    async with contextlib.AsyncExitStack() as stack:
        worlds = []
        for name, postgres in (("attacked", stack.enter_context(stores.postgres())), ("twin", spare)):
            (folder / name).mkdir()
            own = Stores(postgres, stack.enter_context(stores.redis()))
            worlds.append(World(cluster, Path(), folder / name, own, await make_ledger(postgres), stack))
        attacked, twin = worlds
        await serve_models(attacked)
        (twin.folder / "catalog.yaml").write_text((attacked.folder / "catalog.yaml").read_text())
        for world, port in zip(worlds, free_ports(2), strict=True):
            await world.start_gateway(port)
            for pid in (world.gateway.process.pid, world.stores.redis.server.pid):
                with contextlib.suppress(PermissionError):  # only root may
                    os.setpriority(os.PRIO_PROCESS, pid, RESERVED_NICE)
        yield attacked, twin


@contextlib.asynccontextmanager
async def platform(cluster: Cluster, kubeconfig: Path, folder: Path) -> AsyncIterator[World]:
    """Start stores, providers, gateway; the operator comes when there is something for it."""
    async with contextlib.AsyncExitStack() as stack:
        own = Stores(*(stack.enter_context(store()) for store in (stores.postgres, stores.redis, stores.weaviate)))
        world = World(cluster, kubeconfig, folder, own, await make_ledger(own.postgres), stack)
        await serve_models(world)
        yield world
