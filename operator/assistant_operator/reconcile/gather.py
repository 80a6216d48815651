"""Look at a tenant: everything a run decides upon, read at once and fresh from the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from assistant_crds import naming
from assistant_crds.parts import MOST_PARTS
from assistant_operator.desired import OWN_NAMES, config_map
from assistant_operator.desired.compare import is_ours
from assistant_operator.reconcile.context import Context
from assistant_operator.tenant.models import MAX_INSTRUCTIONS
from assistant_operator.tenant.snapshot import Json, Snapshot, is_deleting, name_of, references

NAME_PREFIX = "assistant-"
# Characters of instructions from which a namespace is large. A run holds them several times: as they are written, as
# they are served, and as they are in the cluster.
LARGE = 4_000_000
# Objects that tenants refer to: so many are held in whole at once, and so many characters are kept of each value, which
# is more than any may have.
AT_ONCE = 4
LONGEST_VALUE = 40_000
OURS = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}


async def gather(namespace: str, context: Context) -> Snapshot:
    """Return the tenant's state."""
    cluster = context.cluster
    found, tenant, assistants, knowledge_bases, policies = await asyncio.gather(
        cluster.get("Namespace", namespace),
        cluster.get("Tenant", namespace),
        cluster.list("Assistant", namespace),
        cluster.list("KnowledgeBase", namespace),
        cluster.list("Secret", context.settings.routes_namespace, {**OURS, naming.LABEL_TENANT: namespace}),
    )
    refers = references(resource for resource in (*assistants, *knowledge_bases) if not is_deleting(resource))
    _weigh(namespace, assistants, context)
    leaving = not any(not is_deleting(resource) for resource in (*assistants, *knowledge_bases))
    # First the index, then the reads: a Secret made in between is noticed by one or the other.
    context.index.put(namespace, refers)
    found_objects, pods, secrets, config_maps = await asyncio.gather(
        _owned(namespace, context, everything=leaving),
        cluster.list("Pod", namespace, OURS),
        _named("Secret", refers.secret_keys, namespace, context),
        _named("ConfigMap", refers.config_map_keys, namespace, context),
    )
    metadata = (found or {}).get("metadata", {})
    return Snapshot(
        namespace=namespace,
        uid=metadata.get("uid"),
        terminating="deletionTimestamp" in metadata,
        tenant=tenant,
        assistants=assistants,
        knowledge_bases=knowledge_bases,
        owned={key: obj for key, obj in found_objects.items() if is_ours(obj)},
        taken=frozenset(key for key, obj in found_objects.items() if not is_ours(obj)),
        pods=[pod for pod in pods if name_of(pod).startswith(NAME_PREFIX)],
        policies=policies,
        secrets=secrets,
        config_maps=config_maps,
    )


class LargeError(Exception):
    """A namespace turned out to be large: it is read in whole by one run at a time."""


def _weigh(namespace: str, assistants: list[Json], context: Context) -> None:
    specs = [spec for raw in assistants if isinstance(spec := raw.get("spec"), dict)]
    size = sum(MAX_INSTRUCTIONS if "instructionsFrom" in spec else len(spec.get("instructions", "")) for spec in specs)
    if size < LARGE:
        context.memory.large.discard(namespace)
    elif namespace not in context.memory.large:
        context.memory.large.add(namespace)
        raise LargeError


async def _owned(namespace: str, context: Context, *, everything: bool) -> dict[tuple[str, str], Json]:
    """Return what has a name of ours, by (kind, name); `everything` also what nothing tells of any more.

    Read by name, not by label: anyone may put our label on objects of theirs, many and large ones too.
    """
    found = await _get(OWN_NAMES, namespace, context)
    known = config_map.known(found.get(("ConfigMap", naming.CONFIG_MAP)), found.get(("Deployment", naming.API)))
    further = [("ConfigMap", config_map.name(number)) for number in range(1, (MOST_PARTS if everything else known) + 1)]
    return found | await _get(further, namespace, context)


async def _get(keys: Sequence[tuple[str, str]], namespace: str, context: Context) -> dict[tuple[str, str], Json]:
    found = await asyncio.gather(*(context.cluster.get(kind, name, namespace) for kind, name in keys))
    return {key: obj for key, obj in zip(keys, found, strict=True) if obj is not None}


async def _named(kind: str, keys: frozenset[tuple[str, str]], namespace: str, context: Context) -> dict[str, Json]:
    """Return the objects that are referred to, with the keys that are; an object may hold a megabyte of others."""
    wanted: dict[str, set[str]] = {}
    for name, key in keys:
        wanted.setdefault(name, set()).add(key)
    few = asyncio.Semaphore(AT_ONCE)

    async def read(name: str) -> Json | None:
        async with few:
            found = await context.cluster.get(kind, name, namespace)
        if found is None:
            return None
        data = found.get("data") or {}
        kept = {key: str(data[key])[:LONGEST_VALUE] for key in wanted[name] if key in data}
        return {"metadata": {"name": name}, "data": kept}

    objects = await asyncio.gather(*(read(name) for name in sorted(wanted)))
    return {name_of(obj): obj for obj in objects if obj is not None}
