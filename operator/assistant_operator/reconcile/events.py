"""Events on a tenant's resources: of limits, each made once as its name follows from what it says; of transitions."""

from __future__ import annotations

import hashlib

from assistant_crds import naming
from assistant_crds.conditions import ConditionType, Reason
from assistant_observability import logs
from assistant_operator.errors import ClusterError
from assistant_operator.reconcile.context import Context, timestamp
from assistant_operator.tenant.snapshot import Json, name_of
from assistant_operator.tenant.usage import Alarm

# Of one resource: so many Events of transitions at once, then one in so many seconds.
EVENT_BURST = 25
EVENT_SECONDS = 300.0
MOST_ALLOWANCES = 10_000
# Reasons of a resource that is not ready yet because something takes its time.
_PASSING = frozenset({Reason.WAITING, Reason.PROGRESSING, Reason.STALE_CONFIGURATION, Reason.DELETING})
_log = logs.logger(__name__)

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
        # Nothing can be created in a namespace that goes away itself. No Event is worth a run that ends half-way.
        if error.code != 403:
            _log.warning("an Event was refused", name=event["metadata"]["name"], error=error.message)
        return False


async def record_transitions(raw: Json, wanted: Json, context: Context) -> None:
    """Create an Event when `Ready` changes, and when a condition that is only informative becomes False.

    A condition that changes over and over is rate limited, as by the recorder of client-go.
    """
    before = {item["type"]: item for item in (raw.get("status") or {}).get("conditions") or []}
    for found in wanted.get("conditions") or []:
        former = before.get(found["type"])
        if former is not None and (former["status"], former["reason"]) == (found["status"], found["reason"]):
            continue
        is_news = found["type"] == ConditionType.READY or (
            found["type"] == ConditionType.FALLBACKS_USABLE and found["status"] == "False"
        )
        if not is_news or not _may_record(raw["metadata"]["uid"], context):
            continue
        said = f"{raw['metadata']['uid']} {found['type']} {found['status']} {found['reason']} {context.monotonic()}"
        suffix = hashlib.sha256(said.encode()).hexdigest()[:16]
        kind = "Normal" if found["status"] != "False" or found["reason"] in _PASSING else "Warning"
        await create(build(raw, suffix, kind, found["reason"], found["message"], timestamp()), context)


def _may_record(uid: str, context: Context) -> bool:
    """Take one of a resource's Events from its allowance; return whether there was one left."""
    tokens, now = context.memory.event_tokens, context.monotonic()
    if len(tokens) > MOST_ALLOWANCES:
        tokens.clear()
    left, since = tokens.get(uid, (float(EVENT_BURST), now))
    left = min(float(EVENT_BURST), left + (now - since) / EVENT_SECONDS)
    tokens[uid] = (left - 1 if left >= 1 else left, now)
    return left >= 1


async def record_alarms(raw: Json, alarms: list[Alarm], before: str, context: Context) -> None:
    """Create an Event of every alarm that is not in `before`, the condition's message so far."""
    for alarm in alarms:
        if alarm.mark in before:
            continue
        # The API server forgets Events after a while; the status remembers, and the name is the second safeguard.
        suffix = hashlib.sha256(f"{raw['metadata']['uid']} {alarm.mark}".encode()).hexdigest()[:16]
        await create(build(raw, suffix, "Warning", alarm.reason, alarm.sentence, timestamp()), context)
