"""Make the stores be as the tenant needs them. Each store by itself: one that is down does not hold up the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from assistant_crds import naming
from assistant_crds.contracts import digest
from assistant_operator.adapters.postgres import Database
from assistant_operator.desired import secrets
from assistant_operator.desired.compare import with_digest
from assistant_operator.desired.platform import Credentials
from assistant_operator.errors import ClusterUnreachableError, NotLeaderError, StoreUnreachableError
from assistant_operator.reconcile.context import Context
from assistant_operator.reconcile.credentials import credentials, passwords, with_weaviate_key
from assistant_operator.reconcile.objects import Problems, put
from assistant_operator.tenant.resolve import Resolved
from assistant_operator.tenant.snapshot import Snapshot

# The whole pool (`assistant_api.clients.POOL_SIZE`) of each API pod, of one more during a roll-out, and of the worker.
CONNECTIONS_PER_POD = 4


@dataclass(frozen=True)
class StoresResult:
    """The snapshot after the step, the credentials in force, what failed by store, and whether anything was written."""

    snapshot: Snapshot
    credentials: Credentials
    errors: Mapping[str, str]
    changed: bool


async def ensure_stores(resolved: Resolved, snapshot: Snapshot, context: Context, problems: Problems) -> StoresResult:
    """Make the tenant's credentials, users, database and vector tenants be as wanted.

    Stores learn no password that the tenant's Secret does not hold.
    """
    tenant = resolved.identity.key
    run = _Run(tenant, context, problems)
    held = credentials(snapshot.owned, tenant, context.settings, snapshot.namespace)
    # The Secret comes first, then the stores that take a password from it; the vector store makes its key itself.
    snapshot, held = await _write_secrets(held, snapshot, context, problems, run)
    if not held.stored(naming.STORES_SECRET):
        return StoresResult(snapshot, held, run.errors, run.changed)
    postgres_password, redis_password = passwords(held)
    database = Database(tenant, postgres_password, CONNECTIONS_PER_POD * (resolved.settings.replicas + 2))
    keys = sorted(base.key for base in resolved.served_knowledge_bases())
    key = held.stores["weaviate_api_key"]

    async def ensure_vectors() -> None:
        nonlocal key
        key = await run.step("weaviate", "user", key, lambda: context.weaviate.ensure_user(tenant, key)) or key
        await run.step("weaviate", "access", " ".join(keys), lambda: context.weaviate.ensure_access(tenant, keys))

    await asyncio.gather(
        run.step(
            "postgres",
            "database",
            f"{postgres_password} {database.connections}",
            lambda: context.postgres.ensure(database),
        ),
        run.step("redis", "user", redis_password, lambda: context.redis.ensure_user(tenant, redis_password)),
        ensure_vectors(),
    )
    held = with_weaviate_key(held, key)
    snapshot, held = await _write_secrets(held, snapshot, context, problems, run)
    return StoresResult(snapshot, held, run.errors, run.changed)


async def _write_secrets(
    held: Credentials, snapshot: Snapshot, context: Context, problems: Problems, run: _Run
) -> tuple[Snapshot, Credentials]:
    """Write the tenant's Secrets where they differ; return the snapshot then, and the credentials with the refusals."""
    refused = set()
    for make in (secrets.stores, secrets.api_key, secrets.admin):
        obj = make(snapshot.namespace, held)
        wanted, name = with_digest(obj), obj["metadata"]["name"]
        snapshot, written = await put(wanted, snapshot, context, problems)
        run.changed |= written
        if not wanted["data"].items() <= ((snapshot.owned.get(("Secret", name)) or {}).get("data") or {}).items():
            refused.add(name)
    return snapshot, replace(held, refused=frozenset(refused))


class _Run:
    """The steps of one run: what failed, and whether anything was written."""

    def __init__(self, tenant: str, context: Context, problems: Problems) -> None:
        self._tenant = tenant
        self._problems = problems
        self._context = context
        self.errors: dict[str, str] = {}
        self.changed = False

    async def step(self, store: str, what: str, wanted: str, ensure: Callable[[], Awaitable[bool | str]]) -> str | None:
        """Do one step, unless the same was found right a short while ago, in the same life of the store.

        `ensure` returns whether it changed, or what it found right or made right instead of `wanted`; so does this.
        """
        health, memory = self._context.health, self._context.memory.checked
        if store in self.errors:
            return None
        if health.error(store):
            self.errors[store] = health.error(store)
            return None
        now = self._context.monotonic()
        key = (self._tenant, f"{store} {what}")
        if memory.get(key, ("", 0.0))[0] == self._wish(store, wanted) and memory[key][1] > now:
            return None
        try:
            result = await ensure()
        except StoreUnreachableError as error:
            memory.pop(key, None)
            self.errors[store] = error.detail
            return None
        except (NotLeaderError, ClusterUnreachableError):
            raise
        except Exception as error:  # noqa: BLE001 - a client library on what it was given: the other stores go on
            memory.pop(key, None)
            self._problems.unexpected(f"Store {store}, {what},", error)
            self.errors[store] = f"{what}: {type(error).__name__}."
            return None
        made = result if isinstance(result, str) else wanted
        self.changed |= result is True or made != wanted
        memory[key] = (self._wish(store, made), now + self._context.settings.resync_seconds * 0.9)
        return made

    def _wish(self, store: str, wanted: str) -> str:
        return digest([wanted, self._context.health.incarnation(store)])


def forget(tenant: str, context: Context) -> None:
    """Forget what was found right, as it is about to be removed."""
    for key in [key for key in context.memory.checked if key[0] == tenant]:
        del context.memory.checked[key]
    context.memory.swept.pop(tenant, None)
    context.memory.bases.pop(tenant, None)
