"""A reconcile context on real parts, without the loops of a whole operator around it."""

import asyncio
import contextlib
import weakref

from assistant_operator.adapters.cluster import Cluster
from assistant_operator.adapters.migrations import Migrations
from assistant_operator.adapters.postgres import Postgres
from assistant_operator.adapters.probes import Probes
from assistant_operator.adapters.redis import Redis
from assistant_operator.adapters.weaviate import Weaviate
from assistant_operator.catalog import Catalog
from assistant_operator.health import StoreHealth
from assistant_operator.reconcile.context import Context

_shared = weakref.WeakKeyDictionary()


def _migrations(folder):
    """Return the one object per loop that lets migrations through one at a time, as an operator has it."""
    return _shared.setdefault(asyncio.get_running_loop(), Migrations(folder))


@contextlib.asynccontextmanager
async def connect(settings, pod_port, guard=lambda: None):
    """Yield a context whose writes ask `guard`."""
    postgres = Postgres(settings.postgres_dsn.get_secret_value(), _migrations(settings.migrations_dir), guard)
    redis = Redis(settings.redis_url.get_secret_value(), guard)
    weaviate = Weaviate(
        settings.weaviate_url, settings.weaviate_grpc, settings.weaviate_api_key.get_secret_value(), guard
    )
    context = Context(
        settings=settings,
        catalog=Catalog(settings.catalog_file),
        cluster=Cluster.connect(guard),
        postgres=postgres,
        redis=redis,
        weaviate=weaviate,
        probes=Probes(settings.gateway_url, settings.gateway_token_file, pod_port),
        health=StoreHealth({"postgres": postgres.ping, "redis": redis.ping, "weaviate": weaviate.ping}, lambda: None),
    )
    try:
        yield context
    finally:
        for adapter in (context.probes, weaviate, redis, context.cluster):
            await adapter.close()
