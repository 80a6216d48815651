"""Add our finalizer to a tenant's resources before anything is created for them; remove it when nothing is left."""

from __future__ import annotations

from collections.abc import Iterable

from assistant_crds import naming
from assistant_operator.errors import ClusterError
from assistant_operator.reconcile.context import Context
from assistant_operator.reconcile.objects import Problems
from assistant_operator.tenant.snapshot import Json, has_finalizer, is_deleting, name_of


async def add(resources: Iterable[Json], context: Context, problems: Problems) -> bool:
    """Add the finalizer where it is missing; return whether anything was written."""
    changed = False
    for resource in resources:
        if not has_finalizer(resource) and not is_deleting(resource):
            finalizers = [*(resource["metadata"].get("finalizers") or []), naming.FINALIZER]
            try:
                await _write(resource, finalizers, context)
            except ClusterError as error:
                problems.refused(f"The finalizer of {resource['kind']} {name_of(resource)}", error)
                continue
            changed = True
    return changed


async def remove(resources: Iterable[Json], context: Context) -> bool:
    """Remove the finalizer where it is; return whether anything was written."""
    changed = False
    for resource in resources:
        if has_finalizer(resource):
            changed = True
            finalizers = [name for name in resource["metadata"]["finalizers"] if name != naming.FINALIZER]
            await _write(resource, finalizers, context)
    return changed


async def _write(resource: Json, finalizers: list[str], context: Context) -> None:
    try:
        await context.cluster.patch_metadata(resource["kind"], resource, {"finalizers": finalizers})
    except ClusterError as error:
        # Someone changed the resource meanwhile: the event of that change starts the next run.
        if error.code != 409:
            raise
