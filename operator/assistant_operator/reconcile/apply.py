"""Write what differs, take away what is no longer wanted, and tell running pods to look at their configuration."""

from __future__ import annotations

from dataclasses import dataclass

from assistant_crds import naming
from assistant_observability import logs
from assistant_operator.compare import is_applied
from assistant_operator.desired import Desired
from assistant_operator.desired.platform import Credentials
from assistant_operator.errors import ClusterError
from assistant_operator.reconcile.context import Context
from assistant_operator.snapshot import Json, Snapshot, is_deleting, name_of

_log = logs.logger(__name__)


@dataclass(frozen=True)
class Applied:
    """What came of it: whether anything was written, and what the API server refused, for people."""

    wrote: bool
    error: str = ""


async def apply(desired: Desired, credentials: Credentials, snapshot: Snapshot, context: Context) -> Applied:
    """Apply every object that differs. What the API server refuses does not hold up the others."""
    wrote, errors = False, []
    for obj in [desired.policy_secret, *desired.objects]:
        kind, name = obj["kind"], name_of(obj)
        if kind == "Deployment" and not credentials.complete:
            continue  # neither started nor changed while pods could not log in
        live = _live(obj, snapshot, context)
        if is_applied(obj, live):
            continue
        try:
            found = await context.cluster.apply(obj)
            wrote = True
            if obj is not desired.policy_secret:
                snapshot.owned[kind, name] = found
        except ClusterError as error:
            errors.append(f"{kind} {name} was refused: {error.message}")
    wrote |= await _prune(desired, snapshot, context, errors)
    wrote |= await _refresh_pods(desired, snapshot, context, errors)
    for message in errors:
        _log.warning("the API server refused a write", namespace=snapshot.namespace, error=message)
    return Applied(wrote, " ".join(errors))


def _live(obj: Json, snapshot: Snapshot, context: Context) -> Json | None:
    if obj["metadata"]["namespace"] == context.settings.routes_namespace:
        return next((found for found in snapshot.policies if name_of(found) == name_of(obj)), None)
    return snapshot.owned.get((obj["kind"], name_of(obj)))


async def _prune(desired: Desired, snapshot: Snapshot, context: Context, errors: list[str]) -> bool:
    wanted, wrote = desired.keys(), False
    for (kind, name), obj in list(snapshot.owned.items()):
        if (kind, name) not in wanted and not is_deleting(obj):
            try:
                await context.cluster.delete(kind, name, snapshot.namespace)
            except ClusterError as error:
                errors.append(f"Deletion of {kind} {name} was refused: {error.message}")
                continue
            del snapshot.owned[kind, name]
            wrote = True
    return wrote


async def _refresh_pods(desired: Desired, snapshot: Snapshot, context: Context, errors: list[str]) -> bool:
    """Note the configuration on each pod: the kubelet then renews the mounted ConfigMap at once, not after a minute."""
    wrote = False
    for pod in snapshot.pods:
        annotations = pod["metadata"].get("annotations") or {}
        if annotations.get(naming.ANNOTATION_CONFIG) == desired.config.generation or is_deleting(pod):
            continue
        try:
            await context.cluster.patch_metadata(
                "Pod", pod, {"annotations": {naming.ANNOTATION_CONFIG: desired.config.generation}}
            )
            wrote = True
        except ClusterError as error:
            if error.code != 409:  # the pod was replaced by another of its name
                errors.append(f"Pod {name_of(pod)} could not be annotated: {error.message}")
    return wrote
