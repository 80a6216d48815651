"""The ledger's database: one transaction at a time per tenant, and an error of one kind for all that can go wrong.

Who writes a tenant's entries, or adds them up, first takes the tenant's lock in Postgres. It ends with the transaction
and with the connection, so that a killed process holds up nobody, and no lease has to be waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from assistant_gateway.ledger import rows
from assistant_gateway.ledger.rows import Reject, Row
from assistant_gateway.limits.limit_scope import MAX_AMOUNT, Amount

CONNECT_SECONDS = 2.0
COMMAND_SECONDS = 10.0
LOCK_SECONDS = 3
CONNECTIONS = 4
AWAY_SECONDS = 0.25  # after a failure nobody tries again for so long
SAME_CALL = timedelta(days=40)  # how far apart two settlings of one call can lie: bounds the months looked into

_COLUMNS = ", ".join(rows.COLUMNS)
_GIVEN = ", ".join(f"{name} {kind}" for name, kind in rows.COLUMNS.items())
# The lock makes this safe against another writer of the tenant; the primary key against anything else.
# `IS TRUE` keeps the index of tenants out: calls are to be found by theirs, whatever the statistics say or do not.
_RECORD = f"""
INSERT INTO ledger_entries ({_COLUMNS})
SELECT DISTINCT ON (call) {_COLUMNS} FROM json_to_recordset($2) AS given ({_GIVEN})
WHERE NOT EXISTS (
    SELECT FROM ledger_entries e
    WHERE e.call = given.call AND e.at >= $1 AND (e.tenant_key = given.tenant_key) IS TRUE
)
ORDER BY call, at
ON CONFLICT DO NOTHING
"""  # noqa: S608 - names of columns
# A month that has just begun has no statistics: left to itself, Postgres would read all of it for each batch.
_BY_INDEX = ", ".join(f"set_config('enable_{way}', 'off', true)" for way in ("hashjoin", "mergejoin", "seqscan"))
_LOCK = f"SELECT pg_advisory_xact_lock(hashtextextended($1, 0)), {_BY_INDEX}"
_TRY_LOCK = f"SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)), {_BY_INDEX}"
_REJECT = """
INSERT INTO ledger_rejects (tenant_key, stream_id, reason, fields)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bytea[]) ON CONFLICT DO NOTHING
"""
_KNOWN = """
SELECT given.call FROM unnest($2::text[]) AS given (call) WHERE EXISTS (
    SELECT FROM ledger_entries e WHERE e.call = given.call AND e.at >= $3 AND (e.tenant_key = $1) IS TRUE
)
"""
_WINDOWS = """
SELECT scope,
    coalesce(sum(input + output) FILTER (WHERE at >= $2), 0)::bigint,
    coalesce(sum(cost) FILTER (WHERE at >= $2), 0)::bigint,
    coalesce(sum(input + output) FILTER (WHERE at >= $3), 0)::bigint,
    coalesce(sum(cost) FILTER (WHERE at >= $3), 0)::bigint
FROM ledger_entries WHERE tenant_key = $1 AND at >= least($2::timestamptz, $3::timestamptz) GROUP BY scope
"""
_TOTALS = "SELECT scope, entries, tokens, cost FROM ledger_totals WHERE tenant_key = $1"
_LATELY = "SELECT call, input + output, coalesce(cost, 0) FROM ledger_entries WHERE tenant_key = $1 AND at > $2"
_STATES = """
SELECT t.tenant_key, coalesce((SELECT max(epoch) FROM ledger_epochs e WHERE e.tenant_key = t.tenant_key), 0) AS epoch,
    coalesce((SELECT sum(entries) FROM ledger_totals s WHERE s.tenant_key = t.tenant_key), 0)::bigint AS entries,
    (SELECT stream_id FROM ledger_entries l WHERE l.tenant_key = t.tenant_key ORDER BY at DESC LIMIT 1) AS last
FROM unnest($1::text[]) AS t (tenant_key)
"""


class LedgerUnavailableError(Exception):
    """Postgres does not answer, or refuses. The text says why, without secrets."""


class State(msgspec.Struct, frozen=True):
    """How far a tenant's ledger is."""

    tenant: str
    epoch: int  # of the last rebuild of its counters; 0: none
    entries: int
    last: str | None  # id in the stream of the latest entry


class Recorded(msgspec.Struct, frozen=True):
    """What became of a batch."""

    inserted: int
    known: int  # were there already
    rejected: int


class ScopeSums(msgspec.Struct, frozen=True):
    """What one scope used: in the day, in the month, ever. An empty scope: on the tenant's limits alone."""

    scope: str
    day_tokens: int
    day_cost: int
    month_tokens: int
    month_cost: int
    entries: int
    tokens: int
    cost: int


class Books:
    """One tenant's ledger, within a transaction that nobody else writes in."""

    def __init__(self, connection: Any, tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant

    async def record(self, batch: Sequence[Row], rejects: Sequence[Reject]) -> Recorded:
        """Write entries that are not there yet; what Postgres refuses is set aside with the rejects."""
        inserted, refused = 0, list(rejects)
        try:
            async with self._connection.transaction():
                inserted = await self._insert(batch)
        except _ROW_FAILURES:
            inserted = 0
            for row in batch:
                try:
                    async with self._connection.transaction():
                        inserted += await self._insert([row])
                except _ROW_FAILURES as error:
                    refused.append(rows.reject(row.stream_id, row.fields, _reason(error)))
        if refused:
            columns = [[getattr(item, name) for item in refused] for name in ("stream_id", "reason", "fields")]
            await self._connection.execute(_REJECT, self._tenant, *columns)
        known = len(batch) - inserted - (len(refused) - len(rejects))
        return Recorded(inserted, known, len(refused))

    async def _insert(self, batch: Sequence[Row]) -> int:
        if not batch:
            return 0
        since = min(row.at for row in batch) - SAME_CALL
        done = await self._connection.execute(_RECORD, since, rows.document(batch))
        return int(done.rpartition(" ")[2])

    async def known(self, batch: Sequence[Row]) -> set[str]:
        """Return which of these calls are in the ledger."""
        if not batch:
            return set()
        since = min(row.at for row in batch) - SAME_CALL
        calls = [row.call for row in batch]
        return {row[0] for row in await self._connection.fetch(_KNOWN, self._tenant, calls, since)}

    async def sums(self, day: datetime, month: datetime) -> list[ScopeSums]:
        """Return what the tenant used since the beginning of the day, since that of the month, and ever."""
        recent = {row[0]: tuple(row)[1:] for row in await self._connection.fetch(_WINDOWS, self._tenant, day, month)}
        totals = await self._connection.fetch(_TOTALS, self._tenant)
        return [ScopeSums(row[0], *recent.get(row[0], (0, 0, 0, 0)), *tuple(row)[1:]) for row in totals]

    async def lately(self, since: datetime, size: int) -> AsyncIterator[list[tuple[str, Amount]]]:
        """Yield what was settled after `since`, so many calls at a time."""
        page: list[tuple[str, Amount]] = []
        async for call, tokens, cost in self._connection.cursor(_LATELY, self._tenant, since, prefetch=size):
            page.append((call, Amount(min(tokens, MAX_AMOUNT), min(cost, MAX_AMOUNT))))
            if len(page) == size:
                yield page
                page = []
        yield page

    async def state(self) -> State:
        """Return how far this ledger is."""
        row = await self._connection.fetchrow(_STATES, [self._tenant])
        return State(*row)

    async def begin_epoch(self, epoch: int) -> None:
        """Note that the counters were set anew."""
        await self._connection.execute(
            "INSERT INTO ledger_epochs (tenant_key, epoch) VALUES ($1, $2)", self._tenant, epoch
        )


class LedgerDatabase:
    """Connects when it is first needed, and anew when a connection was lost."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "assistant-gateway",
        connections: int = CONNECTIONS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self._url = url
        self._name = name  # how Postgres lists these connections
        self._connections = connections
        self._connect_seconds = connect_seconds
        self._pool: Any = None
        self._making = asyncio.Lock()
        self._away_until = 0.0

    def __repr__(self) -> str:
        return "LedgerDatabase()"

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend a connection.

        Raises:
            LedgerUnavailableError: there is none, or what is done with it fails.
        """
        if time.monotonic() < self._away_until:
            raise LedgerUnavailableError("away")
        try:
            pool = await self._made()
            async with asyncio.timeout(self._connect_seconds):
                connection = await pool.acquire()
        except (*_FAILURES, ValueError, OverflowError) as error:  # the last two: the URL makes no sense
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise LedgerUnavailableError(_reason(error)) from None
        try:
            yield connection
        except _FAILURES as error:
            raise LedgerUnavailableError(_reason(error)) from None
        finally:
            with contextlib.suppress(*_FAILURES):
                await pool.release(connection, timeout=self._connect_seconds)

    @contextlib.asynccontextmanager
    async def books(self, tenant: str, *, wait: bool) -> AsyncIterator[Books | None]:
        """Open a tenant's ledger, alone; None: somebody else has it, and `wait` is false.

        Raises:
            LedgerUnavailableError: Postgres fails, or somebody else has it for too long.
        """
        async with self.connection() as connection, connection.transaction():
            if wait:
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                await connection.execute(_LOCK, tenant)
                yield Books(connection, tenant)
            elif await connection.fetchval(_TRY_LOCK, tenant):
                yield Books(connection, tenant)
            else:
                yield None

    async def states(self, tenants: Sequence[str]) -> list[State]:
        """Return how far the ledgers of these tenants are."""
        async with self.connection() as connection:
            return [State(*row) for row in await connection.fetch(_STATES, tenants)]

    async def _made(self) -> Any:
        async with self._making:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=self._connections,
                    timeout=self._connect_seconds,
                    command_timeout=COMMAND_SECONDS,
                    server_settings={"application_name": self._name},
                )
            return self._pool

    async def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            with contextlib.suppress(*_FAILURES):
                async with asyncio.timeout(self._connect_seconds):
                    await self._pool.close()
            self._pool.terminate()


_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_ROW_FAILURES = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
