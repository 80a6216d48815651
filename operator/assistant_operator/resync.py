"""The full list-and-compare: every tenant is looked at now and then, whatever the watches said or missed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from assistant_crds import naming
from assistant_observability import logs, metrics
from assistant_operator.adapters.cluster import ALL_NAMESPACES
from assistant_operator.errors import ClusterError, ClusterUnreachableError
from assistant_operator.identity import publish
from assistant_operator.liveness import Liveness
from assistant_operator.reconcile.context import Context
from assistant_operator.tenant.snapshot import Json

# After a failed list; until one succeeds, everything is unknown.
RETRY_SECONDS = 5.0
_log = logs.logger(__name__)


class Resync:
    """Finds every namespace that has, or may have left, anything of ours, and adds it to the queue."""

    def __init__(self, context: Context, add: Callable[[str, float], None], liveness: Liveness) -> None:
        self._context = context
        self._add = add
        self._liveness = liveness

    async def watch(self) -> None:
        """Add every tenant at once, and again every `resync_seconds`, for ever."""
        spread = 0.0
        while True:
            try:
                await publish(self._context)
                namespaces = await self.namespaces()
            except (ClusterError, ClusterUnreachableError) as error:
                _log.warning("the resources cannot be listed", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for namespace in namespaces:
                self._add(namespace, random.uniform(0, spread))  # noqa: S311 - spreads load, no secret
            # At the start all are wanted at once; later on the load is spread evenly.
            spread = self._context.settings.resync_seconds / 2
            await asyncio.sleep(self._context.settings.resync_seconds)

    async def namespaces(self) -> set[str]:
        """Return the namespaces of all resources, and of all records in the routes namespace."""
        cluster = self._context.cluster
        assistants, knowledge_bases, tenants, records = await asyncio.gather(
            cluster.list("Assistant", ALL_NAMESPACES),
            cluster.list("KnowledgeBase", ALL_NAMESPACES),
            cluster.list("Tenant", None),
            cluster.list(
                "Secret",
                self._context.settings.routes_namespace,
                {naming.LABEL_MANAGED_BY: naming.MANAGED_BY},
            ),
        )
        for kind, resources in (("Assistant", assistants), ("KnowledgeBase", knowledge_bases), ("Tenant", tenants)):
            _measure(kind, resources)
            self._liveness.listed(resources)
        self._liveness.heard()
        return {
            *(str(resource["metadata"]["namespace"]) for resource in (*assistants, *knowledge_bases)),
            *(str(tenant["metadata"]["name"]) for tenant in tenants),
            *(str((record["metadata"].get("labels") or {}).get(naming.LABEL_TENANT, "")) for record in records),
        } - {""}


def _measure(kind: str, resources: list[Json]) -> None:
    ready = sum(
        condition["type"] == "Ready" and condition["status"] == "True"
        for resource in resources
        for condition in (resource.get("status") or {}).get("conditions") or []
    )
    metrics.RESOURCES.labels(kind, "true").set(ready)
    metrics.RESOURCES.labels(kind, "false").set(len(resources) - ready)
