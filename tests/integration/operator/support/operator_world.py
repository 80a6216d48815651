"""The world around an operator under test: a gateway and a kubelet that answer as the real ones would.

The API server and the stores are real. There is no kubelet and no controller behind that API server, so `Node` makes
the pods of Deployments, and takes them away, and its pods serve the ConfigMap of their namespace on `/readyz`.
"""

import asyncio
import base64
import contextlib
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from lightkube.core.exceptions import ApiError

from assistant_crds import naming
from assistant_crds.contracts import ModelProbe, Readiness, TenantPolicy, TenantProbe, TenantUsage, encode
from assistant_operator.adapters.cluster import ALL_NAMESPACES, Cluster
from assistant_operator.main import Operator

TRANSITIONS = frozenset({"Progressing", "Ready"})  # reasons of Events that tell how a resource becomes ready

OURS = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}
OBJECTS = ("Deployment", "Service", "ConfigMap", "Secret", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget")
SECRETS = (naming.STORES_SECRET, naming.API_KEY_SECRET, naming.ADMIN_SECRET)
LOOK_SECONDS = 0.5
ROUTES = "r-"  # the namespaces in which these tests' gateways find their policies begin so
# For what takes a second or two on an idle machine. Less than the minute after which the operator looks again at what
# is not Ready, and than the resync: what is waited for comes from an event.
PATIENCE_SECONDS = 40
_addresses = itertools.count(2)


@dataclass
class Gateway:
    """Answers probes from the policies in the routes namespace, as the real gateway does."""

    cluster: Cluster
    routes_namespace: str
    port: int = 0
    unreachable: set[str] = field(default_factory=set)  # names of assistants and knowledge bases
    down: bool = False
    usage: TenantUsage | None = None

    @contextlib.asynccontextmanager
    async def serve(self):
        app = web.Application()
        app.router.add_get("/internal/v1/tenants/{namespace}/probe", self._probe)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _probe(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer operator-token"
        if self.down:
            return web.Response(status=500)
        labels = {**OURS, naming.LABEL_TENANT: request.match_info["namespace"]}
        for secret in await self.cluster.list("Secret", self.routes_namespace, labels):
            policy = msgspec.json.decode(base64.b64decode(secret["data"][naming.POLICY_KEY]), type=TenantPolicy)
            probe = TenantProbe(
                generation=policy.generation,
                assistants={name: self._model(name) for name in policy.assistants},
                knowledge_bases={name: self._model(name) for name in policy.knowledge_bases},
                usage=self.usage,
            )
            return web.Response(body=encode(probe))
        return web.Response(status=404)

    def _model(self, name: str) -> ModelProbe:
        if name in self.unreachable:
            return ModelProbe(reachable=False, reason="ProviderUnreachable", message=f"Model of {name}: no answer.")
        return ModelProbe(reachable=True, reason="Reachable", message="The model's provider answers.")


@dataclass
class Node:
    """Makes pods for Deployments in one namespace; each pod has an address of its own on the loopback interface."""

    cluster: Cluster
    namespace: str
    port: int
    broken: dict[str, Any] | None = None  # a container state for new pods instead of a running one
    frozen: bool = False  # pods keep the configuration they have
    keeps_pods: bool = False  # pods do not end
    _servers: dict[str, tuple[web.AppRunner, dict[str, str]]] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextlib.asynccontextmanager
    async def run(self):
        changed = asyncio.Event()
        tasks = [asyncio.create_task(self._watch(kind, changed)) for kind in ("Deployment", "Pod", "ConfigMap")]
        tasks.append(asyncio.create_task(self._loop(changed)))
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for runner, _ in self._servers.values():
                await runner.cleanup()
            for error in ended:
                if not isinstance(error, asyncio.CancelledError):
                    raise error  # a node that stands still makes whatever waits for it fail without a reason

    async def _watch(self, kind: str, changed: asyncio.Event) -> None:
        client, resource = self.cluster._client, self.cluster._resources[kind]
        while True:
            with contextlib.suppress(ApiError):  # an API server that only just began knows no version of some kinds
                async for _ in client.watch(resource, namespace=self.namespace, labels=OURS):
                    changed.set()
            await asyncio.sleep(0.1)

    async def _loop(self, changed: asyncio.Event) -> None:
        while True:
            changed.clear()
            await self.step()
            with contextlib.suppress(TimeoutError):  # a test may have changed one of the node's own settings
                async with asyncio.timeout(LOOK_SECONDS):
                    await changed.wait()

    async def step(self) -> bool:
        """Do what the controllers and the kubelet would; return whether there was anything to be done."""
        async with self._turn:
            deployments, pods = await asyncio.gather(
                self.cluster.list("Deployment", self.namespace, OURS), self.cluster.list("Pod", self.namespace, OURS)
            )
            wanted = {deployment["metadata"]["name"]: deployment for deployment in deployments}
            did = False
            for pod in pods:
                deployment = wanted.get(pod["metadata"]["labels"][naming.LABEL_NAME])
                if self.keeps_pods:
                    continue
                if deployment is None or pod["metadata"]["annotations"]["template"] != self._template(deployment):
                    await self._remove(pod)
                    did = True
            for name, deployment in wanted.items():
                mine = [pod for pod in pods if pod["metadata"]["labels"][naming.LABEL_NAME] == name]
                if len(mine) < deployment["spec"]["replicas"]:
                    await self._start(deployment)
                    did = True
                ready = sum(pod.get("status", {}).get("phase") == "Running" for pod in mine)
                did |= await self._deployment_status(deployment, ready)
            return await self._reload() or did

    @staticmethod
    def _template(deployment: dict[str, Any]) -> str:
        return json.dumps(deployment["spec"]["template"], sort_keys=True)

    async def _start(self, deployment: dict[str, Any]) -> None:
        name = f"{deployment['metadata']['name']}-{next(_addresses)}"
        address = f"127.0.{hash(self.namespace) % 200 + 1}.{next(_addresses) % 250 + 2}"
        template = deployment["spec"]["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": template["metadata"]["labels"],
                "annotations": {"template": self._template(deployment)},
            },
            "spec": {**template["spec"], "nodeName": "node"},
        }
        await self.cluster.create(pod)
        status: dict[str, Any] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        status["conditions"] = [{"type": "Ready", "status": "True"}]
        if self.broken is not None:
            container = template["spec"]["containers"][0]
            state = {"name": container["name"], "image": container["image"], "ready": False, "restartCount": 0}
            status = {"phase": "Pending", "containerStatuses": [{**state, "imageID": "", "state": self.broken}]}
        elif deployment["metadata"]["name"] == naming.API:
            await self._serve(name, address)
        await self._status("pods", "v1", name, status)

    async def _serve(self, pod: str, address: str) -> None:
        state = {"generation": await self._generation()}

        async def readyz(_request: web.Request) -> web.Response:
            return web.Response(
                body=encode(Readiness(status="ready", config_generation=state["generation"], checks={"gateway": "ok"}))
            )

        app = web.Application()
        app.router.add_get("/readyz", readyz)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, address, self.port).start()
        self._servers[pod] = (runner, state)

    async def _reload(self) -> bool:
        if self.frozen or not self._servers:
            return False
        generation = await self._generation()
        stale = [state for _, state in self._servers.values() if state["generation"] != generation]
        for state in stale:
            state["generation"] = generation
        return bool(stale)

    async def _generation(self) -> str:
        config_map = await self.cluster.get("ConfigMap", naming.CONFIG_MAP, self.namespace)
        return json.loads(config_map["data"][naming.CONFIG_KEY])["generation"] if config_map else ""

    async def _remove(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        if name in self._servers:
            runner, _ = self._servers.pop(name)
            await runner.cleanup()
        await delete_at_once(self.cluster, "Pod", name, self.namespace)

    async def _deployment_status(self, deployment: dict[str, Any], ready: int) -> bool:
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": ready,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "updatedReplicas": ready,
        }
        live = deployment.get("status") or {}
        if all(live.get(key, 0) == value for key, value in status.items()):
            return False
        await self._status("deployments", "apps/v1", deployment["metadata"]["name"], status)
        return True

    async def _status(self, plural: str, version: str, name: str, status: dict[str, Any]) -> None:
        prefix = "/api/v1" if version == "v1" else f"/apis/{version}"
        http = self.cluster._client._client._client
        answer = await http.patch(
            f"{prefix}/namespaces/{self.namespace}/{plural}/{name}/status",
            json={"status": status},
            headers={"Content-Type": "application/merge-patch+json"},
        )
        if answer.status_code not in {200, 404}:
            raise AssertionError(answer.text)


async def all_objects(cluster: Cluster, namespace: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return our objects in a namespace."""
    listed = await asyncio.gather(*(cluster.list(kind, namespace, OURS) for kind in OBJECTS))
    return {(obj["kind"], obj["metadata"]["name"]): obj for objects in listed for obj in objects}


async def delete_at_once(cluster: Cluster, kind: str, name: str, namespace: str | None) -> None:
    """Delete an object, if it is there; a pod does not wait for a kubelet to end it."""
    with contextlib.suppress(ApiError):
        await cluster._client.delete(cluster._resources[kind], name, namespace=namespace, grace_period=0)


async def remove_tenants(cluster: Cluster) -> None:
    """Remove every tenant's resources and objects.

    An operator sees the whole cluster. It would take up what other tests left, or tear it down: more than a hundred
    namespaces whose pods no node ends, and its own test waits meanwhile.
    """

    async def remove(kind: str, labels: dict[str, str] | None) -> None:
        for obj in await cluster.list(kind, None if kind == "Tenant" else ALL_NAMESPACES, labels):
            metadata = obj["metadata"]
            namespace = metadata.get("namespace")
            if kind == "Secret" and not (metadata["name"] in SECRETS or namespace.startswith(ROUTES)):
                continue  # a policy of a gateway under test
            if metadata.get("finalizers"):
                await cluster.patch_metadata(kind, obj, {"finalizers": []})
            await delete_at_once(cluster, kind, metadata["name"], namespace)

    await asyncio.gather(*(remove(kind, None) for kind in ("Assistant", "KnowledgeBase", "Tenant")))
    await asyncio.gather(*(remove(kind, OURS) for kind in (*OBJECTS, "Pod")))


def condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return one condition of a resource; an empty one when it has none."""
    conditions = (resource.get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item["type"] == kind), {})


def read_token(folder: Path) -> Path:
    """Return a file with the operator's token for the gateway."""
    file = folder / "token"
    file.write_text("operator-token\n")
    return file


async def eventually(check, seconds=PATIENCE_SECONDS):
    """Return the first true answer of an asynchronous question, asked again and again."""
    async with asyncio.timeout(seconds):
        while not (answer := await check()):  # noqa: ASYNC110 - the question is about another process
            await asyncio.sleep(0.05)
        return answer


@contextlib.asynccontextmanager
async def running(settings, pod_port):
    """Run an operator, and stop it in good order."""
    operator = Operator(settings, pod_port)
    task = asyncio.create_task(operator.run())
    try:
        yield operator
    finally:
        operator.stop()
        operator.code = await asyncio.wait_for(task, 30)
