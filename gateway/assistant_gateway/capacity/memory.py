"""Memory of requests and answers in flight, as a budget of each tenant and of all.

What a request may take is asked for before it is read: its body twice (as it came, and as it goes to the provider) and
a fixed part for everything else. An answer that is read as a whole is asked for as it arrives, and what a client has
not taken yet stays charged until it has.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from assistant_gateway import errors
from assistant_gateway.capacity.fairness import BusyError, Shares

REQUEST_BYTES = 48 * 1024  # of a request besides its body: connections, tasks, buffers
ANSWER_BYTES = 32 * 1024  # of it: for an answer that is read as a whole
WAIT_SECONDS = 5.0  # for room
MOST_WAITING = 32  # requests of one tenant that wait for room; each has up to 384 KiB of its body in a buffer


class Memory:
    """The budget."""

    def __init__(self, total: int) -> None:
        self.shares = Shares(total, ratio=1.0, most_waiting=MOST_WAITING)

    async def lease(self, tenant: str, amount: int) -> Lease:
        """Return a lease of at least `amount` bytes.

        Raises:
            GatewayError: 429 or 503, with when to come back.
        """
        lease = Lease(self.shares, tenant)
        await lease.grow(amount)
        return lease


class Lease:
    """What one request holds. It has to be released."""

    __slots__ = ("_shares", "_tenant", "answer", "held")

    def __init__(self, shares: Shares, tenant: str) -> None:
        self._shares = shares
        self._tenant = tenant
        self.held = 0
        self.answer = ANSWER_BYTES  # what of it is for an answer that is read as a whole

    async def grow(self, amount: int) -> None:
        """Hold so much more.

        Raises:
            GatewayError: there is no room in time: 429 when the tenant has its share, else 503.
        """
        if not self._shares.take_now(self._tenant, amount):
            try:
                await self._shares.take(self._tenant, amount, asyncio.get_running_loop().time() + WAIT_SECONDS)
            except BusyError as error:
                raise errors.memory_used_up(own=error.own) from None
        self.held += amount

    def grow_now(self, amount: int) -> bool:
        """Hold so much more if there is room at once."""
        if not self._shares.take_now(self._tenant, amount):
            return False
        self.held += amount
        return True

    def shrink(self, amount: int) -> None:
        """Hold so much less."""
        amount = min(amount, self.held)
        self.held -= amount
        if amount:
            self._shares.give(self._tenant, amount)

    def release(self) -> None:
        """Hold nothing any more; a second time does nothing."""
        self.shrink(self.held)


LEASE = web.RequestKey("lease", Lease)


def lease_of(request: web.Request) -> Lease | None:
    """Return what a request holds, None before it holds anything."""
    return request.get(LEASE)
