"""Remove what single knowledge bases left in the stores when their resources went without the operator's finalizer.

An editor may take the finalizer away before the deletion, or a resource may go while no operator runs and admission is
off. The stores are compared with the resources now and then; only keys that derive from this tenant are touched.
"""

from __future__ import annotations

from assistant_crds import naming
from assistant_observability import logs
from assistant_operator.errors import StoreUnreachableError
from assistant_operator.reconcile.context import Context
from assistant_operator.tenant.snapshot import Json, Snapshot

_log = logs.logger(__name__)


async def sweep(tenant: str, snapshot: Snapshot, context: Context) -> bool:
    """Compare stores and resources unless that was done a short while ago; return whether anything was removed."""
    now = context.monotonic()
    known = _keys(tenant, snapshot.knowledge_bases)
    gone = context.memory.bases.get(tenant, known) - known
    if not gone and context.memory.swept.get(tenant, 0.0) > now:
        return False
    if any(context.health.error(store) for store in ("postgres", "weaviate")):
        return False
    try:
        removed = await _sweep(tenant, known, snapshot.namespace, context)
    except StoreUnreachableError as error:  # said by the steps that every run does
        _log.info("knowledge bases were not compared", tenant=tenant, store=error.store, error=error.detail)
        return False
    context.memory.swept[tenant] = now + context.settings.resync_seconds * 0.9
    context.memory.bases[tenant] = known
    return removed


async def _sweep(tenant: str, known: frozenset[str], namespace: str, context: Context) -> bool:
    left = {*await context.weaviate.knowledge_bases(tenant), *await context.postgres.strangers(tenant, known)} - known
    if not left:
        return False
    # Asked once more: nothing is removed on the word of one list.
    left -= _keys(tenant, await context.cluster.list("KnowledgeBase", namespace))
    for key in sorted(left):
        vectors = await context.weaviate.vectors(key)
        await context.weaviate.remove_knowledge_base(key)
        documents = await context.postgres.forget(tenant, key)
        _log.warning(
            "a knowledge base that went without its clean-up was removed",
            tenant=tenant,
            knowledge_base=key,
            vectors=vectors,
            documents=documents,
        )
    return bool(left)


def _keys(tenant: str, knowledge_bases: list[Json]) -> frozenset[str]:
    return frozenset(naming.knowledge_base_key(tenant, raw["metadata"]["uid"]) for raw in knowledge_bases)
