"""Assemble the operator, run it while it holds the Lease, and shut it down."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from assistant_observability import logs
from assistant_operator import measures
from assistant_operator.adapters.cluster import ALL_NAMESPACES, Cluster
from assistant_operator.adapters.ledger import Ledger, LedgerSettingError
from assistant_operator.adapters.migrations import Migrations
from assistant_operator.adapters.postgres import Postgres
from assistant_operator.adapters.probes import Probes
from assistant_operator.adapters.redis import Redis
from assistant_operator.adapters.weaviate import Weaviate
from assistant_operator.catalog import Catalog
from assistant_operator.config import Settings
from assistant_operator.desired.deployment import API_PORT
from assistant_operator.errors import ClusterError, ClusterUnreachableError, NotLeaderError
from assistant_operator.health import StoreHealth
from assistant_operator.keeper import Keeper
from assistant_operator.lease import Lease
from assistant_operator.liveness import Liveness
from assistant_operator.poll import Poller
from assistant_operator.queue import Result, WorkQueue
from assistant_operator.reconcile.context import Context, Memory
from assistant_operator.reconcile.run import reconcile
from assistant_operator.resync import Resync
from assistant_operator.server import serve
from assistant_operator.watches import Watches

# Within the 30 seconds that a pod is given to end.
STOP_SECONDS = 20.0
CATALOG_SECONDS = 2.0
_log = logs.logger(__name__)


class Operator:
    """One operator process: on standby until it holds the Lease, then working until it loses it."""

    def __init__(self, settings: Settings, pod_port: int = API_PORT) -> None:
        self._settings = settings
        self.lease = Lease(settings.namespace, settings.lease_name, settings.pod_name, duration=settings.lease_seconds)
        self._term = 0  # in which this operator works now
        guard = self.guard
        self.keeper = Keeper(self.lease, lambda: Cluster.connect(guard))
        self.liveness = Liveness(settings.resync_seconds)
        self.queue = WorkQueue(settings.workers)
        self._known: set[str] = set()
        cluster = Cluster.connect(guard, self.liveness.heard)
        postgres = Postgres(settings.postgres_dsn.get_secret_value(), Migrations(settings.migrations_dir), guard)
        self.ledger = _ledger(settings, guard)
        redis = Redis(settings.redis_url.get_secret_value(), guard)
        weaviate = Weaviate(
            settings.weaviate_url, settings.weaviate_grpc, settings.weaviate_api_key.get_secret_value(), guard
        )
        self.context = Context(
            settings=settings,
            catalog=Catalog(settings.catalog_file),
            cluster=cluster,
            postgres=postgres,
            redis=redis,
            weaviate=weaviate,
            probes=Probes(settings.gateway_url, settings.gateway_token_file, pod_port),
            health=StoreHealth(
                {"postgres": postgres.ping, "redis": redis.ping, "weaviate": weaviate.ping}, self.enqueue_all
            ),
        )
        self._stop = asyncio.Event()

    def enqueue(self, namespace: str, delay: float = 0.0, *, urgent: bool = False) -> None:
        """Enqueue a tenant, `urgent` before others: when one of its resources was changed."""
        self._known.add(namespace)
        self.queue.add(namespace, delay, urgent=urgent)

    def enqueue_all(self) -> None:
        """Enqueue every tenant that was ever seen."""
        for namespace in self._known:
            self.queue.add(namespace)

    def stop(self) -> None:
        """Begin a graceful shutdown."""
        self._stop.set()

    async def run(self) -> int:
        """Run until stopped or until this operator cannot go on; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        server = await serve(self._settings.metrics_port, self._problem, lambda: "")
        self.keeper.start()
        try:
            while await self._first(self.keeper.acquired()) and await self._first(self._wait_for_kinds()):
                if (code := await self._lead()) is not None:
                    return code
            return 0
        finally:
            await self.keeper.stop()
            await server.cleanup()
            for adapter in (self.context.probes, self.context.weaviate, self.context.redis, self.context.cluster):
                await adapter.close()

    def guard(self) -> None:
        """Raise NotLeaderError unless this operator leads, in the term in which it began its work."""
        self.lease.guard()
        if self.lease.term != self._term:
            raise NotLeaderError("another operator has led since this work began")

    async def _lead(self) -> int | None:
        """Work until stopped, or until the Lease is lost; return the exit code, None to stand by again."""
        self._term = self.lease.term
        # Another leader in between may have changed anything.
        self.context.memory, self.queue = Memory(), WorkQueue(self._settings.workers)
        self.liveness.lead()
        await self.context.health.check()
        watches = Watches(self._settings.routes_namespace, self.context.index, self.liveness, self.enqueue)
        watches.start()
        resync = Resync(self.context, self.enqueue, self.liveness)
        tasks = {
            asyncio.create_task(coroutine, name=name)
            for name, coroutine in {
                "stopped": self._stop.wait(),
                "lease lost": self.keeper.lost(),
                "lease not kept": self.keeper.failed.wait(),
                "watches failed": watches.failed.wait(),
                "queue": self.queue.run(self._reconcile),
                "resync": resync.watch(),
                "poller": Poller(self.context, self.enqueue).watch(),
                "store health": self.context.health.watch(self._settings.health_seconds),
                "catalogue": self._watch_catalog(),
                **({"ledger": self.ledger.watch(self._settings.resync_seconds)} if self.ledger else {}),
            }.items()
        }
        done, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        reasons = sorted(task.get_name() for task in done)
        graceful = reasons == ["stopped"]
        _log.info("ending", reasons=reasons)
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                _log.error("a part failed", part=task.get_name(), exc_info=task.exception())
        for task in running:
            if task.get_name() != "queue":
                task.cancel()
        # Abort in-flight work after losing the lease.
        await self.queue.stop(STOP_SECONDS if graceful else 0)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await watches.stop()
        if reasons == ["lease lost"]:
            self.liveness.rest()
            measures.clear()
            return None
        return 0 if graceful else 1

    async def _reconcile(self, namespace: str) -> Result:
        result = await reconcile(namespace, self.context)
        self.liveness.worked()
        return result

    async def _watch_catalog(self) -> None:
        while True:
            await asyncio.sleep(CATALOG_SECONDS)
            if self.context.catalog.refresh():
                _log.info("the catalogue changed", providers=sorted(self.context.catalog.providers or ()))
                self.enqueue_all()

    async def _wait_for_kinds(self) -> None:
        """Wait until the API server knows our kinds: the watches would not notice them later."""
        warned = False
        while True:
            try:
                await asyncio.gather(
                    self.context.cluster.list("Assistant", ALL_NAMESPACES),
                    self.context.cluster.list("KnowledgeBase", ALL_NAMESPACES),
                    self.context.cluster.list("Tenant", None),
                )
            except (ClusterError, ClusterUnreachableError) as error:
                if not warned:
                    _log.warning(
                        "waiting for the CustomResourceDefinitions: is the chart assistant-crds installed?",
                        error=str(error),
                    )
                warned = True
                await asyncio.sleep(2)
            else:
                return

    async def _first(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Return whether the coroutine ended before `stop` was called."""
        task, stopped = asyncio.create_task(coroutine), asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (task, stopped):
            waiting.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        return not self._stop.is_set()

    def _problem(self) -> str:
        return self.liveness.problem(self.queue.oldest())


def _ledger(settings: Settings, guard: Callable[[], None]) -> Ledger | None:
    url, folder = settings.ledger_url.get_secret_value(), settings.ledger_migrations_dir
    if not url or folder is None:
        _log.warning("no ledger configured: entries of model calls stay in Redis")
        return None
    try:
        return Ledger(settings.postgres_dsn.get_secret_value(), url, Migrations(folder), guard)
    except LedgerSettingError as error:  # tenants are served all the same; the gateway keeps entries in Redis
        _log.error("the ledger cannot be prepared", error=str(error))
        return None
