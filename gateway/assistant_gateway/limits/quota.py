"""What a call may still use, decided before it is made: reserve the worst case, settle what was used.

Limits form a tree, tenant above assistant, and a call has to fit both. Everything is decided in one step inside
Redis, by its clock (`quota.lua`), so that processes need not know of each other. Money is in micro-units of the
tenant's currency, times are microseconds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from assistant_gateway.limits.limit_scope import NONE, Amount, Arguments, Kind, Limits, LimitScope
from assistant_gateway.limits.redis import Redis, UnavailableError
from assistant_gateway.limits.watermark import Recent, Watermark
from assistant_gateway.limits.windows import Windows

SCRIPT = (Path(__file__).parent / "quota.lua").read_bytes()
MAX_HOLD = 3_600_000_000
KINDS: tuple[Kind, ...] = ("requests", "tokens", "budget")
ATTEMPTS = 3  # a second one when this process's clock is off, a third when midnight passes meanwhile
RECALLED = 3 * 500  # arguments per call
PAGE = 200  # scopes per call: Redis does nothing else meanwhile
ADMITTED, REFUSED, OTHER_WINDOWS, REBUILD, FINISHED = 1, 0, 2, 3, 4


_Item = TypeVar("_Item")


class RebuildNeededError(Exception):
    """Redis has lost counters, or has older ones than it had: restore them from the ledger, then ask again."""


class Remaining(msgspec.Struct, frozen=True):
    """What a level lets through after this call; None where it has no such limit."""

    requests: int | None
    requests_reset: int  # microseconds until all requests are there again
    tokens: int | None
    budget: int | None


class Admitted(msgspec.Struct, frozen=True):
    """The call may be made; one entry per level, the tenant's first."""

    now: int
    remaining: tuple[Remaining, ...]


class Refused(msgspec.Struct, frozen=True):
    """The call does not fit. `retry_after` is None when it will never fit this limit."""

    level: LimitScope
    kind: Kind
    retry_after: int | None
    limit: int
    used: int  # with what other calls hold; 0 for requests


class Renewal(Enum):
    """What became of a hold that was renewed."""

    KEPT = "kept"
    PUT_BACK = "put back"  # it had expired or was lost: whether it fits was not asked
    SETTLED = "settled"


class Finished(msgspec.Struct, frozen=True):
    """A request of this id was settled before."""

    tokens: int
    cost: int


class Counted(msgspec.Struct, frozen=True):
    """What one scope has used in the current windows."""

    day: tuple[int, int]  # start and end
    day_tokens: int
    day_cost: int
    month: tuple[int, int]
    month_tokens: int
    month_cost: int


class Settled(msgspec.Struct, frozen=True):
    """What was charged. The same for every settling of one request id; `counted` is as of now, by level."""

    tokens: int
    cost: int
    late: bool  # the hold had been taken back before
    again: bool
    counted: tuple[Counted, ...]


class Noted(msgspec.Struct, frozen=True):
    """What a call did not fit: a limit in tokens, in money, and when its window ends; zeros where there was none."""

    tokens: int
    tokens_until: int
    cost: int
    cost_until: int


class ScopeUsage(msgspec.Struct, frozen=True):
    """Counters of one scope. The last three have been counted since the tenant was made."""

    counted: Counted
    held_tokens: int
    held_cost: int
    entries: int
    tokens: int
    cost: int


class Totals(msgspec.Struct, frozen=True):
    """What the ledger says of one scope (`LimitScope.field`), to restore its counters from."""

    field: str
    day_tokens: int
    day_cost: int
    month_tokens: int
    month_cost: int
    entries: int
    tokens: int
    cost: int

    @property
    def is_current(self) -> bool:
        """Whether anything was used in the day or the month."""
        return bool(self.day_tokens or self.day_cost or self.month_tokens or self.month_cost)


class Quota:
    """Asks Redis, which must have been given `SCRIPT`.

    Every method raises UnavailableError when there is no answer; asking again with the same request id is safe.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._windows: dict[ZoneInfo, Windows] = {}
        self._known: dict[str, Watermark] = {}

    def expect(self, tenant: str, epoch: int, entries: int) -> None:
        """Tell what the ledger knows of a tenant: its epoch, and how many entries it has seen."""
        self._of(tenant).see(epoch, entries)

    def _of(self, tenant: str) -> Watermark:
        known = self._known.get(tenant)
        if known is None:
            known = self._known[tenant] = Watermark()
        return known

    def forget(self, tenant: str) -> None:
        """Drop what is known of a tenant that is gone."""
        self._known.pop(tenant, None)

    async def reserve(self, limits: Limits, request: str, worst: Amount, hold: int) -> Admitted | Refused | Finished:
        """Hold the worst case for `hold` microseconds, or hold nothing. Asked again, the answer is the same.

        Raises:
            RebuildNeededError: nothing is admitted before the counters are restored.
        """
        known = self._of(limits.tenant)
        before = known.epoch
        rest = (before, known.entries, known.witness, hold, worst.tokens, worst.cost, *limits.arguments)
        reply = await self._ask(limits, "reserve", request, rest)
        if reply[0] == ADMITTED:
            known.see(reply[2], reply[3])
            known.begin(request, limits, worst, hold)
        if reply[0] == REBUILD or known.epoch > before > 0:
            await self._say_again(known)
        if reply[0] == REBUILD:
            raise RebuildNeededError(limits.tenant)
        return reserved(limits, reply)

    async def settle(self, limits: Limits, request: str, used: Amount, entry: bytes) -> Settled:
        """Charge what was used and give the rest back, once; `entry` goes to the ledger's stream unless empty.

        Zeros and no entry release the hold. Never refused: an expired or lost hold is charged late.
        """
        rest: Arguments = (used.tokens, used.cost, entry, *limits.fields)
        reply = await self._ask(limits, "settle", request, rest)
        known = self._of(limits.tenant)
        known.held.pop(request, None)
        if reply[2]:
            known.see(reply[2], reply[3])
        if entry:
            known.keep(Recent(time.monotonic(), limits, request, used, entry))
        return settled(reply)

    async def _say_again(self, known: Watermark) -> None:
        """Hold and settle what may have been lost with a Redis that died; what was not lost stays as it is."""
        now = time.monotonic()
        for request, held in list(known.held.items()):
            if held.until > now and request in known.held:
                await self.renew(held.limits, request, held.worst, held.hold)
        settlings, known.recent = known.recent, deque()
        while settlings:
            last = settlings[0]
            try:
                await self.settle(last.limits, last.request, last.used, last.entry)
            except UnavailableError:
                known.recent.extendleft(reversed(settlings))
                raise
            settlings.popleft()

    async def renew(self, limits: Limits, request: str, worst: Amount, hold: int) -> bool:
        """Hold for `hold` microseconds from now. An expired or lost hold is put back; False: settled already."""
        held = await self.renewed(limits, request, worst, hold) is not Renewal.SETTLED
        if held:
            self._of(limits.tenant).begin(request, limits, worst, hold)
        return held

    async def renewed(self, limits: Limits, request: str, worst: Amount, hold: int) -> Renewal:
        """Do the same for an owner who puts a lost hold back himself, and has to know that it was lost."""
        reply = await self._ask(limits, "renew", request, (hold, worst.tokens, worst.cost, *limits.fields))
        if reply[0] != ADMITTED:
            return Renewal.SETTLED
        return Renewal.PUT_BACK if reply[2] else Renewal.KEPT

    def leave(self, limits: Limits, request: str) -> None:
        """Do not put this hold back when Redis has lost it: its owner does."""
        self._of(limits.tenant).held.pop(request, None)

    async def usage(self, limits: Limits, fields: Sequence[str] | None = None) -> dict[str, ScopeUsage]:
        """Return the counters of these scopes (`LimitScope.field`), by default of the tenant and all its assistants."""
        found: dict[str, ScopeUsage] = {}
        for page in _pages(await self.scopes(limits) if fields is None else fields, PAGE):
            found |= counters(await self._ask(limits, "usage", "", page))
        return found

    async def scopes(self, limits: Limits) -> list[str]:
        """Return for which scopes there are counters, those of assistants that are no more included."""
        names = [name.decode() for name in await self._redis.command("HKEYS", limits.keys[1])]
        return [name for name in names if name not in {"epoch", "restoring"}]

    async def drop(self, limits: Limits, fields: Sequence[str], *, used: bool) -> int:
        """Forget scopes of assistants that are no more, where nothing is held; `used`: also with use in this month.

        Returns how many went.
        """
        return sum([(await self._ask(limits, "drop", "", (int(used), *page)))[2] for page in _pages(fields, PAGE)])

    async def note(self, limits: Limits, refused: Refused) -> None:
        """Note for all processes that what is left of a limit in this window is too little for a call that came."""
        level = refused.level
        rest = (level.field, KINDS.index(refused.kind) + 1, level.period, refused.limit)
        await self._ask(limits, "note", "", rest)

    async def noted(self, limits: Limits, fields: Sequence[str]) -> dict[str, Noted]:
        """Return what was noted of these scopes."""
        found = {}
        for page in _pages(fields, PAGE):
            reply = await self._ask(limits, "noted", "", page)
            for start in range(2, len(reply), 5):
                found[reply[start].decode()] = Noted(*reply[start + 1 : start + 5])
        return found

    async def clear(self, limits: Limits) -> bool:
        """Remove the keys of a tenant that is gone; False: there is still something to be done before.

        What a call left behind that ended after they were removed goes once its entry is in the ledger. Counters that
        were not removed stay: that is the operator's to do.
        """
        return bool((await self._ask(limits, "clear", "", ()))[0] == ADMITTED)

    async def epoch(self, limits: Limits) -> int:
        """Return the epoch of the tenant's counters; 0: they need a rebuild."""
        return int(await self._redis.command("HGET", limits.keys[1], "epoch") or 0)

    async def invalidate(self, limits: Limits) -> None:
        """Admit nothing until the counters are restored."""
        await self._ask(limits, "invalidate", "", ())

    async def recall(self, limits: Limits, settled_lately: Iterable[tuple[str, Amount]]) -> None:
        """Before `restore`: tell the requests of the last hour that the ledger holds, so none is charged twice."""
        rest: list[str | int | bytes] = []
        for request, used in settled_lately:
            rest += (request, used.tokens, used.cost)
        for start in range(0, len(rest), RECALLED):
            await self._ask(limits, "recall", "", rest[start : start + RECALLED])

    async def restore(self, limits: Limits, epoch: int, drained: str, totals: Iterable[Totals]) -> bool:
        """Set the counters of a tenant that needs a rebuild; `epoch` is higher than any before.

        `drained` is the id of the last entry of the stream that the totals hold (`0-0`: none). False: the stream has
        entries after it; drain them and count again. If another process was faster, its counters stay.
        """
        pages = list(_pages(list(totals), PAGE)) or [()]
        for number, page in enumerate(pages, 1):
            rest: list[str | int | bytes] = [drained]
            for scope in page:
                rest += msgspec.structs.astuple(scope)
            operation = "restore" if len(pages) == 1 else "begin" if number == 1 else "page"
            if number == len(pages) > 1:
                operation = "finish"
            reply = await self._ask(limits, operation, str(epoch), rest)
            if reply[0] != ADMITTED:
                return bool(reply[0] == FINISHED)
        return True

    async def _ask(self, limits: Limits, operation: str, request: str, rest: Sequence[str | int | bytes]) -> list[Any]:
        now = time.time_ns() // 1000
        for _ in range(ATTEMPTS):
            windows = self._windows.get(limits.zone)
            if windows is None or not windows.hold(now):
                windows = self._windows[limits.zone] = Windows.at(limits.zone, now)
            reply = await self._redis.run_script(limits.tenant, command(limits, operation, windows, request, rest))
            if not isinstance(reply, list) or len(reply) < 2:
                raise UnavailableError(f"unexpected reply: {reply!r:.100}")
            if reply[0] != OTHER_WINDOWS:
                return reply
            now = reply[1]
        raise UnavailableError("Redis's clock moves too fast")


def _pages(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def command(
    limits: Limits, operation: str, windows: Windows, request: str, rest: Sequence[str | int | bytes]
) -> Arguments:
    """Return what the script is asked: number of keys, keys, arguments."""
    return (*limits.keys, operation, *windows.arguments, request, *rest)


def reserved(limits: Limits, reply: Sequence[int]) -> Admitted | Refused | Finished:
    """Read the script's answer to `reserve`."""
    if reply[0] == ADMITTED:
        remaining = []
        for start in range(4, len(reply), 4):
            left, reset, tokens, budget = reply[start : start + 4]
            remaining.append(
                Remaining(
                    None if left == NONE else left,
                    reset,
                    None if tokens == NONE else tokens,
                    None if budget == NONE else budget,
                )
            )
        return Admitted(reply[1], tuple(remaining))
    if reply[0] == FINISHED:
        return Finished(reply[2], reply[3])
    _, _, index, kind, retry, limit, used = reply
    level = limits.levels[index - 1]
    if KINDS[kind - 1] == "requests":
        return Refused(level, "requests", retry, level.requests_per_minute or 0, 0)
    return Refused(level, KINDS[kind - 1], _limit(retry), limit, used)


def settled(reply: Sequence[int]) -> Settled:
    """Read the script's answer to `settle`."""
    counted = tuple([_counted(reply[start : start + 8]) for start in range(8, len(reply), 8)])
    return Settled(reply[6], reply[7], late=reply[5] == 1, again=reply[4] == 1, counted=counted)


def counters(reply: Sequence[Any]) -> dict[str, ScopeUsage]:
    """Read the script's answer to `usage`."""
    found = {}
    for start in range(3, len(reply), 14):
        name, *numbers = reply[start : start + 14]
        found[name.decode() if isinstance(name, bytes) else name] = ScopeUsage(_counted(numbers[:8]), *numbers[8:])
    return found


def _counted(numbers: Sequence[int]) -> Counted:
    a, b, day_tokens, day_cost, c, d, month_tokens, month_cost = numbers
    return Counted((a, b), day_tokens, day_cost, (c, d), month_tokens, month_cost)


def _limit(number: int) -> int | None:
    return None if number == NONE else number
