"""Write the status of a tenant's resources where it would change, and record Events of limits that are reached."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from assistant_observability import logs
from assistant_operator import measures, status
from assistant_operator.errors import ClusterError
from assistant_operator.reconcile.context import Context, timestamp
from assistant_operator.reconcile.events import record_alarms, record_transitions
from assistant_operator.tenant import usage
from assistant_operator.tenant.observation import Observation
from assistant_operator.tenant.resolve import tenant_settings
from assistant_operator.tenant.snapshot import Json, Snapshot, name_of
from assistant_operator.tenant.state import Tenant
from assistant_operator.tenant.usage import Alarm, Digest

# Every call changes the usage; the API server and its watchers are not to hear of each.
USAGE_SECONDS = 60.0
_log = logs.logger(__name__)
# For so long a resource keeps its state while the operator itself is overloaded.
OVERLOADED_SECONDS = 60.0


@dataclass(frozen=True)
class ReportResult:
    """The result of a report.

    `changed`: whether anything was written that another run should confirm. Figures do not count: while documents are
    ingested or chats served they change all the time.
    `refused`: whether the API server refused a status.
    `usage`: what the statuses show of it, None while it is not known.
    """

    ready: bool
    changed: bool
    usage: Digest | None
    refused: bool = False


async def report(tenant: Tenant, context: Context) -> ReportResult:
    """Bring every status up to date, that of the usage once a minute."""
    now = timestamp()
    resolved, snapshot, observation = tenant.resolved, tenant.snapshot, tenant.observation
    statuses = [
        *((item.raw, status.assistant(item, tenant, now)) for item in resolved.assistants),
        *((item.raw, status.knowledge_base(item, tenant, now)) for item in resolved.knowledge_bases),
    ]
    if snapshot.tenant is not None:
        statuses.append((snapshot.tenant, status.tenant(snapshot.tenant, tenant, now)))
    if patient := _overloaded_seconds(observation) < OVERLOADED_SECONDS:
        # What is wrong is on this side, and may be over in a moment: only what has no state yet gets one.
        statuses = [(raw, wanted) for raw, wanted in statuses if not (raw.get("status") or {}).get("conditions")]
    else:
        _measure(statuses, tenant, context)
    refused = not await _record_alarms(tenant, context)
    due = context.monotonic() >= context.memory.usage_due.get(snapshot.namespace, 0.0)
    paced = [(raw, wanted if due else _with_former_usage(raw, wanted)) for raw, wanted in statuses]
    # One that the API server refuses holds up none of the others.
    done = await asyncio.gather(*(write(raw, wanted, context) for raw, wanted in paced), return_exceptions=True)
    for (raw, _), failure in zip(paced, done, strict=True):
        if isinstance(failure, ClusterError):
            refused = True
            _log.warning("a status was refused", kind=raw["kind"], name=name_of(raw), error=str(failure))
        elif isinstance(failure, BaseException):
            raise failure
    changed = [not status.same_but_figures(wanted, raw.get("status")) for raw, wanted in paced]
    if any(wanted.get("usage") != (raw.get("status") or {}).get("usage") for raw, wanted in paced):
        context.memory.usage_due[snapshot.namespace] = context.monotonic() + USAGE_SECONDS
    used = usage.known(observation)
    held = any(shown is not wanted for (_, wanted), (_, shown) in zip(statuses, paced, strict=True))
    return ReportResult(
        ready=not patient and all(wanted["conditions"][0]["status"] == "True" for _, wanted in statuses),
        changed=any(changed),
        usage=None if used is None else usage.digest(resolved.quotas, used, held=held),
        refused=refused,
    )


def _measure(statuses: list[tuple[Json, Json]], tenant: Tenant, context: Context) -> None:
    measured = context.memory.measured.setdefault(tenant.namespace, measures.Measured())
    measures.note_waits(
        ((str(raw["metadata"]["uid"]), wanted) for raw, wanted in statuses), measured, context.monotonic()
    )
    samples = measures.readiness(wanted for _, wanted in statuses)
    samples |= measures.usage(tenant.resolved.quotas, usage.known(tenant.observation))
    samples |= measures.knowledge(tenant.observation.counts)
    measures.show(tenant.namespace, measured, samples)


def _overloaded_seconds(observation: Observation) -> float:
    """Return for how long the operator has been overloaded; infinity while it is not."""
    return math.inf if observation.stores.overloaded is None else observation.stores.overloaded


def _with_former_usage(raw: Json, wanted: Json) -> Json:
    """Return the status with the usage as it is shown now, unless there is none or a limit was reached or left."""
    before = raw.get("status") or {}
    former = before.get("usage")
    turned = status.exhausted(wanted).get("status") != status.exhausted(before).get("status")
    if former is None or turned or former == wanted.get("usage"):
        return wanted
    return {**wanted, "usage": former}


async def _record_alarms(tenant: Tenant, context: Context) -> bool:
    """Create the Events of alarms that are in no status yet; without a Tenant, its own go to its Assistants.

    Return whether the API server accepted them all.
    """
    raw_tenant, shared = tenant.snapshot.tenant, status.tenant_alarms(tenant)
    by_resource: list[tuple[Json, list[Alarm]]] = []
    for item in tenant.resolved.assistants:
        alarms = status.assistant_alarms(item, tenant)
        by_resource.append((item.raw, alarms if raw_tenant is None else [one for one in alarms if one not in shared]))
    if raw_tenant is not None:
        by_resource.append((raw_tenant, shared))
    try:
        for raw, alarms in by_resource:
            await record_alarms(raw, alarms, status.exhausted(raw.get("status") or {}).get("message", ""), context)
    except ClusterError as error:
        _log.warning("an Event was refused", error=str(error))
        return False
    return True


async def report_idle(snapshot: Snapshot, context: Context) -> bool:
    """Write the status of a Tenant whose namespace holds nothing; return whether it was written."""
    if snapshot.tenant is None:
        return False
    settings = tenant_settings(snapshot.tenant, context.defaults)
    return await write(snapshot.tenant, status.idle_tenant(snapshot.tenant, settings, timestamp()), context)


async def report_deleting(snapshot: Snapshot, message: str, context: Context) -> bool:
    """Say on every resource why its deletion has to wait; return whether anything was written."""
    now = timestamp()
    changed = [
        await write(resource, status.deleting(resource, message, now), context) for resource in snapshot.resources
    ]
    return any(changed)


async def write(raw: Json, wanted: Json, context: Context) -> bool:
    """Write the status unless nothing but times would change; return whether it was written."""
    if status.same(wanted, raw.get("status")):
        return False
    await context.cluster.apply_status(raw["kind"], name_of(raw), raw["metadata"].get("namespace"), wanted)
    await record_transitions(raw, wanted, context)
    return True
