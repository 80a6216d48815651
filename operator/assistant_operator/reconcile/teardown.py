"""Take away everything of a tenant, in an order that can be resumed at any point.

First the gateway stops letting it through and its pods go; then vectors, keys, database and their users; then the
objects in its namespace; then the record of it in the routes namespace; the finalizers last. Names in the stores
derive from the namespace's UID, so nothing but that is needed to find what is left, also after the namespace went.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from assistant_crds import naming
from assistant_crds.contracts import TenantIdentity, TenantPolicy
from assistant_observability import logs
from assistant_operator.desired import policy
from assistant_operator.desired.compare import is_applied, with_digest
from assistant_operator.errors import StoreUnreachableError
from assistant_operator.measures import show
from assistant_operator.queue import Result
from assistant_operator.reconcile import finalizers, stores
from assistant_operator.reconcile.context import Context
from assistant_operator.reconcile.knowledge import Receipt, leave_receipt
from assistant_operator.reconcile.objects import Problems
from assistant_operator.reconcile.report import report_deleting, report_idle
from assistant_operator.tenant.snapshot import Json, Snapshot, has_finalizer, is_deleting, name_of

# For how long the gateway is waited for to move a tenant's last calls to Postgres. Its bill would lack them otherwise;
# but if no gateway runs, or none can, the tenant has to go all the same.
LEDGER_SECONDS = 120
# For how long after the end of its grace period a pod is waited for: its node may be gone.
OVERTIME_SECONDS = 30
# For how long a pod without a deletion time is waited for: the cluster's controllers may be slow.
ORPHAN_SECONDS = 90
_log = logs.logger(__name__)


async def teardown(snapshot: Snapshot, context: Context) -> Result:
    """Remove the tenant that the namespace holds now, or held until it went."""
    for memory in (context.memory.reported, context.memory.configs, context.memory.policies):
        memory.pop(snapshot.namespace, None)
    if (measured := context.memory.measured.pop(snapshot.namespace, None)) is not None:
        show(snapshot.namespace, measured, {})
    held = [resource for resource in snapshot.resources if has_finalizer(resource)]
    if snapshot.uid is None:
        return Result(changed=await report_idle(snapshot, context))
    identity = TenantIdentity(namespace=snapshot.namespace, uid=snapshot.uid, key=naming.tenant_key(snapshot.uid))
    records = [record for record in snapshot.policies if name_of(record) == naming.policy_secret(identity.key)]
    if not (held or records or snapshot.owned):
        return Result(changed=await report_idle(snapshot, context))

    problems = Problems(snapshot.namespace, context.memory.shown)
    changed, why = await problems.step("Its removal", _remove(identity, records, snapshot, context), (False, ""))
    why = why or problems.text
    if why:
        # A status that is refused, too, is in the log only.
        changed |= await problems.step("Its status", report_deleting(snapshot, why, context), False)
        return Result(requeue=True, changed=changed)
    await problems.step("Its status", report_idle(snapshot, context), False)
    _log.info("tenant removed", tenant=identity.key)
    return Result(changed=True, requeue=bool(problems.text))


async def _remove(
    identity: TenantIdentity, records: Sequence[Json], snapshot: Snapshot, context: Context
) -> tuple[bool, str]:
    """Remove everything, the finalizers last; return whether anything was written, and what has to be waited for.

    Raises:
        ClusterError: the API server refused something.
    """
    changed = await _close(identity, records, context)
    changed |= await _stop_pods(snapshot, context)
    waiting = _pod_left(identity.key, snapshot.pods, context)
    if waiting:
        return changed, f"Waits for pod {waiting} to end."
    try:
        await _empty_stores(identity, snapshot.knowledge_bases, context)
    except StoreUnreachableError as error:
        message = f"Store {error.store} cannot remove the tenant's data: {error.detail} The operator keeps trying."
        return changed, message
    for kind, name in snapshot.owned:
        await context.cluster.delete(kind, name, snapshot.namespace)
    await context.cluster.delete("Secret", naming.policy_secret(identity.key), context.settings.routes_namespace)
    await finalizers.remove([resource for resource in snapshot.resources if has_finalizer(resource)], context)
    return True, ""


async def teardown_former(snapshot: Snapshot, context: Context) -> Result:
    """Remove tenants that had this namespace's name in an earlier life: only their record is left of them."""
    retry, changed = False, False
    for record in snapshot.policies:
        identity = _recorded(record)
        if identity is None or identity.uid == snapshot.uid:
            continue
        try:
            changed |= await _close(identity, [record], context)  # tokens of its accounts may live on
            await _empty_stores(identity, [], context)
        except StoreUnreachableError as error:
            _log.warning("a former tenant's data is left", tenant=identity.key, store=error.store, error=error.detail)
            retry = True
            continue
        await context.cluster.delete("Secret", name_of(record), context.settings.routes_namespace)
        _log.info("former tenant removed", tenant=identity.key)
        changed = True
    return Result(requeue=retry, changed=changed)


async def _close(identity: TenantIdentity, records: Sequence[Json], context: Context) -> bool:
    """Let nothing through any more. The record stays until the end: it says that there is something to remove."""
    closed = with_digest(policy.secret(policy.closed(identity), context.settings.routes_namespace))
    if is_applied(closed, records[0] if records else None):
        return False
    await context.cluster.apply(closed)
    return True


async def _stop_pods(snapshot: Snapshot, context: Context) -> bool:
    changed = False
    for (kind, name), obj in snapshot.owned.items():
        if kind == "Deployment" and not is_deleting(obj):
            await context.cluster.delete(kind, name, snapshot.namespace)
            changed = True
    return changed


def _pod_left(tenant: str, pods: Sequence[Json], context: Context) -> str:
    """Return the name of a pod that still runs, or is about to; one without a deletion time is not waited for long.

    A pod without a deletion time was only just orphaned, as a rule. It may also be one that somebody made with our
    name and label, which nothing will take away.
    """
    since = context.memory.outlived.setdefault(tenant, context.monotonic())
    patient = context.monotonic() - since < ORPHAN_SECONDS
    for pod in pods:
        if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
            continue
        until = pod["metadata"].get("deletionTimestamp")
        late = None if until is None else (datetime.now(UTC) - datetime.fromisoformat(until)).total_seconds()
        if late is None or late < -ORPHAN_SECONDS:  # no time to end, or a longer one than our pods are given
            if patient:
                return name_of(pod)
            _log.warning("a pod that nothing ends is not waited for", tenant=tenant, pod=name_of(pod))
        elif late < OVERTIME_SECONDS:
            return name_of(pod)
    context.memory.outlived.pop(tenant, None)
    return ""


async def _empty_stores(identity: TenantIdentity, knowledge_bases: Sequence[Json], context: Context) -> None:
    tenant = identity.key
    stores.forget(tenant, context)
    for store in ("weaviate", "redis", "postgres"):
        if context.health.error(store):
            raise StoreUnreachableError(store, context.health.error(store))
    await _wait_for_ledger(tenant, context)
    by_key = {naming.knowledge_base_key(tenant, raw["metadata"]["uid"]): raw for raw in knowledge_bases}
    held = await context.weaviate.knowledge_bases(tenant)
    rows = await context.postgres.retire(tenant, {*held, *by_key})
    for key in held:
        vectors = await context.weaviate.vectors(key)
        await context.weaviate.remove_knowledge_base(key)
        receipt = Receipt(vectors, rows.get(key, 0))
        if key in by_key:
            await leave_receipt(by_key[key], receipt, context)
        else:
            _log.info("vectors removed", tenant=tenant, knowledge_base=key, vectors=vectors)
    await context.weaviate.remove_user(tenant)
    keys = await context.redis.remove_tenant(tenant)
    await context.postgres.remove(tenant)
    _log.info("stores emptied", tenant=tenant, redis_keys=keys, documents=sum(rows.values()))


async def _wait_for_ledger(tenant: str, context: Context) -> None:
    """Let nothing be removed while calls are not in the ledger's database; after a while say what is lost, and go on.

    Raises:
        StoreUnreachableError: come again.
    """
    if not context.settings.ledger_url.get_secret_value():
        return
    entries = await context.redis.undrained(tenant)
    waiting = context.memory.undrained
    if entries and context.monotonic() - waiting.setdefault(tenant, context.monotonic()) < LEDGER_SECONDS:
        raise StoreUnreachableError("redis", f"{entries} of its calls are not in the ledger's database yet.")
    waiting.pop(tenant, None)
    if entries:
        _log.error("calls of a removed tenant are lost to the ledger: no gateway moved them", tenant=tenant, n=entries)


def _recorded(record: Json) -> TenantIdentity | None:
    """Return of which tenant a policy Secret is the record; None when it cannot be told."""
    try:
        content = base64.b64decode((record.get("data") or {}).get(naming.POLICY_KEY, ""), validate=True)
        identity = msgspec.json.decode(content, type=TenantPolicy).tenant
    except (binascii.Error, msgspec.DecodeError):
        return None
    # The name is ours and derives from the UID: a record that says otherwise is not ours to act upon.
    is_ours = naming.tenant_key(identity.uid) == identity.key and name_of(record) == naming.policy_secret(identity.key)
    return identity if is_ours else None
