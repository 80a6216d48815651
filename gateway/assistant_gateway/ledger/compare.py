"""Whether the ledger is what was counted, looked at now and then, tenant by tenant. Differences are told, never mended.

The counters are read before and after the ledger is added up, and nobody moves entries meanwhile: so the ledger has to
lie between the two, however many calls are settled at the same time.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping

import msgspec

from assistant_gateway.ledger.database import LedgerDatabase, LedgerUnavailableError
from assistant_gateway.ledger.rebuild import Counts, count
from assistant_gateway.limits.limit_scope import Limits
from assistant_gateway.limits.quota import Quota, ScopeUsage, Totals
from assistant_gateway.limits.redis import Redis, UnavailableError
from assistant_observability import logs, metrics

TURN = "quota:ledger-comparison"  # whose turn it is
WHAT = ("entries", "tokens", "cost_micros")
SHOWN = 5

_log = logs.logger(__name__)


class Drift(msgspec.Struct, frozen=True):
    """A number of the ledger that lies outside of what was counted before and after it was added up."""

    scope: str
    what: str  # one of WHAT
    window: str  # day, month, ever
    ledger: int
    counted: int  # the nearer one

    @property
    def size(self) -> int:
        """How far they are apart."""
        return abs(self.ledger - self.counted)


def compare(before: Mapping[str, ScopeUsage], ledger: Counts, after: Mapping[str, ScopeUsage]) -> list[Drift]:
    """Return the differences. What had another window at one of the three looks is left out: its day was just over."""
    totals = {total.field: total for total in ledger.totals()}
    day, month = ledger.windows.day[:2], ledger.windows.month[:2]
    found = []
    for scope in sorted({*totals, *before, *after}):
        low, high = (_numbers(usage.get(scope), day, month) for usage in (before, after))
        for (what, window), number in _ledger_numbers(totals.get(scope)).items():
            least, most = low[what, window], high[what, window]
            if least is None or most is None or least <= number <= most:
                continue
            found.append(Drift(scope, what, window, number, least if number < least else most))
    return found


def _counts(drift: Drift, known: set[str]) -> bool:
    """Whether a difference means something. Counters of assistants that are no more are forgotten, the ledger's stay.

    So an assistant may have more in the ledger of all time than in its counters; what is lost shows in the tenant's.
    """
    if drift.scope == "tenant":
        return True
    return drift.scope in known and (drift.window != "ever" or drift.counted > drift.ledger)


def _ledger_numbers(total: Totals | None) -> dict[tuple[str, str], int]:
    total = total or Totals("", 0, 0, 0, 0, 0, 0, 0)
    return {
        ("entries", "ever"): total.entries,
        ("tokens", "ever"): total.tokens,
        ("cost_micros", "ever"): total.cost,
        ("tokens", "day"): total.day_tokens,
        ("cost_micros", "day"): total.day_cost,
        ("tokens", "month"): total.month_tokens,
        ("cost_micros", "month"): total.month_cost,
    }


def _numbers(
    usage: ScopeUsage | None, day: tuple[int, ...], month: tuple[int, ...]
) -> dict[tuple[str, str], int | None]:
    if usage is None:
        return dict.fromkeys(_ledger_numbers(None), 0)
    counted = usage.counted
    same_day, same_month = counted.day == day, counted.month == month
    return {
        ("entries", "ever"): usage.entries,
        ("tokens", "ever"): usage.tokens,
        ("cost_micros", "ever"): usage.cost,
        ("tokens", "day"): counted.day_tokens if same_day else None,
        ("cost_micros", "day"): counted.day_cost if same_day else None,
        ("tokens", "month"): counted.month_tokens if same_month else None,
        ("cost_micros", "month"): counted.month_cost if same_month else None,
    }


class Comparison:
    """Compares all tenants now and then; of several processes one does it each time."""

    def __init__(
        self,
        redis: Redis,
        database: LedgerDatabase,
        tenants: Callable[[], Mapping[str, tuple[str, Limits]]],
        seconds: float,
    ) -> None:
        """`tenants`: namespace and limits by tenant key."""
        self._redis = redis
        self._quota = Quota(redis)  # of its own: what it sees is not what this process's calls have seen
        self._database = database
        self._tenants = tenants
        self._seconds = seconds
        self._process = os.urandom(8).hex()
        self._drifting: dict[str, tuple[str, tuple[Drift, ...]]] = {}  # by tenant key

    async def run(self) -> None:
        """Compare whenever it is this process's turn, for ever."""
        while True:
            await asyncio.sleep(self._seconds * random.uniform(0.5, 1))  # noqa: S311
            try:
                if await self._redis.command("SET", TURN, self._process, "NX", "PX", int(self._seconds * 1000)):
                    await self.turn()
                else:
                    self._hand_over()
            except UnavailableError:  # Redis: who looks after it says so
                pass

    async def turn(self) -> None:
        """Compare every tenant."""
        tenants = self._tenants()
        for gone in [key for key in self._drifting if key not in tenants]:
            self._note(gone, self._drifting[gone][0], [])
        for key, (namespace, limits) in tenants.items():
            try:
                found = await self.tenant(limits)
            except LedgerUnavailableError:  # the drain says so
                metrics.LEDGER_ERRORS.labels("compare").inc()
                return
            if found is not None:
                self._note(key, namespace, found)
        metrics.LEDGER_COMPARED.set(time.time())

    async def tenant(self, limits: Limits) -> list[Drift] | None:
        """Compare one tenant; None: its counters wait for a rebuild, or have just had one.

        Raises:
            LedgerUnavailableError, UnavailableError: nobody can say.
        """
        async with self._database.books(limits.tenant, wait=True) as books:
            epoch, before = await self._quota.epoch(limits), await self._quota.usage(limits)
            counts = await count(self._redis, limits, books)
            after = await self._quota.usage(limits)
            if not epoch or epoch != await self._quota.epoch(limits):
                return None
        return [drift for drift in compare(before, counts, after) if _counts(drift, {*before, *after})]

    def _note(self, key: str, namespace: str, found: list[Drift]) -> None:
        _, told = self._drifting.pop(key, ("", ()))
        for what in WHAT:
            sizes = [drift.size for drift in found if drift.what == what]
            if sizes:
                metrics.LEDGER_DRIFT.labels(namespace, what).set(max(sizes))
            elif told:
                metrics.LEDGER_DRIFT.remove(namespace, what)
        if found:
            self._drifting[key] = (namespace, tuple(found))
        if found and tuple(found) != told:
            shown = [msgspec.structs.asdict(drift) for drift in found[:SHOWN]]
            _log.error("ledger and counters differ", tenant=namespace, differences=len(found), first=shown)
        elif told and not found:
            _log.info("ledger and counters agree again", tenant=namespace)

    def _hand_over(self) -> None:
        """Show nothing any more: another process looks."""
        for namespace, _ in self._drifting.values():
            for what in WHAT:
                metrics.LEDGER_DRIFT.remove(namespace, what)
        self._drifting.clear()
