"""Find the next document to work on, do it, record how it ended; a bounded number at a time, for ever.

A failure that may pass puts the document back with a growing delay, and lets its whole knowledge base rest for a
moment: a model that is away should be asked once a minute, not once a minute for each of a thousand documents.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg
from opentelemetry.trace import SpanKind
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.clients import Database
from assistant_api.database.errors import DATABASE_ERRORS
from assistant_api.knowledge import jobs
from assistant_api.knowledge.ingestion import Ingestion, RejectedError, UnavailableError
from assistant_api.knowledge.jobs import Job
from assistant_api.knowledge.lease import Lease, LeaseLostError
from assistant_api.knowledge.repository import CHANNEL
from assistant_api.knowledge.vectors import VectorRefusedError, VectorStoreError
from assistant_api.tenant_config import NotConfiguredError, TenantConfigHolder
from assistant_crds.contracts import KnowledgeBaseConfig
from assistant_observability import genai, logs, metrics, traces

POLL_INTERVAL_SECONDS = 5.0  # finds what a notification missed: a dead worker's job, a document whose delay is over
OUTAGE_RETRY_SECONDS = 1.0
MIN_RETRY_DELAY_SECONDS = 1.0
MAX_RETRY_DELAY_SECONDS = 60.0
MAX_REFUSALS = 60  # about an hour
MAX_ATTEMPTS = 4  # a document that has ended the worker this often does not get another chance
MAX_SETTLE_ATTEMPTS = 5

_log = logs.logger(__name__)
_tracer = traces.tracer(__name__)


@dataclass
class Cooldowns:
    """Which knowledge bases are left alone, until when, and how long the next rest would be."""

    _until: dict[str, float] = field(default_factory=dict)
    _delay: dict[str, float] = field(default_factory=dict)

    def active(self, keys: list[str], now: float) -> list[str]:
        """Return those of `keys` that do not rest."""
        return [key for key in keys if self._until.get(key, 0.0) <= now]

    def rest(self, key: str, now: float, at_least: float) -> float:
        """Let `key` rest, each time in a row twice as long, and return for how many seconds."""
        delay = min(
            max(self._delay.get(key, MIN_RETRY_DELAY_SECONDS), at_least), max(MAX_RETRY_DELAY_SECONDS, at_least)
        )
        if self._until.get(key, 0.0) <= now:  # several documents that fail together are one failure
            self._delay[key] = min(delay * 2, MAX_RETRY_DELAY_SECONDS)
            self._until[key] = now + delay
        return delay

    def wake(self, key: str) -> None:
        """`key` works: forget its failures."""
        self._until.pop(key, None)
        self._delay.pop(key, None)

    def next(self, keys: list[str], now: float) -> float | None:
        """Return in how many seconds the first of `keys` has rested enough, None if none rests."""
        waits = [self._until[key] - now for key in keys if self._until.get(key, 0.0) > now]
        return min(waits, default=None)


class Dispatcher:
    """Works through the documents of every configured knowledge base."""

    def __init__(
        self, database: Database, ingestion: Ingestion, config: TenantConfigHolder, concurrency: int = 4
    ) -> None:
        self._database = database
        self._ingestion = ingestion
        self._config = config
        self._concurrency = concurrency
        self._running: set[asyncio.Task[None]] = set()
        self._rests = Cooldowns()
        self._wake = asyncio.Event()
        # The connection that listens also looks for jobs: a worker that has nothing to do keeps this one only.
        self._listening: AsyncConnection | None = None
        self._last_turn = time.monotonic()

    @property
    def idle_for(self) -> float:
        """Seconds since the loop last went round; it does so every few seconds however little there is to do."""
        return time.monotonic() - self._last_turn

    async def run(self) -> None:
        """Work until cancelled; jobs under way are then given back."""
        self._config.subscribe(lambda active_config: self._wake.set())
        listening = asyncio.create_task(self._listen(), name="listen")
        try:
            while True:
                self._last_turn = time.monotonic()
                self._wake.clear()
                await self._turn()
        finally:
            listening.cancel()
            for task in self._running:
                task.cancel()
            await asyncio.gather(listening, *self._running, return_exceptions=True)

    async def _turn(self) -> None:
        """Start one job, or wait until there may be one."""
        if len(self._running) >= self._concurrency:
            await self._pause(POLL_INTERVAL_SECONDS)
            return
        bases = self._knowledge_bases()
        keys = list(bases)
        active = self._rests.active(keys, time.monotonic())
        try:
            async with self._looking() as connection:
                job = await jobs.claim(connection, active, jobs.LEASE_TTL_SECONDS) if active else None
                due = await jobs.next_due(connection, active) if active and job is None else None
        except DATABASE_ERRORS as error:
            _log.warning("database not available", reason=type(error).__name__)
            await asyncio.sleep(OUTAGE_RETRY_SECONDS)  # not woken: the listener's reconnection says nothing yet
            return
        if job is not None:
            self._start(job, bases[job.knowledge_base])
            return
        waits = [POLL_INTERVAL_SECONDS, self._rests.next(keys, time.monotonic()), due]
        await self._pause(max(0.05, min(wait for wait in waits if wait is not None)))

    @contextlib.asynccontextmanager
    async def _looking(self) -> AsyncIterator[AsyncConnection]:
        """Give a transaction for looking for a job. Only the loop calls this, never twice at a time."""
        listening = self._listening
        if listening is None:
            async with self._database.transaction() as connection:
                yield connection
        else:
            async with listening.begin():
                yield listening

    def _knowledge_bases(self) -> dict[str, KnowledgeBaseConfig]:
        # Documents of any other knowledge base wait: its configuration comes back, or the operator removes them.
        try:
            return {base.key: base for base in self._config.current.document.knowledge_bases}
        except NotConfiguredError:
            return {}

    def _start(self, job: Job, knowledge_base: KnowledgeBaseConfig) -> None:
        task = asyncio.create_task(self._do(job, knowledge_base), name=f"document {job.id}")
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a job ended unexpectedly; its lease runs out", exc_info=error)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _do(self, job: Job, knowledge_base: KnowledgeBaseConfig) -> None:
        """Do one job to an outcome that is recorded. Raises only what is a fault of ours."""
        context = traces.extract({"traceparent": job.traceparent}) if job.traceparent else None
        attributes = {genai.KNOWLEDGE_BASE: knowledge_base.name, "document.id": str(job.id)}
        lease, claimed = Lease(self._database, job), time.monotonic()
        with _tracer.start_as_current_span(
            f"{job.work} document", context=context, kind=SpanKind.CONSUMER, attributes=attributes
        ):
            try:
                result = await self._outcome(job, lease, knowledge_base)
            except LeaseLostError:
                # Taken over, or to be removed: whoever comes next must not wait for the lease to run out.
                await self._settle(lambda: self._release(job))
                result = "lost"
            except asyncio.CancelledError:
                await asyncio.shield(self._release(job))
                raise
        metrics.DOCUMENTS.labels(knowledge_base.name, result).inc()
        if result == "ready":
            metrics.INGEST_TIME_TO_READY.observe(job.age + time.monotonic() - claimed)
        _log.info("document done", document=str(job.id), knowledge_base=knowledge_base.name, result=result)

    async def _outcome(self, job: Job, lease: Lease, knowledge_base: KnowledgeBaseConfig) -> str:
        try:
            if job.work == "remove":
                await lease.holding(self._ingestion.remove(job, lease))
                result = "removed"
            elif job.attempts > MAX_ATTEMPTS:
                raise RejectedError("worker_died", "Ingesting the document ended the worker several times.")  # noqa: TRY301
            else:
                await lease.holding(self._ingestion.ingest(job, lease, knowledge_base))
                result = "ready"
        except RejectedError as error:
            return await self._reject(job, lease, error)
        except UnavailableError as error:
            return await self._postpone(job, lease, error)
        except VectorRefusedError as error:
            return await self._refused(job, lease, error)
        except VectorStoreError as error:
            return await self._postpone(job, lease, UnavailableError("vector_store_unavailable", str(error)))
        except DATABASE_ERRORS as error:
            message = f"The database did not answer ({type(error).__name__})."
            return await self._postpone(job, lease, UnavailableError("database_unavailable", message))
        self._rests.wake(job.knowledge_base)
        return result

    async def _reject(self, job: Job, lease: Lease, error: RejectedError) -> str:
        _log.info("document refused", document=str(job.id), code=error.code)
        try:
            await self._settle(lambda: self._ingestion.give_up(job, lease, error))
        except VectorStoreError as failure:
            return await self._postpone(job, lease, UnavailableError("vector_store_unavailable", str(failure)))
        return "failed"

    async def _refused(self, job: Job, lease: Lease, error: VectorRefusedError) -> str:
        """Try again later, because the store's rights or settings may be mended; but not for ever."""
        if job.work == "ingest" and job.retries >= MAX_REFUSALS:
            return await self._reject(job, lease, RejectedError("vector_store_refused", str(error)))
        return await self._again(job, lease, UnavailableError("vector_store_refused", str(error)), 0.0)

    async def _postpone(self, job: Job, lease: Lease, error: UnavailableError) -> str:
        rest = self._rests.rest(job.knowledge_base, time.monotonic(), error.retry_after or 0.0)
        return await self._again(job, lease, error, rest)

    async def _again(self, job: Job, lease: Lease, error: UnavailableError, at_least: float) -> str:
        delay = max(at_least, min(MIN_RETRY_DELAY_SECONDS * 2.0 ** min(job.retries, 30), MAX_RETRY_DELAY_SECONDS))
        delay *= random.uniform(1.0, 1.2)  # noqa: S311  so that they do not all come back at once
        _log.warning("document waits", document=str(job.id), code=error.code, reason=error.message, seconds=delay)
        await self._settle(lambda: lease.change(jobs.postpone, delay, error.code, error.message))
        return "postponed"

    async def _settle(self, record: Callable[[], Awaitable[None]]) -> None:
        """Record an outcome, through a short outage of the database; after a long one the lease has run out anyway."""
        for attempt in range(1, MAX_SETTLE_ATTEMPTS + 1):
            try:
                return await record()
            except DATABASE_ERRORS:
                if attempt == MAX_SETTLE_ATTEMPTS:
                    raise
                await asyncio.sleep(OUTAGE_RETRY_SECONDS * attempt)
        raise AssertionError("unreachable")

    async def _release(self, job: Job) -> None:
        async with self._database.transaction() as connection:
            await jobs.release(connection, job)

    async def _listen(self) -> None:
        """Wake the loop when the API says that there is work; without this it would be found by polling."""
        while True:
            with contextlib.suppress(*DATABASE_ERRORS):
                async with self._listener() as ended:
                    self._wake.set()
                    await ended.wait()
            await asyncio.sleep(OUTAGE_RETRY_SECONDS)

    @contextlib.asynccontextmanager
    async def _listener(self) -> AsyncIterator[asyncio.Event]:
        """Listen on a connection of its own; gives an event that is set when that connection ends."""
        ended = asyncio.Event()
        async with self._database.engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            if not isinstance(raw, asyncpg.Connection):
                raise TypeError("the worker needs asyncpg")
            raw.add_termination_listener(lambda connection: ended.set())
            await raw.add_listener(CHANNEL, lambda *notification: self._wake.set())
            self._listening = connection
            try:
                yield ended
            finally:
                self._listening = None
                await connection.invalidate()  # a listening connection must not serve others
