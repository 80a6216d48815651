"""What may change without any event: providers that stop answering, documents that are uploaded, money that is spent.

Polls between the runs, and enqueues a tenant when the response differs from what its status says. The gateway is
polled for all tenants at once and reports what is new; documents are counted where rows were written.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial

from assistant_crds import naming
from assistant_observability import logs
from assistant_operator.errors import StoreUnreachableError
from assistant_operator.reconcile.context import Context, Report
from assistant_operator.reconcile.probe import ask_gateway, count
from assistant_operator.tenant.observation import GatewayView
from assistant_operator.tenant.usage import Digest, digest

# Tenants whose documents are counted per second, at most: with many of them a round takes longer.
RATE = 40.0
# Up to so many tenants documents are counted in each round where Postgres cannot say which have changed.
FEW = 50
# Vectors may change without any row: that is found at the latest after so long, or by the next run.
COUNT_SECONDS = 120.0
# A day or month ends at the same moment for every tenant of a time zone: their statuses are written over so long.
TURN_SECONDS = 60.0
_log = logs.logger(__name__)


class Poller:
    """Compares what was reported with what is."""

    def __init__(self, context: Context, enqueue: Callable[[str], None], rate: float = RATE) -> None:
        self._context = context
        self._enqueue = enqueue
        self._rate = rate
        self._rounds = 0
        self._activity: dict[str, int] = {}  # by tenant, as of when its documents were counted
        self._count_due: dict[str, float] = {}  # by tenant
        self._turned: dict[str, str] = {}  # by namespace: the window whose beginning was spread

    async def watch(self) -> None:
        """Poll every tenant, for ever."""
        while True:
            started = asyncio.get_running_loop().time()
            await self.round()
            took = asyncio.get_running_loop().time() - started
            pause = self._context.settings.observe_seconds / 3 * random.uniform(0.8, 1.2)  # noqa: S311
            await asyncio.sleep(max(0.1, pause - took))

    async def round(self) -> None:
        """Poll every tenant once."""
        reported = self._context.memory.reported
        activity = await self._rows_written()
        clocked = activity is None and (self._rounds % 3 == 0 or len(reported) <= FEW)
        self._rounds += 1
        for known in (self._activity, self._count_due, self._turned):
            if len(known) > 2 * len(reported) + 100:  # most of them are gone
                known.clear()
        counting = asyncio.Semaphore(4)
        async with asyncio.TaskGroup() as group:
            for namespace, report in list(reported.items()):
                due = partial(self._is_due, report, activity) if activity is not None else lambda: clocked
                group.create_task(self._one(namespace, report, due, counting))

    async def _rows_written(self) -> Mapping[str, int] | None:
        """Return a number by database that grows with its rows; None where that is not known."""
        try:
            bases = any(report.knowledge_bases for report in self._context.memory.reported.values())
            if not bases or self._context.health.error("postgres"):
                return None
            return await self._context.postgres.activity()
        except StoreUnreachableError:
            return None
        except Exception:  # noqa: BLE001 - documents are then counted by the clock
            _log.exception("the stores' activity could not be asked for")
            return None

    def _is_due(self, report: Report, activity: Mapping[str, int]) -> bool:
        """Return whether a tenant's documents are to be counted: rows were written, are about to be, or long ago."""
        tenant, now = report.tenant, self._context.monotonic()
        written = activity.get(naming.database(tenant), -1)
        ingesting = any(counts.pending for counts in report.counts.values())
        due = self._count_due.get(tenant, 0.0)
        if not ingesting and self._activity.get(tenant) == written and now < due:
            return False
        # Once more after the last change: vectors are written beside the rows.
        settled = self._activity.get(tenant) == written
        self._activity[tenant] = written
        self._count_due[tenant] = now + COUNT_SECONDS * random.uniform(0.8, 1.2) if settled else now  # noqa: S311
        return True

    def _usage_changed(self, namespace: str, report: Report, gateway: GatewayView) -> bool:
        """Return whether the usage is worth a run: a limit is reached or left, or a minute has passed."""
        if gateway.probe is None or gateway.probe.usage is None:
            return False
        found = digest(report.quotas, gateway.probe.usage)
        if report.usage is None or found.alarms != report.usage.alarms:
            return True
        due = self._context.memory.usage_due.get(namespace, 0.0)
        if found.shown == report.usage.shown or self._context.monotonic() < due:
            return False
        window = _window(found)
        if _window(report.usage) in {"", window} or self._turned.get(namespace) == window:
            return True
        self._turned[namespace] = window
        later = self._context.monotonic() + random.uniform(0, TURN_SECONDS)  # noqa: S311 - spreads load, no secret
        self._context.memory.usage_due[namespace] = later
        return False

    async def _one(
        self, namespace: str, report: Report, is_due: Callable[[], bool], counting: asyncio.Semaphore
    ) -> None:
        try:
            gateway = await ask_gateway(namespace, self._context)
            changed = gateway.steady != report.gateway or self._usage_changed(namespace, report, gateway)
            if not changed and report.knowledge_bases and is_due():
                async with counting:
                    counts = await count(report.tenant, report.knowledge_bases, self._context)
                    await asyncio.sleep(1 / self._rate)
                changed = bool(counts) and counts != report.counts
        except Exception:  # noqa: BLE001 - one tenant's trouble must not end the round for the others
            _log.exception("could not be polled", namespace=namespace)
            return
        if changed and self._context.memory.reported.get(namespace) is report:
            self._enqueue(namespace)


def _window(shown: Digest) -> str:
    """Return when the windows of what is shown end; empty where nothing is."""
    return " ".join(sorted({level.resets_at or "" for level in (shown.shown or {}).values()}))
