"""Write what differs, take away what is no longer wanted, and tell running pods to look at their configuration."""

from __future__ import annotations

from assistant_crds import naming
from assistant_operator.desired import Desired, service_account
from assistant_operator.desired.compare import is_applied, with_digest
from assistant_operator.desired.platform import Credentials
from assistant_operator.errors import ClusterError
from assistant_operator.reconcile.context import Context, timestamp
from assistant_operator.reconcile.objects import CONFLICT, Problems, put
from assistant_operator.tenant.snapshot import Json, Snapshot, is_deleting, name_of

# Three writes a minute at most.
NUDGE_SECONDS = 20.0


async def apply(
    desired: Desired, credentials: Credentials, snapshot: Snapshot, context: Context, problems: Problems
) -> tuple[Snapshot, bool]:
    """Apply every object that differs; return the snapshot then, and whether anything was written.

    What the API server refuses does not hold up the others, but for pods: they are neither started nor changed while
    they could not log in, or something that they mount is not ours.
    """
    changed = await _put_policy(desired.policy_secret, snapshot, context, problems)
    for obj in desired.objects:
        if obj["kind"] == "Deployment" and (problems.taken or not credentials.complete):
            continue
        if obj["kind"] == "Secret" and not credentials.stored(name_of(obj)):
            continue  # refused before, when the stores were looked at
        snapshot, written = await put(obj, snapshot, context, problems)
        changed |= written
    snapshot, pruned = await _prune(desired, snapshot, context, problems)
    refreshed = await _refresh_pods(desired, snapshot, context, problems)
    await _nudge(snapshot, context, problems)
    return snapshot, changed or pruned or refreshed


async def ensure_account(snapshot: Snapshot, context: Context, problems: Problems) -> tuple[Snapshot, bool]:
    """Make the tenant's ServiceAccount be as wanted; return the snapshot then, and whether it was written."""
    return await put(with_digest(service_account.build(snapshot.namespace)), snapshot, context, problems)


def account_uid(snapshot: Snapshot) -> str:
    """Return the UID of the tenant's ServiceAccount; "" when there is none."""
    account = snapshot.owned.get(("ServiceAccount", naming.API))
    return "" if account is None else str(account["metadata"]["uid"])


def is_stalled(deployment: Json) -> bool:
    """Return whether the API server refused the Deployment's last pod."""
    return any(
        condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
        for condition in (deployment.get("status") or {}).get("conditions") or []
    )


async def _put_policy(secret: Json, snapshot: Snapshot, context: Context, problems: Problems) -> bool:
    live = next((found for found in snapshot.policies if name_of(found) == name_of(secret)), None)
    if is_applied(secret, live):
        return False
    try:
        await context.cluster.apply(secret)
    except ClusterError as error:
        problems.refused(f"Secret {name_of(secret)} of the gateway", error)
        return False
    return True


async def _prune(desired: Desired, snapshot: Snapshot, context: Context, problems: Problems) -> tuple[Snapshot, bool]:
    wanted, changed = desired.keys(), False
    for (kind, name), obj in snapshot.owned.items():
        if (kind, name) not in wanted and not is_deleting(obj):
            try:
                await context.cluster.delete(kind, name, snapshot.namespace)
            except ClusterError as error:
                problems.note(f"Deletion of {kind} {name} was refused: {error.message}")
                continue
            snapshot, changed = snapshot.without_owned(kind, name), True
    return snapshot, changed


async def _nudge(snapshot: Snapshot, context: Context, problems: Problems) -> None:
    """Have the cluster try again to create pods that it refused: a quota that was lifted tells nobody.

    Its own next try may be minutes away. The Deployment's controller passes annotations on to the ReplicaSet, whose
    controller tries again on every change.
    """
    for (kind, name), obj in snapshot.owned.items():
        if kind != "Deployment" or is_deleting(obj) or not is_stalled(obj):
            continue
        key, now = (snapshot.namespace, name), context.monotonic()
        if context.memory.nudged.get(key, 0.0) > now:
            continue
        context.memory.nudged[key] = now + NUDGE_SECONDS
        try:
            await context.cluster.patch_metadata(kind, obj, {"annotations": {naming.ANNOTATION_NUDGED: timestamp()}})
        except ClusterError as error:
            problems.note(f"Deployment {name} could not be annotated: {error.message}")


async def _refresh_pods(desired: Desired, snapshot: Snapshot, context: Context, problems: Problems) -> bool:
    """Note the configuration on each pod: the kubelet then renews the mounted ConfigMap at once, not after a minute."""
    changed = False
    for pod in snapshot.pods:
        annotations = pod["metadata"].get("annotations") or {}
        if annotations.get(naming.ANNOTATION_CONFIG) == desired.config.generation or is_deleting(pod):
            continue
        try:
            await context.cluster.patch_metadata(
                "Pod", pod, {"annotations": {naming.ANNOTATION_CONFIG: desired.config.generation}}
            )
            changed = True
        except ClusterError as error:
            if error.code != CONFLICT:  # the pod was replaced by another of its name
                problems.note(f"Pod {name_of(pod)} could not be annotated: {error.message}")
    return changed
