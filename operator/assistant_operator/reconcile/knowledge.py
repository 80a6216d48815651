"""A KnowledgeBase goes while the tenant stays: its vectors and rows are removed, counted, and a receipt is left.

Assistants being deleted need nothing but to be left out of the configuration, which has happened by now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from assistant_crds import naming
from assistant_observability import logs
from assistant_operator.errors import StoreUnreachableError
from assistant_operator.queue import Result
from assistant_operator.reconcile import events, finalizers
from assistant_operator.reconcile.context import Context, timestamp
from assistant_operator.reconcile.report import write
from assistant_operator.status import deleting
from assistant_operator.tenant.observation import Observation
from assistant_operator.tenant.resolve import ResolvedKnowledgeBase
from assistant_operator.tenant.snapshot import Json, has_finalizer, is_deleting, name_of
from assistant_operator.tenant.state import Tenant

# For how long running pods may take to let go of a knowledge base before it is removed under them.
LET_GO_SECONDS = 30
REINDEX_LENGTH = 100  # characters of the annotation's value that are compared
_log = logs.logger(__name__)


@dataclass(frozen=True)
class Receipt:
    """What was removed with a knowledge base. Counted before (vectors) and by the removal itself (documents)."""

    vectors: int
    documents: int


async def finish_deletions(tenant: Tenant, context: Context) -> Result:
    """Finish the deletion of single resources of a tenant that stays."""
    snapshot = tenant.snapshot
    changed = await finalizers.remove((item for item in snapshot.assistants if is_deleting(item)), context)
    waiting = False
    for raw in snapshot.knowledge_bases:
        if not is_deleting(raw) or not has_finalizer(raw):
            continue
        reason = _in_use(raw, tenant.observation)
        if not reason:
            try:
                receipt = await _remove(tenant.resolved.identity.key, raw, context)
            except StoreUnreachableError as error:
                reason = f"store {error.store} cannot remove its data: {error.detail}"
            else:
                await leave_receipt(raw, receipt, context)
                await finalizers.remove([raw], context)
                changed = True
        if reason:
            waiting = True
            message = f"KnowledgeBase {name_of(raw)} is being deleted; {reason}"
            changed |= await write(raw, deleting(raw, message, timestamp()), context)
    return Result(requeue=waiting, changed=changed)


async def reindex(tenant: str, bases: Iterable[ResolvedKnowledgeBase], context: Context) -> dict[str, str]:
    """Have documents read again where the annotation asks for it; return what it says, by the key of the base.

    What was acted on stands in the status. Doing it twice is harmless: a status may not have been written.
    """
    done = {}
    for base in bases:
        asked = ((base.raw["metadata"].get("annotations") or {}).get(naming.ANNOTATION_REINDEX) or "")[:REINDEX_LENGTH]
        if not asked or asked == (base.raw.get("status") or {}).get("reindexed"):
            continue
        try:
            queued = await context.postgres.reindex(tenant, base.key)
        except StoreUnreachableError:
            continue  # at the next run; the status names the store
        _log.info("documents are read again", knowledge_base=name_of(base.raw), documents=queued)
        done[base.key] = asked
    return done


async def leave_receipt(raw: Json, receipt: Receipt, context: Context) -> None:
    """Say what was removed, in the log and as an Event of the knowledge base; the same Event is never made twice."""
    name = name_of(raw)
    _log.info("knowledge base removed", knowledge_base=name, vectors=receipt.vectors, documents=receipt.documents)
    message = f"Removed {receipt.vectors} vectors and {receipt.documents} documents."
    suffix = f"removed.{raw['metadata']['uid'][:8]}"
    # In a namespace that goes away itself it cannot be made; the log has the receipt.
    await events.create(events.build(raw, suffix, "Normal", "KnowledgeRemoved", message, timestamp()), context)


def _in_use(raw: Json, observation: Observation) -> str:
    """Return which pod still has the knowledge base in its configuration, unless it had time enough to let go."""
    since = datetime.fromisoformat(raw["metadata"]["deletionTimestamp"])
    if (datetime.now(UTC) - since).total_seconds() > LET_GO_SECONDS:
        return ""
    for pod in observation.pods:
        if pod.generation != observation.config_generation:
            return f"pod {pod.name} still serves it."
    return ""


async def _remove(tenant: str, raw: Json, context: Context) -> Receipt:
    key = naming.knowledge_base_key(tenant, raw["metadata"]["uid"])
    vectors = await context.weaviate.vectors(key)
    await context.weaviate.remove_knowledge_base(key)
    documents = await context.postgres.forget(tenant, key)
    return Receipt(vectors, documents)
