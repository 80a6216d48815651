"""Counters from the ledger, for a Redis that has lost its own or never had any.

The ledger is Postgres, and what the tenant's stream in Redis holds besides. Where no Postgres is configured the stream
is the whole ledger: nothing leaves it then.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from zoneinfo import ZoneInfo

from assistant_gateway.ledger import drain
from assistant_gateway.ledger.database import Books, LedgerDatabase, LedgerUnavailableError, ScopeSums
from assistant_gateway.ledger.rows import Reject, Row, moment, read
from assistant_gateway.limits.limit_scope import MAX_AMOUNT, Amount, Limits
from assistant_gateway.limits.quota import Quota, Totals
from assistant_gateway.limits.redis import Redis, UnavailableError
from assistant_gateway.limits.windows import Windows
from assistant_observability import logs, metrics

PAGE = 500
LATELY = 3_600_000_000  # how long the script remembers what was settled
ATTEMPTS = 5

_log = logs.logger(__name__)


class Counts:
    """The sum of a ledger's entries as of one moment."""

    def __init__(self, zone: ZoneInfo, now: int) -> None:
        self.windows = Windows.at(zone, now)
        self._now = now
        # By scope: tokens and cost of the day and of the month, entries, tokens and cost ever.
        self._scopes: dict[str, list[int]] = defaultdict(lambda: [0] * 7)
        self._calls: set[str] = set()
        self.last = "0-0"
        self.lately: list[tuple[str, Amount]] = []

    @property
    def since(self) -> datetime:
        """From when on the script has to be told of calls."""
        return moment(self._now - LATELY)

    def add_sums(self, sums: ScopeSums) -> None:
        """Count what Postgres has added up."""
        numbers = (sums.day_tokens, sums.day_cost, sums.month_tokens, sums.month_cost)
        self._add(sums.scope, (*numbers, sums.entries, sums.tokens, sums.cost))

    def add_row(self, row: Row) -> None:
        """Count an entry of the stream; one call counts once."""
        if row.call in self._calls:
            return
        self._calls.add(row.call)
        amounts = (row.tokens, row.cost)
        today = row.at >= moment(self.windows.day[0])
        month = row.at >= moment(self.windows.month[0])
        none = (0, 0)
        self._add(row.scope, (*(amounts if today else none), *(amounts if month else none), 1, *amounts))
        if row.at > self.since:
            self.lately.append((row.call, Amount(min(amounts[0], MAX_AMOUNT), min(amounts[1], MAX_AMOUNT))))

    def _add(self, scope: str, numbers: tuple[int, ...]) -> None:
        for field in ("tenant", *((f"assistant:{scope}",) if scope else ())):
            self._scopes[field] = [before + more for before, more in zip(self._scopes[field], numbers, strict=True)]

    def totals(self) -> list[Totals]:
        """Return what `restore` wants; the tenant is always there."""
        self._scopes["tenant"]  # makes it
        return [Totals(field, *numbers) for field, numbers in self._scopes.items()]


async def count(redis: Redis, limits: Limits, books: Books | None) -> Counts:
    """Add up a tenant's ledger. With `books` nobody moves entries meanwhile, so none is missed or counted twice.

    Raises:
        UnavailableError: Redis does not answer, or an entry cannot be read.
        LedgerUnavailableError: Postgres does not answer.
    """
    seconds, micros = await redis.command("TIME")
    counts = Counts(limits.zone, int(seconds) * 1_000_000 + int(micros))
    if books is not None:
        for sums in await books.sums(moment(counts.windows.day[0]), moment(counts.windows.month[0])):
            counts.add_sums(sums)
    counted: set[str] = set()  # a Redis that lost its records of requests, but not the stream, took some twice
    async for page in _stream(redis, limits, counts):
        known = await books.known(page) if books is not None else set()
        for row in page:
            if row.call not in known and row.call not in counted:
                counted.add(row.call)
                counts.add_row(row)
    return counts


async def _stream(redis: Redis, limits: Limits, counts: Counts) -> AsyncIterator[list[Row]]:
    start = "-"
    while True:
        page = await redis.command("XRANGE", limits.keys[4], start, "+", "COUNT", PAGE)
        found = []
        for name, fields in page:
            counts.last = name.decode()
            row = read(limits.tenant, counts.last, fields)
            if isinstance(row, Reject):
                # Nobody knows what it cost: to admit calls without it would be to forget it. The drain sets it aside.
                _log.error("entry of the ledger's stream is not understood", tenant=limits.tenant, entry=counts.last)
                raise UnavailableError(f"entry {counts.last} is not understood: {row.reason}")
            found.append(row)
        yield found
        if len(page) < PAGE:
            return
        start = f"({counts.last}"


async def rebuild(redis: Redis, quota: Quota, limits: Limits, ledger: LedgerDatabase | None = None) -> None:
    """Restore a tenant's counters from its ledger.

    Raises:
        UnavailableError: Redis or Postgres does not answer, or others append faster than this reads.
    """
    if ledger is None:
        await _restore(redis, quota, limits, None)
        return
    try:
        # First, so that little is left to be read and remembered; also sets aside what nobody can read.
        await drain.move_all(redis, ledger, limits.tenant)
        async with ledger.books(limits.tenant, wait=True) as books:
            await _restore(redis, quota, limits, books)
    except LedgerUnavailableError as error:
        metrics.LEDGER_ERRORS.labels("rebuild").inc()
        raise UnavailableError(f"the ledger in Postgres is away, and Redis has lost the counters: {error}") from None


async def _restore(redis: Redis, quota: Quota, limits: Limits, books: Books | None) -> None:
    for _ in range(ATTEMPTS):
        if await quota.epoch(limits):
            return  # somebody else was faster
        counts = await count(redis, limits, books)
        epoch = time.time_ns() // 1000
        if books is not None:
            epoch = max(epoch, (await books.state()).epoch + 1)  # clocks differ between processes
            async for page in books.lately(counts.since, PAGE):
                await quota.recall(limits, page)
        await quota.recall(limits, counts.lately)
        totals = [total for total in counts.totals() if total.field == "tenant" or total.is_current]
        if await quota.restore(limits, epoch, counts.last, totals):
            if books is not None:
                await books.begin_epoch(epoch)
            entries = next(total.entries for total in totals if total.field == "tenant")
            _log.info("counters restored from the ledger", tenant=limits.tenant, entries=entries)
            return
    raise UnavailableError("the ledger's stream grows faster than it is read")
