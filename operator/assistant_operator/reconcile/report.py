"""Write the status of a tenant's resources where it would change."""

from __future__ import annotations

import asyncio

from assistant_operator import status
from assistant_operator.observed import Observed
from assistant_operator.reconcile.context import Context, timestamp
from assistant_operator.reconcile.resolve import Resolved, tenant_settings
from assistant_operator.snapshot import Json, Snapshot, name_of


async def report(resolved: Resolved, snapshot: Snapshot, observed: Observed, context: Context) -> tuple[bool, bool]:
    """Return whether every resource is Ready, and whether anything was written that another run should confirm.

    Figures are not: while documents are ingested they change all the time, and are written when they are asked for.
    """
    now = timestamp()
    statuses = [
        *((item.raw, status.assistant(item, resolved, snapshot, observed, now)) for item in resolved.assistants),
        *(
            (item.raw, status.knowledge_base(item, resolved, snapshot, observed, now))
            for item in resolved.knowledge_bases
        ),
    ]
    if snapshot.tenant is not None:
        statuses.append((snapshot.tenant, status.tenant(snapshot.tenant, resolved, snapshot, observed, now)))
    await asyncio.gather(*(write(raw, wanted, context) for raw, wanted in statuses))
    wrote = [not status.same_but_figures(wanted, raw.get("status")) for raw, wanted in statuses]
    ready = all(wanted["conditions"][0]["status"] == "True" for _, wanted in statuses)
    return ready, any(wrote)


async def report_idle(snapshot: Snapshot, context: Context) -> bool:
    """Write the status of a Tenant whose namespace holds nothing; return whether it was written."""
    if snapshot.tenant is None:
        return False
    settings = tenant_settings(snapshot.tenant, context.defaults)
    return await write(snapshot.tenant, status.idle_tenant(snapshot.tenant, settings, timestamp()), context)


async def report_deleting(snapshot: Snapshot, message: str, context: Context) -> bool:
    """Say on every resource why its deletion has to wait; return whether anything was written."""
    now = timestamp()
    wrote = [await write(resource, status.deleting(resource, message, now), context) for resource in snapshot.resources]
    return any(wrote)


async def write(raw: Json, wanted: Json, context: Context) -> bool:
    """Write the status unless nothing but times would change; return whether it was written."""
    if status.same(wanted, raw.get("status")):
        return False
    await context.cluster.apply_status(raw["kind"], name_of(raw), raw["metadata"].get("namespace"), wanted)
    return True
