"""Calls that Redis cannot be told of, on their way into the ledger: a process that is killed takes few with it.

While Redis is away, calls that have ended wait in this process until they can be settled. Their entries are written to
Postgres meanwhile, and settled all the same when Redis is back: the ledger takes a call once, so the entry that then
comes through Redis's stream is known, and what counters say follows. Without Postgres, or while it is away too, they
wait in memory alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

WAIT_SECONDS = 1.0  # most outages are shorter: Redis restarts
BATCH = 500


class WaitingEntry(NamedTuple):
    """The ledger's entry of a call that Redis did not take."""

    call: str
    tenant: str
    entry: bytes
    at: int  # microseconds since 1970
    since: float


# Writes entries of one tenant to the ledger; False: it cannot be written now.
WriteAhead: TypeAlias = Callable[[str, Sequence[WaitingEntry]], Awaitable[bool]]


class Ahead:
    """Entries that neither Redis nor Postgres has."""

    def __init__(self, write: WriteAhead | None) -> None:
        self._write_to_ledger = write
        self._entries: dict[str, WaitingEntry] = {}  # by call, the oldest first
        self._writing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, tenant: str, call: str, entry: bytes) -> None:
        """Note the entry of a call that Redis did not take."""
        if entry and call not in self._entries:
            self._entries[call] = WaitingEntry(call, tenant, entry, time.time_ns() // 1000, time.monotonic())

    def discard(self, call: str) -> None:
        """Note that Redis has taken a call."""
        self._entries.pop(call, None)

    def look(self) -> None:
        """Begin to write what has waited for long enough; nobody waits for the end of it."""
        oldest = next(iter(self._entries.values()), None)
        if self._write_to_ledger is None or oldest is None or time.monotonic() - oldest.since < WAIT_SECONDS:
            return
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(self._write_to_ledger))

    async def close(self) -> None:
        """Write all there is."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        if self._write_to_ledger is not None and self._entries:
            await self._write(self._write_to_ledger)

    async def _write(self, write: WriteAhead) -> None:
        by_tenant: defaultdict[str, list[str]] = defaultdict(list)
        for call, entry in self._entries.items():
            by_tenant[entry.tenant].append(call)
        for tenant, calls in by_tenant.items():
            for first in range(0, len(calls), BATCH):
                waiting = [self._entries[call] for call in calls[first : first + BATCH] if call in self._entries]
                if not await write(tenant, waiting):
                    return
                for entry in waiting:
                    self.discard(entry.call)
