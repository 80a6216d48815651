"""Ask the dependencies, remember the answers, and decide what they mean for this process.

Readiness waits at start until everything that the configuration needs has answered once, so that a rollout with a
wrong credential never replaces a working pod. After that an outage no longer takes the pod out of service: a caller
who is told what is missing is better off than one whose connection is refused, and an assistant without knowledge
does not need the vector store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from assistant_api.clients import Clients, Pingable
from assistant_api.gateway import GatewayError
from assistant_api.health.schemas import Basic, Check, Detailed, Problem, Status
from assistant_api.tenant_config import NotConfiguredError, TenantConfigHolder
from assistant_crds.contracts import Readiness
from assistant_observability import logs, metrics

GATEWAY = "gateway"
POSTGRES = "postgres"
REDIS = "redis"
WEAVIATE = "weaviate"

PING_TIMEOUT_SECONDS = 3.0
STARTUP_INTERVAL_SECONDS = 0.25  # while something has not answered yet
STEADY_INTERVAL_SECONDS = 30.0
CACHE_TTL_SECONDS = 1.0  # health answers are public: asking them often must not burden the stores

_log = logs.logger(__name__)


class Health:
    """The state of this process and of what it depends on."""

    def __init__(self, clients: Clients, config: TenantConfigHolder) -> None:
        self._dependencies: Mapping[str, Pingable] = {
            GATEWAY: clients.gateway,
            POSTGRES: clients.database,
            REDIS: clients.redis,
            WEAVIATE: clients.weaviate,
        }
        self._config = config
        self._last: dict[str, tuple[float, Check]] = {}
        self._locks = {name: asyncio.Lock() for name in self._dependencies}
        self.started = asyncio.Event()  # everything needed has answered once
        self._task: asyncio.Task[None] | None = None
        self._draining = False

    @property
    def dependencies(self) -> list[str]:
        """The names that `check` knows."""
        return list(self._dependencies)

    def drain(self) -> None:
        """Say from now on that no new request should come here."""
        self._draining = True

    def basic(self) -> Basic:
        """Return the state of the process alone."""
        return Basic("unhealthy" if self._draining or not self._config.generation else "healthy")

    async def check(self, name: str) -> Check:
        """Ask one dependency, or return its answer of the last second."""
        async with self._locks[name]:
            last = self._last.get(name)
            if last is not None and time.monotonic() - last[0] < CACHE_TTL_SECONDS:
                return last[1]
            check = await self._ask(name)
            before = last[1].status if last else None
            self._last[name] = (time.monotonic(), check)
        metrics.DEPENDENCY_UP.labels(name).set(1 if check.status == "healthy" else 0)
        if before != check.status and (before or check.status != "healthy"):
            _log.info("dependency changed", dependency=name, status=check.status, reason=check.error)
        return check

    async def detailed(self) -> Detailed:
        """Ask every dependency at once."""
        names = self.dependencies
        checks = dict(zip(names, await asyncio.gather(*(self.check(name) for name in names)), strict=True))
        return Detailed(self._overall(checks), checks)

    def readiness(self) -> Readiness:
        """Return whether requests should come here; answered from memory."""
        checks = {"configuration": self._config.problem or "ok"}
        for name in self._required():
            last = self._last.get(name)
            checks[name] = "not asked yet" if last is None else (last[1].error or "ok")
        if self._draining:
            checks["shutdown"] = "in progress"
        ready = self.started.is_set() and bool(self._config.generation) and not self._draining
        return Readiness(
            status="ready" if ready else "not_ready", config_generation=self._config.generation, checks=checks
        )

    async def start(self) -> None:
        """Begin to ask the dependencies in the background."""
        self._task = asyncio.create_task(self._observe(), name="health")

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _required(self) -> list[str]:
        """Return what the configured assistants cannot do without."""
        try:
            active_config = self._config.current
        except NotConfiguredError:
            return []
        return [GATEWAY, POSTGRES, WEAVIATE] if active_config.knowledge_bases else [GATEWAY]

    def _overall(self, checks: Mapping[str, Check]) -> Status:
        if not self._config.generation or checks[GATEWAY].status != "healthy":
            return "unhealthy"
        return "healthy" if all(check.status == "healthy" for check in checks.values()) else "degraded"

    async def _observe(self) -> None:
        while True:
            required = self._required()
            checks = await asyncio.gather(*(self.check(name) for name in required))
            if required and all(check.status == "healthy" for check in checks):
                self.started.set()
            await asyncio.sleep(STEADY_INTERVAL_SECONDS if self.started.is_set() else STARTUP_INTERVAL_SECONDS)
            self._forget_failures()

    def _forget_failures(self) -> None:
        # A failure is not worth remembering for as long as an answer: what waits for the store goes on sooner.
        self._last = {
            name: (asked if check.status == "healthy" else 0.0, check) for name, (asked, check) in self._last.items()
        }

    async def _ask(self, name: str) -> Check:
        started = time.perf_counter()
        problem: Problem | None = None
        try:
            async with asyncio.timeout(PING_TIMEOUT_SECONDS):
                await self._dependencies[name].ping()
        except Exception as error:  # noqa: BLE001  whatever a client raises means "not there"
            problem = _problem(error)
        elapsed = round((time.perf_counter() - started) * 1000, 1)
        return Check("unhealthy" if problem else "healthy", elapsed, problem)


def _problem(error: Exception) -> Problem:
    if isinstance(error, NotConfiguredError):
        return "not_configured"
    if isinstance(error, TimeoutError) or "timed out" in str(error).lower():
        return "timeout"
    status = error.status if isinstance(error, GatewayError) else getattr(error, "status", None)
    refused = ("Auth", "Permission", "InvalidPassword", "NoPermission")
    if status in {401, 403} or any(word in type(error).__name__ for word in refused):
        return "refused"
    return "unreachable"
