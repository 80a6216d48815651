"""What the operator costs at rest, and what it writes then, beside that of an older commit in the same run.

    python tools/bench/operator/measure.py [--tenants 200] [--seconds 120] [--against dcfb673]

API server, etcd, Postgres, Redis and Weaviate are real; the gateway answers from the policies, and pods are simulated:
each has an address of its own on the loopback interface and serves its namespace's configuration. One tenant is one
Assistant with a daily limit and one KnowledgeBase. The operator is measured once all are Ready and a minute has passed:
its processor time from /proc, its writes from the API server's audit log, its own Lease left out.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from aiohttp import web

from assistant_cluster import stores
from assistant_cluster.apiserver import ApiServer, apiserver
from assistant_crds import naming
from assistant_crds.contracts import (
    ModelProbe,
    ProbesAnswer,
    ProbesQuestion,
    Readiness,
    TenantPolicy,
    TenantProbe,
    digest,
    encode,
)
from assistant_operator.adapters.cluster import ALL_NAMESPACES, Cluster

ROOT = Path(__file__).parents[3]
# In older commits the cluster's room lay at the top.
ROOMS = ("api", "tools/cluster", "cluster", "crds", "gateway", "http", "observability", "operator")
PLATFORM, ROUTES = "assistant-platform", "assistant-platform-routes"
OURS = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}
REACHABLE = ModelProbe(reachable=True, reason="Reachable", message="The model's provider answers.")
SETTLE_SECONDS = 60
SHOWN = 20  # writes of each that are named
Json = dict[str, Any]


class World:
    """The gateway and the pods of all tenants. What they answer is read from the API server while tenants are made."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        self.cluster = cluster
        self.namespaces = [f"bench-{number:03}" for number in range(count)]
        self._probes: dict[str, TenantProbe] = {}
        self._generations: dict[str, str] = {}
        self._runners: list[web.AppRunner] = []
        self._started = 0  # pods, so far

    def address(self, namespace: str) -> str:
        """Return the address of a tenant's pod."""
        number = int(namespace.rpartition("-")[2])
        return f"127.77.{number // 200}.{number % 200 + 2}"

    async def serve(self, port: int) -> int:
        """Serve all pods on one port, each at its address; return the gateway's port."""
        by_address = {self.address(namespace): namespace for namespace in self.namespaces}

        async def readyz(request: web.Request) -> web.Response:
            assert request.transport is not None
            namespace = by_address[request.transport.get_extra_info("sockname")[0]]
            generation = self._generations.get(namespace, "")
            return web.Response(body=encode(Readiness(status="ready", config_generation=generation, checks={})))

        pods, gateway = web.Application(), web.Application()
        pods.router.add_get("/readyz", readyz)
        gateway.router.add_get("/internal/v1/tenants/{namespace}/probe", self._one)
        gateway.router.add_post("/internal/v1/probes", self._many)
        for app in (pods, gateway):
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            self._runners.append(runner)
        await web.TCPSite(self._runners[0], "0.0.0.0", port).start()
        site = web.TCPSite(self._runners[1], "127.0.0.1", 0)
        await site.start()
        return int(self._runners[1].addresses[0][1])

    async def close(self) -> None:
        """Stop serving."""
        for runner in self._runners:
            await runner.cleanup()

    async def _one(self, request: web.Request) -> web.Response:
        probe = self._probes.get(request.match_info["namespace"])
        return web.Response(status=404) if probe is None else web.Response(body=encode(probe))

    async def _many(self, request: web.Request) -> web.Response:
        known = msgspec.json.decode(await request.read(), type=ProbesQuestion).known
        found = {name: self._probes.get(name) for name in known}
        changed = {name: probe for name, probe in found.items() if probe is None or digest(probe) != known[name]}
        return web.Response(body=encode(ProbesAnswer(changed=changed)))

    async def make(self) -> None:
        """Declare all tenants."""
        for namespace in self.namespaces:
            await self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            for kind, name, spec in (
                ("KnowledgeBase", "handbook", {"embedding": {"provider": "demo", "name": "e", "dimensions": 16}}),
                (
                    "Assistant",
                    "support",
                    {
                        "model": {"provider": "demo", "name": "m"},
                        "knowledgeBases": [{"name": "handbook"}],
                        "limits": {"tokensPerDay": 1000},
                    },
                ),
            ):
                metadata = {"name": name, "namespace": namespace}
                obj = {"apiVersion": naming.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
                await self.cluster.create(obj)

    async def rest(self, tenants: int) -> None:
        """Return once all has been Ready, and there has been nothing to do, for a while."""
        since = time.monotonic()
        while time.monotonic() - since < SETTLE_SECONDS:
            before, started = dict(self._generations), self._started
            if await self.step() < 2 * tenants or (before, started) != (self._generations, self._started):
                since = time.monotonic()
            await asyncio.sleep(1)

    async def step(self) -> int:
        """Do what controllers, kubelet and gateway would; return how many resources are Ready."""
        for secret in await self.cluster.list("Secret", ROUTES, OURS):
            policy = msgspec.json.decode(base64.b64decode(secret["data"][naming.POLICY_KEY]), type=TenantPolicy)
            self._probes[policy.tenant.namespace] = TenantProbe(
                generation=policy.generation,
                assistants=dict.fromkeys(policy.assistants, REACHABLE),
                knowledge_bases=dict.fromkeys(policy.knowledge_bases, REACHABLE),
            )
        for config in await self._listed("ConfigMap"):
            if naming.CONFIG_KEY in (config.get("data") or {}):
                document = json.loads(config["data"][naming.CONFIG_KEY])
                self._generations[config["metadata"]["namespace"]] = document["generation"]
        pods = {(p["metadata"]["namespace"], p["metadata"]["name"]) for p in await self._listed("Pod")}
        for deployment in await self._listed("Deployment"):
            metadata, pod = deployment["metadata"], f"{deployment['metadata']['name']}-1"
            is_there = (metadata["namespace"], pod) in pods
            if is_there and (deployment.get("status") or {}).get("observedGeneration") == metadata["generation"]:
                continue
            if is_there:  # its template may have changed with the operator
                await self._end(metadata["namespace"], pod)
            await self._start(deployment)
        ready = 0
        for kind in ("Assistant", "KnowledgeBase"):
            for resource in await self.cluster.list(kind, ALL_NAMESPACES):
                conditions = (resource.get("status") or {}).get("conditions") or []
                ready += any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
        return ready

    async def _listed(self, kind: str) -> list[Json]:
        """Return our objects of all namespaces in whole: the operator's own list leaves out what it does not need."""
        client, resource = self.cluster._client, self.cluster._resources[kind]  # noqa: SLF001 - it has no such question
        return [item async for item in client.list(resource, namespace=ALL_NAMESPACES, labels=OURS)]

    async def _end(self, namespace: str, pod: str) -> None:
        client, resource = self.cluster._client, self.cluster._resources["Pod"]  # noqa: SLF001 - it waits for no kubelet
        await client.delete(resource, pod, namespace=namespace, grace_period=0)

    async def _start(self, deployment: Json) -> None:
        self._started += 1
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        namespace, name = metadata["namespace"], f"{metadata['name']}-1"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": template["metadata"]["labels"]},
            "spec": {**template["spec"], "nodeName": "node"},
        }
        await self.cluster.create(pod)
        address = self.address(namespace)
        ready = [{"type": "Ready", "status": "True"}]
        running = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}
        await self._status(f"/api/v1/namespaces/{namespace}/pods/{name}/status", running)
        counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), 1)
        counts["observedGeneration"] = metadata["generation"]
        await self._status(f"/apis/apps/v1/namespaces/{namespace}/deployments/{metadata['name']}/status", counts)

    async def _status(self, path: str, status: Json) -> None:
        http = self.cluster._client._client._client  # noqa: SLF001 - statuses of others' objects are not its business
        headers = {"Content-Type": "application/merge-patch+json"}
        (await http.patch(path, json={"status": status}, headers=headers)).raise_for_status()


def seconds_of(pid: int) -> float:
    """Return the processor time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def writes(server: ApiServer, offset: int, user: str) -> list[str]:
    """Return the writes but those to Leases that are in the audit log from `offset` on, as verb, kind and name."""
    with server.audit_log.open("rb") as log:
        log.seek(offset)
        events = [json.loads(line) for line in log if user.encode() in line]
    written = [(event["verb"], event["objectRef"]) for event in events if event["verb"] not in {"get", "list", "watch"}]
    parts = ("namespace", "resource", "name", "subresource")
    return [
        " ".join([verb, *(ref[part] for part in parts if part in ref)])
        for verb, ref in written
        if ref["resource"] != "leases"
    ]


def prepare(server: ApiServer, folder: Path) -> str:
    """Install the CRDs, and a ServiceAccount for the operator; return its user name, and write its kubeconfig."""
    import yaml  # noqa: PLC0415 - here alone

    def kubectl(*arguments: str) -> str:
        command = [*server.kubectl, f"--kubeconfig={server.kubeconfig}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    files = [part for path in sorted((ROOT / "crds").glob("*.yaml")) for part in ("--filename", str(path))]
    kubectl("apply", "--server-side", *files)
    kubectl("wait", "--for=condition=Established", "crd", "--all")
    for name in (PLATFORM, ROUTES):
        kubectl("create", "namespace", name)
    kubectl("create", "serviceaccount", "assistant-operator", "-n", PLATFORM)
    account = f"--serviceaccount={PLATFORM}:assistant-operator"
    kubectl("create", "clusterrolebinding", "bench", "--clusterrole=cluster-admin", account)
    config = yaml.safe_load(server.kubeconfig.read_text())
    token = kubectl("create", "token", "assistant-operator", "-n", PLATFORM, "--duration=8h")
    config["users"][0]["user"] = {"token": token}
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    (folder / "token").write_text("operator-token\n")
    (folder / "catalog.yaml").write_text("providers: {demo: {url: 'http://127.0.0.1:1/v1'}}")
    return f"system:serviceaccount:{PLATFORM}:assistant-operator"


async def allow_locks(postgres: stores.Postgres) -> None:
    """Let tenants' databases take the lock of which migrations of older commits made use; it is closed by now."""
    connection = await asyncpg.connect(postgres.superuser_dsn, database="template1")
    try:
        await connection.execute("GRANT EXECUTE ON FUNCTION pg_advisory_xact_lock(bigint) TO PUBLIC")
    finally:
        await connection.close()


@asynccontextmanager
async def operator(checkout: Path, environment: dict[str, str], port: int) -> AsyncIterator[int]:
    """Run the operator of a checkout; yield its process id."""
    path = os.pathsep.join(str(checkout / room) for room in ROOMS)
    command = [sys.executable, str(Path(__file__).with_name("operator_main.py")), str(port)]
    migrations = {"OPERATOR_MIGRATIONS_DIR": str(checkout / "api/assistant_api/database/migrations")}
    process = await asyncio.create_subprocess_exec(*command, env={**environment, **migrations, "PYTHONPATH": path})
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def measure(tenants: int, seconds: int, checkouts: dict[str, Path]) -> list[tuple[str, float, list[str]]]:
    """Return of each checkout its name, its share of a core in per cent, and its writes."""
    found = []
    async with AsyncExitStack() as stack:
        server = stack.enter_context(apiserver())
        postgres, redis = stack.enter_context(stores.postgres()), stack.enter_context(stores.redis())
        weaviate = stack.enter_context(stores.weaviate())
        await allow_locks(postgres)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        user = prepare(server, folder)
        os.environ["KUBECONFIG"] = str(server.kubeconfig)
        world = World(Cluster.connect(lambda: None), tenants)
        port, metrics = stores.free_ports(2)
        gateway = await world.serve(port)
        stack.push_async_callback(world.close)
        await world.make()
        environment = os.environ | {
            "KUBECONFIG": str(folder / "kubeconfig"),
            "OPERATOR_NAMESPACE": PLATFORM,
            "OPERATOR_ROUTES_NAMESPACE": ROUTES,
            "OPERATOR_POD_NAME": "operator-bench",
            "OPERATOR_POSTGRES_DSN": postgres.dsn,
            "OPERATOR_REDIS_URL": redis.operator_url,
            "OPERATOR_WEAVIATE_URL": weaviate.url,
            "OPERATOR_WEAVIATE_GRPC": weaviate.grpc,
            "OPERATOR_WEAVIATE_API_KEY": weaviate.api_key,
            "OPERATOR_TENANT_POSTGRES": postgres.address,
            "OPERATOR_TENANT_REDIS": redis.address,
            "OPERATOR_TENANT_WEAVIATE_URL": weaviate.url,
            "OPERATOR_TENANT_WEAVIATE_GRPC": weaviate.grpc,
            "OPERATOR_GATEWAY_URL": f"http://127.0.0.1:{gateway}",
            "OPERATOR_GATEWAY_TOKEN_FILE": str(folder / "token"),
            "OPERATOR_CATALOG_FILE": str(folder / "catalog.yaml"),
            "OPERATOR_API_IMAGE": "localhost/assistant-platform/api:bench",
            "OPERATOR_METRICS_PORT": str(metrics),
        }
        for name, checkout in checkouts.items():
            async with operator(checkout, environment, port) as pid:
                await world.rest(tenants)
                offset, before, started = server.audit_log.stat().st_size, seconds_of(pid), time.monotonic()
                await asyncio.sleep(seconds)
                share = (seconds_of(pid) - before) / (time.monotonic() - started) * 100
                found.append((name, share, writes(server, offset, user)))
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--against", default="")
    chosen = parser.parse_args()
    checkouts = {"this checkout": ROOT}
    with tempfile.TemporaryDirectory() as folder:
        if chosen.against:
            old = Path(folder) / "old"
            archive = subprocess.run(["git", "archive", chosen.against], cwd=ROOT, check=True, capture_output=True)
            old.mkdir()
            subprocess.run(["tar", "-x", "-C", str(old)], input=archive.stdout, check=True)
            checkouts = {chosen.against: old, **checkouts}
        found = asyncio.run(measure(chosen.tenants, chosen.seconds, checkouts))
    print(f"{chosen.tenants} tenants at rest, {chosen.seconds} s each")
    for name, share, written in found:
        print(f"{name:20} {share:6.2f} % of a core, {len(written)} writes, {share / found[0][1]:.2f} of {found[0][0]}")
        print(*(f"    {write}" for write in written[:SHOWN]), sep="\n", end="\n" if written else "")


if __name__ == "__main__":
    main()
