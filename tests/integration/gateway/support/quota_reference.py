"""What `quota.lua` must answer, said again in plain Python; and the script with a clock that a test can set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from assistant_gateway.limits import gcra
from assistant_gateway.limits.limit_scope import Limits, LimitScope
from assistant_gateway.limits.quota import SCRIPT, Totals
from assistant_gateway.limits.windows import Windows

CLOCK = b"local clock = redis.call('TIME') -- the one clock; nothing in ARGV can stand in for it\n"
KEEP = SLIP = 3_600_000_000
REAPED = 32
SOON = 1_000_000


def script_with_a_clock() -> bytes:
    """Return the script with its one marked line replaced: it reads the time from a key."""
    assert SCRIPT.count(CLOCK) == 1
    assert SCRIPT.count(b"'TIME'") == 1
    return SCRIPT.replace(CLOCK, b"local clock = {0, redis.call('GET', KEYS[1] .. ':clock')}\n")


@dataclass
class Window:
    """What was used between two instants."""

    start: int = 0
    end: int = 0
    tokens: int = 0
    cost: int = 0

    def turn(self, now: int, start: int, end: int) -> None:
        """Become the window from `start` to `end`, unless the clock has only slipped."""
        if (start, end) == (self.start, self.end):
            return
        if start >= self.end:
            self.tokens = self.cost = 0
        elif 0 < self.start - now <= SLIP:
            return
        self.start, self.end = start, end

    @property
    def numbers(self) -> list[int]:
        return [self.start, self.end, self.tokens, self.cost]


@dataclass
class Scope:
    """Counters of the tenant or of an assistant."""

    arrival: int = 0
    day: Window = field(default_factory=Window)
    month: Window = field(default_factory=Window)
    entries: int = 0
    tokens: int = 0
    cost: int = 0


@dataclass
class Hold:
    """A call under way."""

    tokens: int
    cost: int
    scopes: tuple[str, ...]


@dataclass
class Reference:
    """One tenant. Methods answer with the script's own lists."""

    epoch: int = 0
    scopes: dict[str, Scope] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    done: dict[str, tuple[int, int]] = field(default_factory=dict)
    deadlines: dict[str, int] = field(default_factory=dict)
    charges: list[tuple[int, str, int, int]] = field(default_factory=list)
    ledger: list[tuple[int, bytes]] = field(default_factory=list)

    def held(self, scope: str) -> tuple[int, int]:
        """Return tokens and money of all calls under way."""
        under = [hold for hold in self.holds.values() if scope in hold.scopes]
        return sum(hold.tokens for hold in under), sum(hold.cost for hold in under)

    def scope(self, name: str, now: int, windows: Windows) -> Scope:
        """Return a scope, its windows turned to now."""
        found = self.scopes.setdefault(name, Scope())
        found.day.turn(now, *current(windows.day, now))
        found.month.turn(now, *current(windows.month, now))
        return found

    def _reap(self, now: int, windows: Windows) -> None:
        self.deadlines = {request: min(deadline, now + KEEP) for request, deadline in self.deadlines.items()}
        due = sorted((deadline, request.encode()) for request, deadline in self.deadlines.items() if deadline <= now)
        for _, name in due[:REAPED]:
            request = name.decode()
            del self.deadlines[request]
            self.done.pop(request, None)
            hold = self.holds.pop(request, None)
            for scope in hold.scopes if hold else ():
                self.scope(scope, now, windows)

    def reserve(
        self, now: int, windows: Windows, limits: Limits, known: tuple[int, int, str], call: tuple[str, int, int, int]
    ) -> list[int]:
        """Answer `reserve`; `call` is request id, time to hold, tokens, cost."""
        request, ttl, tokens, cost = call
        older = self.epoch < known[0]
        if self.epoch == known[0]:
            older = self.scopes.get("tenant", Scope()).entries < known[1]
            older = older or (bool(known[2]) and known[2] not in self.holds and known[2] not in self.done)
        if not self.epoch or older:
            self.epoch = 0
            return [3, now]
        self.scope("tenant", now, windows)
        self._reap(now, windows)
        levels = [(level, self.scope(level.field, now, windows)) for level in limits.levels]
        if request in self.done:
            return [4, now, *self.done[request]]
        new = request not in self.holds
        if new:
            refusals = [
                [0, now, index, *found]
                for index, (level, scope) in enumerate(levels, 1)
                for found in self._refusals(now, level, scope, tokens, cost)
            ]
            if refusals:
                never = [refusal for refusal in refusals if refusal[4] < 0]
                return (never or sorted(refusals, key=lambda refusal: -refusal[4]))[0]
            self.holds[request] = Hold(tokens, cost, limits.fields)
            self.deadlines[request] = now + min(ttl, KEEP)
        answer = [1, now, self.epoch, self.scopes["tenant"].entries]
        for level, scope in levels:
            answer += self._remaining(now, level, scope, new)
        return answer

    def _refusals(self, now: int, level: LimitScope, scope: Scope, tokens: int, cost: int) -> Iterator[list[int]]:
        if level.requests_per_minute is not None:
            arrival, interval, capacity = rate(now, level, scope)
            if arrival + interval - capacity > now:
                yield [1, arrival + interval - capacity - now, -1, -1]
        money = scope.day if level.period == "Day" else scope.month
        held_tokens, held_cost = self.held(level.field)
        for kind, amount, limit, used, held, end in (
            (2, tokens, level.tokens, scope.day.tokens, held_tokens, scope.day.end),
            (3, cost, level.budget, money.cost, held_cost, money.end),
        ):
            if limit is None or amount + used + held <= limit:
                continue
            if amount > limit:
                retry = -1
            elif used + amount > limit:
                retry = end - now
            else:
                retry = min(end - now, SOON)
            yield [kind, retry, limit, used + held]

    def _remaining(self, now: int, level: LimitScope, scope: Scope, new: bool) -> list[int]:
        requests, reset = -1, 0
        if level.requests_per_minute is not None:
            arrival, interval, capacity = rate(now, level, scope)
            scope.arrival = arrival + interval * new
            requests, reset = max(0, (now + capacity - scope.arrival) // interval), scope.arrival - now
        held_tokens, held_cost = self.held(level.field)
        money = scope.day if level.period == "Day" else scope.month
        tokens = -1 if level.tokens is None else max(0, level.tokens - scope.day.tokens - held_tokens)
        budget = -1 if level.budget is None else max(0, level.budget - money.cost - held_cost)
        return [requests, reset, tokens, budget]

    def settle(self, now: int, windows: Windows, limits: Limits, call: tuple[str, int, int], entry: bytes) -> list[int]:
        """Answer `settle`; `call` is request id, tokens, cost."""
        request, tokens, cost = call
        again = request in self.done
        if again:
            tokens, cost = self.done[request]
        self._reap(now, windows)
        scopes = [(name, self.scope(name, now, windows)) for name in limits.fields]
        late = False
        if not again:
            hold = self.holds.pop(request, None)
            late = hold is None
            for name in hold.scopes if hold else ():
                self.scope(name, now, windows)
            for name, scope in scopes:
                for total in (scope, scope.day, scope.month):
                    total.tokens += tokens
                    total.cost += cost
                scope.entries += bool(entry)
                self.charges.append((now, name, tokens, cost))
            if entry:
                self.ledger.append((now, entry))
            self.done[request] = (tokens, cost)
            self.deadlines[request] = now + KEEP
        answer = [1, now, self.epoch, self.scopes["tenant"].entries, int(again), int(late), tokens, cost]
        return answer + [number for _, scope in scopes for number in scope.day.numbers + scope.month.numbers]

    def renew(self, now: int, windows: Windows, limits: Limits, call: tuple[str, int, int, int]) -> list[int]:
        """Answer `renew`; `call` is request id, time to hold, tokens, cost."""
        request, ttl, tokens, cost = call
        self._reap(now, windows)
        if request in self.done:
            return [4, now, *self.done[request]]
        back = request not in self.holds
        if back:
            self.holds[request] = Hold(tokens, cost, limits.fields)
            for name in limits.fields:
                self.scope(name, now, windows)
        self.deadlines[request] = max(self.deadlines.get(request, 0), now + min(ttl, KEEP))
        return [1, now, int(back)]

    def usage(self, now: int, windows: Windows) -> dict[str, list[int]]:
        """Return the numbers of every scope that `usage` answers with."""
        self._reap(now, windows)
        found = {}
        for name in self.scopes:
            scope = self.scope(name, now, windows)
            ever = [scope.entries, scope.tokens, scope.cost]
            found[name] = [*scope.day.numbers, *scope.month.numbers, *self.held(name), *ever]
        return found

    def recall(self, now: int, windows: Windows, calls: Sequence[tuple[str, int, int]]) -> list[int]:
        """Answer `recall`."""
        for request, tokens, cost in calls:
            hold = self.holds.pop(request, None)
            for name in hold.scopes if hold else ():
                self.scope(name, now, windows)
            self.done[request] = (tokens, cost)
            self.deadlines[request] = now + KEEP
        return [1, now]

    def restore(self, now: int, windows: Windows, epoch: int, totals: Sequence[Totals]) -> list[int]:
        """Answer `restore` when all entries were drained."""
        if self.epoch:
            return [4, now, self.epoch]
        self.epoch, before, self.scopes = epoch, self.scopes, {}
        for total in totals:
            scope = self.scope(total.field, now, windows)
            scope.arrival = before.get(total.field, Scope()).arrival
            scope.day.tokens, scope.day.cost = total.day_tokens, total.day_cost
            scope.month.tokens, scope.month.cost = total.month_tokens, total.month_cost
            scope.entries, scope.tokens, scope.cost = total.entries, total.tokens, total.cost
        for hold in self.holds.values():
            for name in hold.scopes:
                self.scope(name, now, windows)
        return [1, now, epoch]


def current(boundaries: tuple[int, int, int], now: int) -> tuple[int, int]:
    """Return the window of now."""
    first, middle, last = boundaries
    return (first, middle) if now < middle else (middle, last)


def inside(windows: Windows, now: int) -> bool:
    """Whether the script accepts these windows."""
    return all(start <= now < end for start, _, end in (windows.day, windows.month))


def rate(now: int, level: LimitScope, scope: Scope) -> tuple[int, int, int]:
    """Return arrival, interval and capacity of a level's request rate."""
    per_minute: Any = level.requests_per_minute
    rule = gcra.RateLimit(level.scope, "", per_minute)
    capacity = rule.interval * rule.burst
    ahead = now <= scope.arrival <= now + capacity
    return scope.arrival if ahead else now, rule.interval, capacity
