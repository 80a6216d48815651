"""Ask whether it works: the gateway about policy and models, every running pod about the configuration it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from assistant_crds import naming
from assistant_operator.errors import ProbeError, StoreUnreachableError
from assistant_operator.reconcile.context import Context
from assistant_operator.status.workload import is_ready, running
from assistant_operator.tenant.observation import Counts, GatewayView, PodReadiness
from assistant_operator.tenant.snapshot import Json, name_of

# Seconds before each question to a Service: a node may take a moment to learn of a pod that only just became ready.
SERVICE_TRIES = (0.0, 0.5)


async def ask_gateway(namespace: str, context: Context) -> GatewayView:
    """Return the gateway's view of the tenant."""
    try:
        return GatewayView(await context.probes.gateway(namespace))
    except ProbeError as error:
        return GatewayView(None, str(error))


async def ask_pods(pods: list[Json], context: Context) -> list[PodReadiness]:
    """Return what every running pod of the API says, in the order of their names."""

    async def ask(pod: Json) -> PodReadiness:
        name, in_service = name_of(pod), is_ready(pod)
        try:
            readiness = await context.probes.pod(pod["status"]["podIP"])
        except ProbeError as error:
            return PodReadiness(name, in_service, ready=False, generation="", detail=str(error))
        # "ok" is left out: only what does not work is of interest.
        missing = "; ".join(f"{part}: {state}" for part, state in sorted(readiness.checks.items()) if state != "ok")
        return PodReadiness(name, in_service, readiness.status == "ready", readiness.config_generation, missing)

    return list(await asyncio.gather(*(ask(pod) for pod in running(pods, naming.API))))


async def ask_service(owned: Mapping[tuple[str, str], Json], pods: list[PodReadiness], context: Context) -> str:
    """Return why clients get no answer from the tenant's Service; empty when they do, or when no pod serves anyway.

    Pods that answer prove nothing to a client: a selector, an endpoint or a rule on the way may be wrong.
    """
    service = owned.get(("Service", naming.API))
    address = ((service or {}).get("spec") or {}).get("clusterIP") or ""
    if not address or address == "None" or not any(pod.in_service and pod.ready for pod in pods):
        return ""
    problem = ""
    for wait in SERVICE_TRIES:
        await asyncio.sleep(wait)
        try:
            await context.probes.service(address)
        except ProbeError as error:
            problem = str(error)
        else:
            return ""
    return problem


async def count(tenant: str, knowledge_bases: frozenset[str], context: Context) -> dict[str, Counts]:
    """Return what each knowledge base holds; nothing at all when a store does not answer."""
    if not knowledge_bases or context.health.error("postgres") or context.health.error("weaviate"):
        return {}
    keys = sorted(knowledge_bases)
    try:
        rows, vectors = await asyncio.gather(
            context.postgres.rows(tenant, keys), asyncio.gather(*(context.weaviate.vectors(key) for key in keys))
        )
    except StoreUnreachableError:
        return {}
    counts = {}
    for key, number in zip(keys, vectors, strict=True):
        row = rows.get(key)
        counts[key] = Counts(
            documents=row.documents if row else 0,
            pending=row.pending if row else 0,
            failed=row.failed if row else 0,
            chunks=row.chunks if row else 0,
            vectors=number,
            outdated=row.outdated if row else 0,
        )
    return counts
