"""Fair shares of what all tenants use: a tenant that has its share waits, the others do not.

A tenant may hold no more than `ratio` times what is left free for the others. So one tenant alone gets a large part and
never the whole, and several greedy ones leave room between them: with a ratio of one each of n comes to have one part
of n + 1 as places change hands, and one part stays free. Whoever waits is served in order within a tenant, and in turn
between tenants.

The event loop is shared as well: `Turns` lets only some requests of a tenant begin in each of its rounds, and only some
pieces of large bodies be looked at; `Pace` bounds what a tenant's streams bring in a second.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

MOST_PACED = 1000  # tenants; then those that have taken nothing lately are forgotten
SHARED_SECONDS = 1.0  # since the last change of tenants
STRANGER = "@"  # begins what stands for a caller who has not proved which tenant it is


class BusyError(Exception):
    """There was no room in time. `own`: because of what the tenant itself holds, not because of the others."""

    def __init__(self, *, own: bool) -> None:
        super().__init__("no room")
        self.own = own


T = TypeVar("T")
Pause = Callable[[], Awaitable[None]]  # between two pieces of a long work: lets others have their turn


async def next_round() -> None:
    """Let everything else that is ready have its turn on the event loop."""
    await asyncio.sleep(0)


class _Waiting(NamedTuple):
    amount: int
    turn: asyncio.Future[None]


class Shares:
    """So much of something, in any unit, and who holds how much of it."""

    def __init__(self, total: int, *, ratio: float, most_waiting: int, always_one: bool = False) -> None:
        """Share out `total`.

        Args:
            total: what there is.
            ratio: a tenant holds at most so many times what is left.
            most_waiting: of one tenant; four times as many of all.
            always_one: whether a tenant that holds nothing may take what is free: for places, of which there are few.
        """
        self.total = total
        self.used = 0
        self._ratio = ratio
        self._most_waiting = most_waiting
        self._always_one = always_one
        self._held: dict[str, int] = {}
        self._queues: dict[str, deque[_Waiting]] = {}  # in the order in which tenants are served next
        self._waiting = 0

    def resize(self, total: int, most_waiting: int) -> None:
        """Follow a changed setting; whoever holds or waits goes on doing so."""
        self.total = total
        self._most_waiting = most_waiting
        self.wake()

    def held(self, tenant: str) -> int:
        """Return what a tenant holds."""
        return self._held.get(tenant, 0)

    def fits(self, tenant: str, amount: int) -> bool:
        """Whether a tenant may take so much now."""
        free, held = self.total - self.used - amount, self._held.get(tenant, 0)
        return free >= 0 and (held + amount <= self._ratio * free or (self._always_one and not held))

    def take_now(self, tenant: str, amount: int) -> bool:
        """Take without waiting, or return False. Nobody overtakes those of the same tenant who wait."""
        if tenant in self._queues or not self.fits(tenant, amount):
            return False
        self._take(tenant, amount)
        return True

    async def take(self, tenant: str, amount: int, until: float) -> None:
        """Take, after waiting until the loop's clock says `until` at the latest.

        Raises:
            BusyError: there was no room, or too many wait already.
        """
        if self.take_now(tenant, amount):
            return
        queue = self._queues.get(tenant)
        loop = asyncio.get_running_loop()
        full = queue is not None and len(queue) >= self._most_waiting
        if full or self._waiting >= 4 * self._most_waiting or until <= loop.time():
            raise self._busy(tenant)
        waiting = _Waiting(amount, loop.create_future())
        self._queues.setdefault(tenant, deque()).append(waiting)
        self._waiting += 1
        try:
            async with asyncio.timeout_at(until):
                await waiting.turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiting.turn.done() and not waiting.turn.cancelled():
                self.give(tenant, amount)  # given away in the very moment
            else:
                self._forget(tenant, waiting)
            if isinstance(error, TimeoutError):
                raise self._busy(tenant) from None
            raise

    def give(self, tenant: str, amount: int) -> None:
        """Give back, and let those in who wait."""
        self.used -= amount
        left = self._held.get(tenant, 0) - amount
        if left > 0:
            self._held[tenant] = left
        else:
            self._held.pop(tenant, None)
        if self._queues:
            self.wake()

    def wake(self) -> None:
        """Let in whoever fits: of each tenant the first, and tenants in turn."""
        moved = True
        while moved and self._queues:
            moved = False
            for tenant in list(self._queues):
                queue = self._queues[tenant]
                while queue and queue[0].turn.done():  # it has given up
                    queue.popleft()
                    self._waiting -= 1
                if queue and self.fits(tenant, queue[0].amount):
                    waiting = queue.popleft()
                    self._waiting -= 1
                    self._take(tenant, waiting.amount)
                    waiting.turn.set_result(None)
                    moved = True
                    del self._queues[tenant]
                    self._queues[tenant] = queue  # behind the others
                if not queue:
                    del self._queues[tenant]

    def _take(self, tenant: str, amount: int) -> None:
        self.used += amount
        self._held[tenant] = self._held.get(tenant, 0) + amount

    def _forget(self, tenant: str, waiting: _Waiting) -> None:
        queue = self._queues.get(tenant)
        if queue is not None and waiting in queue:
            queue.remove(waiting)
            self._waiting -= 1
            if not queue:
                del self._queues[tenant]

    def _busy(self, tenant: str) -> BusyError:
        held = self._held.get(tenant, 0)
        return BusyError(own=held > 0 and 2 * held >= self.used)


class Company:
    """Whether more than one tenant has asked lately: one alone need not be held back, which costs it time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = ""
        self._until = -math.inf

    def note(self, tenant: str) -> None:
        """Note who asks."""
        if tenant != self._last and not tenant.startswith(STRANGER):
            if self._last:
                self._until = self._clock() + SHARED_SECONDS
            self._last = tenant

    def is_there(self) -> bool:
        """Return whether several tenants have asked within SHARED_SECONDS."""
        return self._clock() < self._until


class Turns:
    """How many requests of one tenant may begin in one round of the event loop; the others come in the next rounds.

    A thousand requests that arrive together would otherwise all be worked on before the next step of anybody else's.
    """

    def __init__(
        self,
        at_once: int,
        of_all: int | None = None,
        *,
        alone: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Share out the rounds.

        Args:
            at_once: requests of a tenant that begin in each round.
            of_all: requests of all tenants, who then have theirs in turn.
            alone: requests of a tenant while no other asks; more rounds for the same work take more processor time.
            clock: seconds.
        """
        self._at_once = at_once
        self._alone = alone or at_once
        self._company = Company(clock)
        self._of_all = of_all or sys.maxsize
        self._left = self._of_all  # in this round
        self._begun: dict[str, int] = {}  # in this round, by tenant
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        self._round: asyncio.Handle | None = None  # the next

    async def take(self, tenant: str) -> None:
        """Wait until a request of this tenant may begin."""
        self._company.note(tenant)
        begun = self._begun.get(tenant, 0)
        if self._round is None:
            self._round = asyncio.get_running_loop().call_soon(self._next_round)
        if begun < self._most() and self._left and tenant not in self._queues:
            self._begun[tenant] = begun + 1
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant, deque()).append(turn)
        await turn  # one that is cancelled is passed over

    def _most(self) -> int:
        return self._at_once if self._company.is_there() else self._alone

    def _next_round(self) -> None:
        self._round = None
        self._begun.clear()
        self._left = self._of_all
        most = self._most()
        for tenant in list(self._queues):
            queue, begun = self._queues.pop(tenant), 0
            while queue and begun < most and self._left:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    begun += 1
                    self._left -= 1
            self._begun[tenant] = begun
            if queue:
                self._queues[tenant] = queue  # behind the others
            if not self._left:
                break
        if self._begun:
            self._round = asyncio.get_running_loop().call_soon(self._next_round)


class Crowd(Generic[T]):
    """What waits to be done together: some of it at a time, of all tenants in turn, and of none of them much."""

    def __init__(self, most: int, of_one: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Let `most` be done together, `of_one` of a tenant unless no other has asked lately."""
        self._most = most
        self._of_one = of_one
        self._company = Company(clock)
        self._queues: dict[str, deque[T]] = {}  # in the order in which tenants are served next
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, tenant: str, one: T) -> None:
        """Have something wait."""
        self._company.note(tenant)
        self._queues.setdefault(tenant, deque()).append(one)
        self._count += 1

    def take(self) -> list[T]:
        """Return what is to be done next, nothing when nothing waits."""
        taken: list[T] = []
        of_one = self._of_one if self._company.is_there() else self._most
        for tenant in list(self._queues):
            room = min(of_one, self._most - len(taken))
            if not room:
                break
            queue = self._queues.pop(tenant)
            taken += [queue.popleft() for _ in range(min(room, len(queue)))]
            if queue:
                self._queues[tenant] = queue  # behind the others
        self._count -= len(taken)
        return taken

    def take_all(self) -> list[T]:
        """Return everything that waits."""
        found = [one for queue in self._queues.values() for one in queue]
        self._queues.clear()
        self._count = 0
        return found


class Pace:
    """How much of something, in any unit, each tenant may have in a second; a first part may come at once."""

    def __init__(self, per_second: float, at_once: float, most_behind: float = math.inf) -> None:
        """Let a tenant have so much in a second; one that took too much waits `most_behind` seconds at most."""
        self._per_second = per_second
        self._most_behind = most_behind
        self._ahead = at_once / per_second
        self._paid: dict[str, float] = {}  # by tenant: until when its time is used up

    def take(self, tenant: str, amount: int, now: float) -> float:
        """Note that a tenant has taken so much; return the seconds until it may take more."""
        paid = max(self._paid.get(tenant, 0.0), now - self._ahead) + amount / self._per_second
        paid = min(paid, now + self._most_behind)
        if len(self._paid) >= MOST_PACED and tenant not in self._paid:
            self._paid = {name: until for name, until in self._paid.items() if until > now - self._ahead}
        self._paid[tenant] = paid
        return max(0.0, paid - now)
