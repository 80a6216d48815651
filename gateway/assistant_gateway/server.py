"""The gateway as a process: what is built, in which order it starts, and how it goes down without cutting any off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from assistant_gateway.app import Clients, Gateway, create_app
from assistant_gateway.capacity import garbage
from assistant_gateway.capacity.connections import SWEEP_SECONDS as SWEEP_CONNECTIONS
from assistant_gateway.capacity.listening import PacedSite
from assistant_gateway.config import Settings
from assistant_gateway.ledger.compare import Comparison
from assistant_gateway.ledger.database import LedgerDatabase
from assistant_gateway.ledger.drain import Drain
from assistant_gateway.ledger.limiter import limiter_with_ledger
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import SCRIPT
from assistant_gateway.limits.redis import Redis
from assistant_gateway.metering.call import forget_tenant, keep_series
from assistant_gateway.operations import Operations
from assistant_gateway.providers.catalog import Catalog
from assistant_gateway.providers.client import preload
from assistant_gateway.providers.egress import GuardedResolver
from assistant_gateway.providers.openai_wire import Upstream
from assistant_gateway.tenants.identity import SigningKeys
from assistant_gateway.tenants.kubernetes import Cluster
from assistant_gateway.tenants.policies import Policies
from assistant_gateway.tenants.routing import Tenant
from assistant_gateway.usage.report import UsageReports
from assistant_observability import logs, traces

KEEP_ALIVE_SECONDS = 300.0  # longer than any client keeps an idle connection
GOODBYE_SECONDS = 2.0  # for the last events of streams that were interrupted
SETTLE_SECONDS = 2.0  # for calls that Redis has not heard the end of
LEDGER_SECONDS = 2.0  # for entries that are not in Postgres; other processes move what is left
SWEEP_SECONDS = 300.0
CLOSE_SECONDS = 2.0  # for connections to stores and providers
# What comes after the time for running answers, at most; the pod's grace period has to hold it.
FAREWELL_SECONDS = 3 * GOODBYE_SECONDS + SETTLE_SECONDS + LEDGER_SECONDS + CLOSE_SECONDS
RESTART_SECONDS = (1.0, 30.0)
BACKLOG = 1024

_log = logs.logger(__name__)


class Server:
    """One running gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._runners: list[web.AppRunner] = []
        self._closing = contextlib.AsyncExitStack()
        self._gateway: Gateway | None = None
        self._operations: Operations | None = None
        self._limiter: Limiter | None = None
        self._drain: Drain | None = None
        self.port = 0
        self.metrics_port = 0

    async def start(self) -> None:
        """Build everything, begin to follow the cluster, and listen.

        Raises:
            CatalogError, ValueError, OSError: a setting, the catalogue or a port cannot be used.
        """
        settings = self._settings
        catalog = Catalog(settings.catalog_file, settings.provider_keys_dir)
        catalog.load()
        cluster = Cluster(settings.cluster_url(), settings.kubernetes_credentials_dir)
        self._closing.push_async_callback(cluster.close)
        keys = SigningKeys(cluster, settings.issuer_url)
        redis, ledger, reports = self._stores()
        limiter = self._limiter = limiter_with_ledger(redis, ledger)

        def forget(tenant: Tenant) -> None:
            forget_tenant(tenant.namespace)
            limiter.forget(tenant.terms.limits.tenant)
            if self._gateway is not None:
                self._gateway.bulkheads.forget(tenant.namespace)

        policies = Policies(cluster, settings.routes_namespace, forget, _keep_series)
        upstream = Upstream(GuardedResolver(lambda: catalog.allow_hosts))
        self._closing.push_async_callback(upstream.close)
        exported = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        tracer = traces.tracer(__name__) if exported else None
        clients = Clients(keys, policies, catalog, limiter, upstream, tracer, reports=reports)
        self._gateway = create_app(settings, clients)
        self._operations = Operations(keys, policies, limiter)
        gateway = self._gateway
        self._follow("garbage", lambda: garbage.run(lambda: gateway.running))
        self._follow("signing keys", keys.run)
        self._follow("policies", policies.run)
        self._follow("catalogue", catalog.run)
        self._tasks.append(asyncio.create_task(preload(lambda: catalog.targets), name="translation"))
        if redis is not None:
            self._follow("redis", redis.run)
            self._follow("settlement", limiter.run)
            self._follow("sweep", lambda: self._sweep(limiter, policies))
            self._follow_ledger(redis, ledger, limiter, policies)
        else:
            _log.warning("no Redis configured: request rates hold for this process alone, and nothing is accounted for")
        logging.getLogger("aiohttp.server").addFilter(_is_worth_a_line)
        self.metrics_port = await self._listen(self._operations.application, settings.metrics_port)
        self.port = await self._listen(self._gateway.application, settings.port)
        self._follow("connections", self._sweep_connections)
        _log.info("gateway listening", port=self.port, metrics_port=self.metrics_port)

    def _stores(self) -> tuple[Redis | None, LedgerDatabase | None, UsageReports | None]:
        """Return Redis, the ledger and reports from it, as far as they are configured; nothing is connected yet."""
        settings = self._settings
        redis = None
        if settings.redis_url:
            redis = Redis(settings.redis_url, SCRIPT, answer_seconds=settings.redis_answer_seconds)
        ledger = LedgerDatabase(settings.ledger_url) if settings.ledger_url and redis is not None else None
        reports = UsageReports.of(settings.ledger_url, redis) if settings.ledger_url else None
        for store in (redis, ledger, reports):
            if store is not None:
                self._closing.push_async_callback(store.close)
        return redis, ledger, reports

    def _follow(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(_keep_running(name, run), name=name))

    @staticmethod
    async def _sweep(limiter: Limiter, policies: Policies) -> None:
        """Forget what Redis counts of assistants that are no more, now and then, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1))  # noqa: S311
            for tenant in policies.every():
                await limiter.drop_scopes(tenant.terms.limits, tenant.levels)

    def _follow_ledger(self, redis: Redis, ledger: LedgerDatabase | None, limiter: Limiter, policies: Policies) -> None:
        if ledger is None:
            _log.warning("no Postgres configured for the ledger: entries stay in Redis, which grows with each call")
            return
        self._drain = Drain(
            redis,
            ledger,
            lambda: [tenant.terms.limits.tenant for tenant in policies.every()],
            lambda state: limiter.expect(state.tenant, state.epoch, state.entries),
            self._settings.ledger_drain_seconds,
            limiter.note_waiting,
        )
        comparison = Comparison(
            redis,
            ledger,
            lambda: {
                tenant.terms.limits.tenant: (tenant.namespace, tenant.terms.limits) for tenant in policies.every()
            },
            self._settings.ledger_compare_seconds,
        )
        self._follow("ledger", self._drain.run)
        self._follow("ledger comparison", comparison.run)

    async def _listen(self, application: web.Application, port: int) -> int:
        runner = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,  # a client that hangs up ends its call
            auto_decompress=False,  # a compressed body would be a hundred times what was admitted
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            shutdown_timeout=GOODBYE_SECONDS,
        )
        await runner.setup()
        self._runners.append(runner)
        await PacedSite(runner, _socket(self._settings.host, port), backlog=BACKLOG).start()
        return int(runner.addresses[0][1])

    async def stop(self, *, drain_seconds: float | None = None) -> None:
        """Go down: say so, serve until everyone knows, let streams end, end those that do not, close."""
        if self._gateway is not None and self._operations is not None:
            self._gateway.draining = self._operations.draining = True
            self._close_idle(self._gateway)
            await asyncio.sleep(self._settings.drain_seconds if drain_seconds is None else drain_seconds)
            for site in list(self._runners[-1].sites):
                await site.stop()
            await self._quiet(self._gateway, self._settings.stream_seconds)
            if self._gateway.running:
                _log.warning("streams interrupted", streams=self._gateway.relay.running)
                self._gateway.relay.interrupt()
                await self._quiet(self._gateway, GOODBYE_SECONDS)
        for runner in reversed(self._runners):
            await runner.cleanup()
        if self._limiter is not None:
            await self._limiter.close(SETTLE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._drain is not None:
            await self._drain.close(LEDGER_SECONDS)
        with contextlib.suppress(TimeoutError):  # a store that does not answer must not take the grace period
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._closing.aclose()

    def _close_idle(self, gateway: Gateway) -> None:
        """Close the connections on which nothing is asked: a request that came on one later would be cut off."""
        server = self._runners[-1].server
        for connection in list(server.connections) if server is not None else ():
            if connection not in gateway.connections.busy:
                connection.force_close()

    async def _sweep_connections(self) -> None:
        """Close what is too many connections, for ever."""
        while True:
            await asyncio.sleep(SWEEP_CONNECTIONS)
            server = self._runners[-1].server
            if self._gateway is None or server is None:
                continue
            for connection in self._gateway.connections.surplus(server.connections, asyncio.get_running_loop().time()):
                connection.force_close()

    @staticmethod
    async def _quiet(gateway: Gateway, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while gateway.running and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110  # seldom, and short
            await asyncio.sleep(0.05)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Keep out what any client can cause at will: requests that are not HTTP are answered 400, which is enough."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def _socket(host: str, port: int) -> socket.socket:
    """Return a listening socket on `host`, by default on all addresses, of both families where there are two."""
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    except (OSError, ValueError):  # no IPv6 here, as in many containers
        return socket.create_server(("", port), backlog=BACKLOG)


async def _keep_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run one of the endless tasks; a fault in one of them is logged and must not end the service of the others."""
    loop, delay = asyncio.get_running_loop(), RESTART_SECONDS[0]
    while True:
        started = loop.time()
        try:
            await run()
        except Exception:  # noqa: BLE001  # the edge of a task that must not end
            _log.exception("background task failed, starting it again", task=name)
        if loop.time() - started > RESTART_SECONDS[1]:
            delay = RESTART_SECONDS[0]
        await asyncio.sleep(delay)
        delay = min(delay * 2, RESTART_SECONDS[1])


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends the draining."""
    stop, at_once = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        (at_once if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    server = Server(settings)
    try:
        await server.start()
        await stop.wait()
        _log.info("gateway going down")
    finally:
        ending = asyncio.create_task(server.stop(drain_seconds=None if stop.is_set() else 0))
        hurrying = asyncio.create_task(at_once.wait())
        await asyncio.wait({ending, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not ending.done():
            ending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ending


def _keep_series(tenant: Tenant) -> None:
    """Have metrics hold what the tenant has now."""
    routes = [*tenant.assistants.values()]
    used = [to for route in routes for to in route.destinations] + [b.to for b in tenant.knowledge_bases.values()]
    models = {(to.provider, to.model) for to in used}
    keep_series(tenant.namespace, {*tenant.assistants, *tenant.knowledge_bases}, models)
