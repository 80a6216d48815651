"""What may change without any event: providers that stop answering, documents that are uploaded, money that is spent.

Asks lightly, between the runs, and wakes the queue for a tenant when the answer differs from what its status says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from assistant_observability import logs
from assistant_operator.observed import GatewayView
from assistant_operator.reconcile.context import Context, Report
from assistant_operator.reconcile.probe import ask_gateway, count
from assistant_operator.usage import digest

# Questions per second over all tenants, at most: with many tenants each is asked less often.
RATE = 40.0
# Up to so many tenants documents are counted each time as well: what was uploaded shows within seconds.
FEW = 50
_log = logs.logger(__name__)


class Observer:
    """Compares what was reported with what is.

    Among many tenants, models are asked about three times as often as documents that nobody is adding to.
    """

    def __init__(self, context: Context, wake: Callable[[str], None], rate: float = RATE) -> None:
        self._context = context
        self._wake = wake
        self._rate = rate
        self._rounds = 0

    async def watch(self) -> None:
        """Ask about every tenant, for ever."""
        while True:
            started = asyncio.get_running_loop().time()
            await self.round()
            took = asyncio.get_running_loop().time() - started
            await asyncio.sleep(max(0.1, self._context.settings.observe_seconds / 3 - took))

    async def round(self) -> None:
        """Ask about every tenant once, evenly spread."""
        counting = self._rounds % 3 == 0 or len(self._context.memory.reported) <= FEW
        self._rounds += 1
        async with asyncio.TaskGroup() as group:
            for namespace, report in list(self._context.memory.reported.items()):
                group.create_task(self._one(namespace, report, counting=counting))
                await asyncio.sleep(1 / self._rate)

    def _usage_changed(self, namespace: str, report: Report, gateway: GatewayView) -> bool:
        """Return whether the usage is worth a run: a limit is reached or left, or a minute has passed."""
        if gateway.probe is None or gateway.probe.usage is None:
            return False
        found = digest(report.quotas, gateway.probe.usage)
        if report.usage is None or found.alarms != report.usage.alarms:
            return True
        due = self._context.memory.usage_due.get(namespace, 0.0)
        return found.shown != report.usage.shown and self._context.monotonic() >= due

    async def _one(self, namespace: str, report: Report, *, counting: bool) -> None:
        try:
            gateway = await ask_gateway(namespace, self._context)
            changed = gateway.steady != report.gateway or self._usage_changed(namespace, report, gateway)
            ingesting = any(counts.pending for counts in report.counts.values())
            if not changed and report.knowledge_bases and (counting or ingesting):
                counts = await count(report.tenant, report.knowledge_bases, self._context)
                changed = bool(counts) and counts != report.counts
        except Exception:  # noqa: BLE001 - one tenant's trouble must not end the round for the others
            _log.exception("could not be observed", namespace=namespace)
            return
        if changed and self._context.memory.reported.get(namespace) is report:
            self._wake(namespace)
