"""Counters from the ledger, for a Redis that has lost its own or never had any.

As long as nothing drains the stream, the stream is the whole ledger: it has no maximal length, and entries leave it
only after they are elsewhere.
"""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from assistant_gateway import ledger
from assistant_gateway.limits.levels import Amount, Limits
from assistant_gateway.limits.quota import Quota, Totals
from assistant_gateway.limits.redis import Redis, UnavailableError
from assistant_gateway.limits.windows import Windows
from assistant_observability import logs

PAGE = 1000
LATELY = 3_600_000_000  # how long the script remembers what was settled
ATTEMPTS = 5

_log = logs.logger(__name__)


class _Sums:
    """What one scope used: day's tokens and cost, month's, entries, tokens and cost ever."""

    def __init__(self) -> None:
        self.numbers = [0] * 7

    def add(self, entry: ledger.LedgerEntry, *, today: bool, this_month: bool) -> None:
        """Count one entry."""
        amounts = (entry.tokens, entry.cost)
        wanted = (*(amounts if today else (0, 0)), *(amounts if this_month else (0, 0)), 1, *amounts)
        self.numbers = [before + more for before, more in zip(self.numbers, wanted, strict=True)]


class Counts:
    """The sum of a ledger's entries as of one moment."""

    def __init__(self, zone: ZoneInfo, now: int) -> None:
        self._windows = Windows.at(zone, now)
        self._now = now
        self._scopes: dict[str, _Sums] = defaultdict(_Sums)
        self.last = "0-0"
        self.lately: list[tuple[str, Amount]] = []

    def add(self, at: int, entry: ledger.LedgerEntry) -> None:
        """Count an entry that was settled at `at`."""
        today, month = at >= self._windows.day[0], at >= self._windows.month[0]
        for field in ("tenant", *((f"assistant:{entry.scope}",) if entry.scope else ())):
            self._scopes[field].add(entry, today=today, this_month=month)
        if at > self._now - LATELY:
            self.lately.append((entry.call, Amount(entry.tokens, entry.cost)))

    def totals(self) -> list[Totals]:
        """Return what `restore` wants; the tenant is always there."""
        self._scopes["tenant"]  # makes it
        return [Totals(field, *sums.numbers) for field, sums in self._scopes.items()]


async def rebuild(redis: Redis, quota: Quota, limits: Limits) -> None:
    """Restore a tenant's counters from its stream.

    Raises:
        UnavailableError: Redis does not answer, or others append faster than this reads.
    """
    for _ in range(ATTEMPTS):
        counts = await _read(redis, limits)
        await quota.recall(limits, counts.lately)
        if await quota.restore(limits, time.time_ns() // 1000, counts.last, counts.totals()):
            entries = next(total.entries for total in counts.totals() if total.field == "tenant")
            _log.info("counters restored from the ledger's stream", tenant=limits.tenant, entries=entries)
            return
    raise UnavailableError("the ledger's stream grows faster than it is read")


async def _read(redis: Redis, limits: Limits) -> Counts:
    seconds, micros = await redis.command("TIME")
    counts = Counts(limits.zone, int(seconds) * 1_000_000 + int(micros))
    start = "-"
    while True:
        page = await redis.command("XRANGE", limits.keys[4], start, "+", "COUNT", PAGE)
        for name, fields in page:
            counts.last = name.decode()
            try:
                counts.add(int(fields[b"at"]), ledger.decode(fields[b"entry"]))
            except (KeyError, ValueError, msgspec.MsgspecError) as error:
                # Nobody knows what it cost: to admit calls without it would be to forget it.
                _log.error("entry of the ledger's stream is not understood", tenant=limits.tenant, entry=counts.last)
                raise UnavailableError(f"entry {counts.last} is not understood") from error
        if len(page) < PAGE:
            return counts
        start = f"({counts.last}"


def rfc3339(microseconds: int) -> str:
    """Return an instant as Kubernetes writes it."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
