"""Calls that Redis cannot be told of, on their way into the ledger: a process that is killed takes few with it.

While Redis is away, calls that have ended wait in this process until they can be settled. Their entries are written to
Postgres meanwhile, and settled all the same when Redis is back: the ledger takes a call once, so the entry that then
comes through Redis's stream is known, and what counters say follows. Without Postgres, or while it is away too, they
wait in memory alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from typing import NamedTuple

import msgspec

from assistant_gateway.ledger_store.database import LedgerDatabase, LedgerUnavailableError
from assistant_gateway.ledger_store.rows import Reject, Row, read
from assistant_observability import logs, metrics

WAIT_SECONDS = 1.0  # most outages are shorter: Redis restarts
BATCH = 500

_log = logs.logger(__name__)


class _Entry(NamedTuple):
    tenant: str
    entry: bytes
    at: int  # microseconds since 1970
    since: float


class Ahead:
    """Entries that neither Redis nor Postgres has."""

    def __init__(self, ledger: LedgerDatabase | None) -> None:
        self._ledger = ledger
        self._entries: dict[str, _Entry] = {}  # by call, the oldest first
        self._writing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, tenant: str, call: str, entry: bytes) -> None:
        """Note the entry of a call that Redis did not take."""
        if entry and call not in self._entries:
            self._entries[call] = _Entry(tenant, entry, time.time_ns() // 1000, time.monotonic())

    def discard(self, call: str) -> None:
        """Note that Redis has taken a call."""
        self._entries.pop(call, None)

    def look(self) -> None:
        """Begin to write what has waited for long enough; nobody waits for the end of it."""
        oldest = next(iter(self._entries.values()), None)
        if self._ledger is None or oldest is None or time.monotonic() - oldest.since < WAIT_SECONDS:
            return
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(self._ledger))

    async def close(self) -> None:
        """Write all there is."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        if self._ledger is not None and self._entries:
            await self._write(self._ledger)

    async def _write(self, ledger: LedgerDatabase) -> None:
        by_tenant: defaultdict[str, list[str]] = defaultdict(list)
        for call, entry in self._entries.items():
            by_tenant[entry.tenant].append(call)
        with contextlib.suppress(LedgerUnavailableError):  # whoever moves entries says so
            for tenant, calls in by_tenant.items():
                for first in range(0, len(calls), BATCH):
                    await self._write_some(ledger, tenant, calls[first : first + BATCH])

    async def _write_some(self, ledger: LedgerDatabase, tenant: str, calls: list[str]) -> None:
        waiting = [(call, self._entries[call]) for call in calls if call in self._entries]
        found = [
            read(tenant, f"call {call}", {b"at": str(entry.at).encode(), b"entry": entry.entry})
            for call, entry in waiting
        ]
        batch = [item for item in found if isinstance(item, Row)]
        rejects = [item for item in found if isinstance(item, Reject)]
        async with ledger.books(tenant, wait=True) as books:
            if books is None:
                return
            recorded = await books.record(batch, rejects)
        for result, count in msgspec.structs.asdict(recorded).items():
            metrics.LEDGER_ENTRIES.labels(result).inc(count)
        for call, _ in waiting:
            self.discard(call)
        _log.info("calls written to the ledger while Redis is away", tenant=tenant, calls=recorded.inserted)
