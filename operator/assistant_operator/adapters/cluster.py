"""The Kubernetes API, by kind and as plain JSON objects. All writes of the operator to the cluster go through here."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import httpx2
import lightkube
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.types import CascadeType, PatchType

from assistant_crds import naming
from assistant_observability import metrics
from assistant_operator.errors import ClusterError, ClusterUnreachableError
from assistant_operator.tenant.snapshot import Json

TIMEOUT_SECONDS = 8.0

_NAMESPACED = {
    "Assistant": (naming.GROUP, naming.VERSION, "assistants"),
    "KnowledgeBase": (naming.GROUP, naming.VERSION, "knowledgebases"),
    "Deployment": ("apps", "v1", "deployments"),
    "Service": ("", "v1", "services"),
    "ConfigMap": ("", "v1", "configmaps"),
    "Secret": ("", "v1", "secrets"),
    "ServiceAccount": ("", "v1", "serviceaccounts"),
    "Pod": ("", "v1", "pods"),
    "Event": ("", "v1", "events"),
    "NetworkPolicy": ("networking.k8s.io", "v1", "networkpolicies"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
    "Lease": ("coordination.k8s.io", "v1", "leases"),
}
_GLOBAL = {
    "Tenant": (naming.GROUP, naming.VERSION, "tenants"),
    "Namespace": ("", "v1", "namespaces"),
}
ALL_NAMESPACES = "*"
PAGE = 100  # objects that are held in whole at once when many are listed
_LEASES = re.compile(r"/leases(/[^/]*)?$")


@cache  # the library registers each kind once per process
def _resources() -> dict[str, Any]:
    namespaced = {
        kind: create_namespaced_resource(group, version, kind, plural)
        for kind, (group, version, plural) in _NAMESPACED.items()
    }
    return namespaced | {
        kind: create_global_resource(group, version, kind, plural) for kind, (group, version, plural) in _GLOBAL.items()
    }


class Cluster:
    """Reads and writes of Kubernetes objects. A missing object reads as None; refusals raise ClusterError."""

    def __init__(self, client: Any, guard: Callable[[], None]) -> None:
        self._client = client
        self._guard = guard
        self._resources = _resources()

    @classmethod
    def connect(cls, guard: Callable[[], None], answered: Callable[[], None] = lambda: None) -> Cluster:
        """Return a cluster reached by the pod's ServiceAccount, or by `KUBECONFIG` outside of one.

        Args:
            guard: raises when this operator may not write; asked before each write, and once more as it is sent.
            answered: called whenever the API server answers.
        """
        client: Any = lightkube.AsyncClient(
            timeout=httpx2.Timeout(TIMEOUT_SECONDS), field_manager=naming.FIELD_MANAGER, trust_env=True
        )
        hooks = client._client._client.event_hooks  # noqa: SLF001 - lightkube has no way to set them

        async def fence(request: httpx2.Request) -> None:
            if request.method != "GET" and not _LEASES.search(request.url.path):
                request.extensions["trace"] = _fence(guard)

        async def heard(_response: httpx2.Response) -> None:
            answered()

        client._client._client.event_hooks = {  # noqa: SLF001
            "request": [*hooks.get("request", []), fence],
            "response": [*hooks.get("response", []), heard],
        }
        return cls(client, guard)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Json | None:
        """Return the object, or None."""
        try:
            async with _errors(f"{kind}/{name}"):
                found: Json = await self._client.get(self._resources[kind], name, namespace=namespace)
                return found
        except ClusterError as error:
            if error.code == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str | None, labels: dict[str, str] | None = None) -> list[Json]:
        """Return all objects of a kind; `ALL_NAMESPACES` lists the whole cluster, None is for cluster-wide kinds."""
        selector: Any = labels
        group, version, _ = (_NAMESPACED | _GLOBAL)[kind]
        # Lists of the whole cluster are used without the specifications, of which there may be many large ones.
        kept = _outline if namespace == ALL_NAMESPACES else _as_it_is
        # The API server leaves these out of the items of a list.
        header = {"apiVersion": f"{group}/{version}" if group else version, "kind": kind}
        async with _errors(kind):
            return [
                {**kept(item), **header}
                async for item in self._client.list(
                    self._resources[kind], namespace=namespace, labels=selector, chunk_size=PAGE
                )
            ]

    async def apply(self, obj: Json, *, force: bool = True) -> Json:
        """Create the object, or make its fields be as given: server-side apply as our one field manager.

        Without `force` the API server refuses with 409 to change a field that another manager set.
        """
        kind, name = obj["kind"], obj["metadata"]["name"]
        return await self._write(
            "apply",
            kind,
            name,
            lambda: self._client.patch(
                self._resources[kind],
                name,
                obj,
                namespace=obj["metadata"].get("namespace"),
                patch_type=PatchType.APPLY,
                field_manager=naming.FIELD_MANAGER,
                force=force,
            ),
        )

    async def patch(self, kind: str, live: Json, operations: Sequence[Json]) -> Json:
        """Do the operations of RFC 6902 on the object as it was read; refused with 409 when it changed meanwhile."""
        metadata = live["metadata"]
        unchanged = {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]}
        return await self._write(
            "patch",
            kind,
            metadata["name"],
            lambda: self._client.patch(
                self._resources[kind],
                metadata["name"],
                [unchanged, *operations],
                namespace=metadata.get("namespace"),
                patch_type=PatchType.JSON,
                field_manager=naming.FIELD_MANAGER,
            ),
        )

    async def apply_status(self, kind: str, name: str, namespace: str | None, status: Json) -> None:
        """Replace the part of the status that is ours; nothing happens when the object is gone."""
        resource = self._resources[kind]
        obj = {
            "apiVersion": naming.API_VERSION,
            "kind": kind,
            "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
            "status": status,
        }
        await self._write_if_present(
            "apply_status",
            kind,
            name,
            lambda: self._client.patch(
                resource.Status,
                name,
                obj,
                namespace=namespace,
                patch_type=PatchType.APPLY,
                field_manager=naming.FIELD_MANAGER,
                force=True,
            ),
        )

    async def patch_metadata(self, kind: str, obj: Json, metadata: Json) -> None:
        """Merge `metadata` into the object as it was read: refused when it changed meanwhile and lists are replaced.

        Nothing happens when the object is gone.
        """
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")
        fixed = {"uid": obj["metadata"]["uid"]}
        if "finalizers" in metadata:
            fixed["resourceVersion"] = obj["metadata"]["resourceVersion"]
        await self._write_if_present(
            "patch",
            kind,
            name,
            lambda: self._client.patch(
                self._resources[kind],
                name,
                {"metadata": {**metadata, **fixed}},
                namespace=namespace,
                patch_type=PatchType.MERGE,
            ),
        )

    async def delete(self, kind: str, name: str, namespace: str | None) -> None:
        """Delete the object; what hangs on it goes in the background. Nothing happens when it is gone."""
        await self._write_if_present(
            "delete",
            kind,
            name,
            lambda: self._client.delete(
                self._resources[kind], name, namespace=namespace, cascade=CascadeType.BACKGROUND
            ),
        )

    async def create(self, obj: Json) -> Json | None:
        """Create the object; return None when one of that name exists."""
        kind, name, namespace = obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace")
        resource = self._resources[kind]
        try:
            return await self._write(
                "create", kind, name, lambda: self._client.create(resource(obj), namespace=namespace)
            )
        except ClusterError as error:
            if error.code == 409:
                return None
            raise

    async def replace(self, obj: Json) -> Json | None:
        """Replace the object if it still is at its `resourceVersion`; return None when it is not."""
        kind, name, namespace = obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace")
        resource = self._resources[kind]
        try:
            return await self._write(
                "replace", kind, name, lambda: self._client.replace(resource(obj), name, namespace=namespace)
            )
        except ClusterError as error:
            if error.code in {404, 409}:
                return None
            raise

    async def _write(self, verb: str, kind: str, name: str, call: Callable[[], Any]) -> Json:
        if kind != "Lease":  # who leads is what the Lease decides
            self._guard()
        async with _errors(f"{kind}/{name}"):
            result: Json = await call()
        metrics.CLUSTER_WRITES.labels(kind, verb).inc()
        return result

    async def _write_if_present(self, verb: str, kind: str, name: str, call: Callable[[], Any]) -> None:
        try:
            await self._write(verb, kind, name, call)
        except ClusterError as error:
            if error.code != 404:
                raise


def _as_it_is(item: Json) -> Json:
    return item


def _outline(item: Json) -> Json:
    """Return an object's metadata and status, without what is long and says nothing of its state."""
    metadata = {key: value for key, value in item["metadata"].items() if key not in {"annotations", "managedFields"}}
    return {"metadata": metadata, "status": item.get("status") or {}}


def _fence(guard: Callable[[], None]) -> Callable[[str, Any], Awaitable[None]]:
    """Return what asks again at the last moment: a process may have been stopped between its question and its write."""

    async def trace(name: str, _info: Any) -> None:
        if name.endswith(".send_request_headers.started"):
            guard()

    return trace


@asynccontextmanager
async def _errors(subject: str) -> AsyncIterator[None]:
    try:
        yield
    except ApiError as error:
        raise ClusterError(error.status.code or 0, subject, error.status.message or str(error)) from error
    except httpx2.HTTPStatusError as error:
        raise ClusterError(error.response.status_code, subject, "the API server gave no reason") from error
    except httpx2.HTTPError as error:
        raise ClusterUnreachableError(f"{subject}: {type(error).__name__}") from error
