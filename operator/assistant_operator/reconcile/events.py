"""Events on a tenant's resources, each made once: its name follows from what it says."""

from __future__ import annotations

import hashlib

from assistant_crds import naming
from assistant_operator.errors import ClusterError
from assistant_operator.reconcile.context import Context, timestamp
from assistant_operator.snapshot import Json, name_of
from assistant_operator.usage import Alarm

# Where the API server wants Events of objects that are in no namespace.
CLUSTER_WIDE = "default"


def build(raw: Json, suffix: str, kind: str, reason: str, message: str, now: str) -> Json:
    """Return an Event of the resource; `kind` is Normal or Warning, `now` is RFC 3339 in UTC."""
    metadata = raw["metadata"]
    version = raw.get("apiVersion", naming.API_VERSION)
    about = {"apiVersion": version, "kind": raw["kind"], "name": name_of(raw), "uid": metadata["uid"]}
    namespace = metadata.get("namespace")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name_of(raw)}.{suffix}", "namespace": namespace or CLUSTER_WIDE},
        "involvedObject": about | ({"namespace": namespace} if namespace else {}),
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": naming.MANAGED_BY},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


async def create(event: Json, context: Context) -> bool:
    """Create the Event unless it exists; return whether it was created."""
    try:
        return await context.cluster.create(event) is not None
    except ClusterError as error:
        # Nothing can be created in a namespace that goes away itself.
        if error.code != 403:
            raise
        return False


async def raise_alarms(raw: Json, alarms: list[Alarm], before: str, context: Context) -> None:
    """Tell of every alarm that `before`, the message of the condition so far, does not tell of yet."""
    for alarm in alarms:
        if alarm.mark in before:
            continue
        # The API server forgets Events after a while; the status remembers, and the name is the second safeguard.
        suffix = hashlib.sha256(f"{raw['metadata']['uid']} {alarm.mark}".encode()).hexdigest()[:16]
        await create(build(raw, suffix, "Warning", alarm.reason, alarm.sentence, timestamp()), context)
