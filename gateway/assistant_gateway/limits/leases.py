"""What a tenant with `failurePolicy: Bounded` may still use while Redis is away: a lease that was taken in advance.

A lease is an ordinary hold of this process on one level, the tenant or one of its assistants, so it counts against the
limits like any call and cannot lead over them. While Redis is away calls draw on it; what they used is settled in Redis
later, and only then is the lease given back. Decision record 19 says why this cannot overspend.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable

import msgspec

from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.quota import Admitted, Quota, RebuildNeededError, Refused, Remaining, Renewal
from assistant_gateway.limits.redis import UnavailableError
from assistant_observability import logs, metrics

AT_ONCE = 200
NOTHING = Amount(0, 0)

_log = logs.logger(__name__)


class Rules(msgspec.Struct, frozen=True):
    """How large leases are, and how long they last. Seconds."""

    share: int = 20  # of what is left of a limit, for each process
    most_tokens: int = 100_000
    most_cost: int = 1_000_000  # micro-units
    least_tokens: int = 1_000  # for less no call could be made, so nothing is taken
    least_cost: int = 1_000
    hold: float = 900.0  # how long Redis holds it for a process that does not come back
    admit: float = 300.0  # after it was last renewed; calls have the rest of `hold` to end and to be settled
    renew: float = 10.0
    idle: float = 300.0  # given back when the tenant has not called for so long
    unwritten: float = 5.0  # Redis may forget what it was told last, see `known.UNWRITTEN_SECONDS`
    grace: float = 3.0  # after Redis returned: for every process to tell what it holds and what was used

    def size(self, left: Remaining) -> Amount | None:
        """Return what to take of a level with so much left, None where that would be too little to be of use."""
        tokens = 0 if left.tokens is None else min(left.tokens // self.share, self.most_tokens)
        cost = 0 if left.budget is None else min(left.budget // self.share, self.most_cost)
        if left.tokens is not None and tokens < self.least_tokens:
            return None
        if left.budget is not None and cost < self.least_cost:
            return None
        return Amount(tokens, cost)


class Lease:
    """A hold of this process on one level. `used` includes the worst case of calls under way."""

    def __init__(self, terms: LimitSet, index: int, amount: Amount, now: float) -> None:
        self.id = f"lease-{os.urandom(16).hex()}"
        self.namespace = terms.namespace
        self.all_levels = terms.limits
        self.limits = _alone(terms.limits, index)
        self.level = self.limits.levels[0]
        self.amount = amount
        self.used_tokens = 0
        self.used_cost = 0
        self.calls = 0  # that drew on it and are not settled in Redis yet
        self.drawn = False
        self.active = now
        self.confirmed = -math.inf  # when the question was sent that Redis last said yes to
        self.taken = math.inf
        self.solid = False  # Redis has had it for so long that it cannot have lost it again
        self.renew_at = math.inf

    @property
    def key(self) -> tuple[str, str]:
        """Whose it is: the tenant and the level."""
        return self.limits.tenant, self.level.field

    def fits(self, level: LimitScope, worst: Amount) -> bool:
        """Whether a call under what is now the limit of this level fits into what is left."""
        return (
            covers(self.level, level)
            and (level.tokens is None or self.used_tokens + worst.tokens <= self.amount.tokens)
            and (level.budget is None or self.used_cost + worst.cost <= self.amount.cost)
        )

    def add(self, tokens: int, cost: int) -> None:
        """Count what a call may use, or correct it by what it did use."""
        self.used_tokens += tokens
        self.used_cost += cost
        self.show()

    def show(self) -> None:
        """Set the metric of what is left."""
        for kind, limit, left in (
            ("tokens", self.level.tokens, self.amount.tokens - self.used_tokens),
            ("cost_micros", self.level.budget, self.amount.cost - self.used_cost),
        ):
            if limit is not None:
                metrics.QUOTA_LEASE_REMAINING.labels(self.namespace, self.level.name, kind).set(left)

    def hide(self) -> None:
        """Remove the metric."""
        metrics.QUOTA_LEASE_REMAINING.remove_by_labels({"tenant": self.namespace, "assistant": self.level.name})


class _Draw(msgspec.Struct):
    leases: list[Lease]
    worst: Amount
    ended: bool = False


class Leases:
    """The leases of this process. `look` takes, renews and gives back; nothing else here asks Redis."""

    def __init__(
        self, quota: Quota | None, rules: Rules | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quota = quota
        self._rules = rules or Rules()
        self._clock = clock
        self._leases: dict[tuple[str, str], Lease] = {}
        self._returning: dict[str, Lease] = {}  # nothing is admitted on them any more
        self._wanted: dict[tuple[str, str], Lease] = {}
        self._draws: dict[str, _Draw] = {}
        self._away_since: float | None = None
        self._back = (-math.inf, 0.0)  # when Redis was last back, and for how long it had been away
        self._closing = False

    # --- while Redis answers -----------------------------------------------------------------------------------

    def note(self, terms: LimitSet, answer: Admitted | Refused) -> None:
        """Learn from an answer that a tenant is active, and what is left of its limits."""
        now = self._clock()
        if isinstance(answer, Refused):  # what is held in advance must not stand in the way of real calls
            if answer.kind != "requests" and answer.retry_after is not None:
                self._give_back((terms.limits.tenant, answer.level.field))
            return
        for index, level in enumerate(terms.limits.levels):
            if level.tokens is None and level.budget is None:
                continue
            key = (terms.limits.tenant, level.field)
            lease = self._leases.get(key)
            if lease is None and key not in self._wanted:
                amount = self._rules.size(answer.remaining[index])
                if amount is not None:
                    self._wanted[key] = Lease(terms, index, amount, now)
            elif lease is not None:
                lease.active = now
                if self._is_too_much(lease, level, answer.remaining[index]):
                    self._give_back(key)

    def _is_too_much(self, lease: Lease, level: LimitScope, left: Remaining) -> bool:
        """Whether a lease has outgrown a limit that was lowered or used up meanwhile."""
        if not covers(lease.level, level):
            return True
        tokens = None if left.tokens is None else left.tokens + lease.amount.tokens
        budget = None if left.budget is None else left.budget + lease.amount.cost
        due = self._rules.size(Remaining(None, 0, tokens, budget))
        return due is None or lease.amount.tokens > 2 * due.tokens or lease.amount.cost > 2 * due.cost

    async def look(self, *, available: bool) -> None:
        """Take what is wanted, renew, and give back what is idle, used or too much."""
        self.watch(available=available)
        if self._quota is None or not available:
            return
        now = self._clock()
        for key, lease in list(self._leases.items()):
            if now - lease.active > self._rules.idle or (lease.drawn and not lease.calls):
                self._give_back(key)
        due = [self._release(lease) for lease in self._returning.values() if not lease.calls]
        waiting = [lease for lease in self._returning.values() if lease.calls]
        due += [self._renew(lease) for lease in (*self._leases.values(), *waiting) if lease.renew_at <= now]
        wanted, self._wanted = self._wanted, {}
        due += [self._take(lease) for lease in wanted.values()]
        for start in range(0, len(due), AT_ONCE):
            await asyncio.gather(*due[start : start + AT_ONCE])

    async def _take(self, lease: Lease) -> None:
        sent = self._clock()
        if self._quota is None or self._closing or lease.key in self._leases:
            return
        try:
            answer = await self._quota.reserve(lease.limits, lease.id, lease.amount, self._hold)
        except UnavailableError:  # it may have been held all the same
            self._returning[lease.id] = lease
            return
        except RebuildNeededError:
            return
        if isinstance(answer, Admitted):
            self._quota.leave(lease.limits, lease.id)
            self._confirm(lease, sent)
            lease.taken = self._clock()
            lease.renew_at = lease.taken + self._rules.unwritten
            self._leases[lease.key] = lease
            lease.show()
            if self._closing:
                self._give_back(lease.key)

    async def _renew(self, lease: Lease) -> None:
        sent = self._clock()
        if self._quota is None:
            return
        try:
            answer = await self._quota.renewed(lease.limits, lease.id, lease.amount, self._hold)
        except UnavailableError:
            lease.renew_at = self._clock() + 1
            return
        self._confirm(lease, sent)
        if answer is Renewal.KEPT:
            lease.solid = lease.solid or sent >= lease.taken + self._rules.unwritten
        elif self._leases.get(lease.key) is lease:
            # Redis had lost it, and may have given its room to others meanwhile: no more calls on this one.
            self._give_back(lease.key)

    async def _release(self, lease: Lease) -> None:
        if self._quota is None:
            return
        with contextlib.suppress(UnavailableError):
            await self._quota.settle(lease.all_levels, lease.id, NOTHING, b"")
            self._returning.pop(lease.id, None)

    def _confirm(self, lease: Lease, sent: float) -> None:
        lease.confirmed, lease.renew_at = sent, sent + self._rules.renew

    def _give_back(self, key: tuple[str, str]) -> None:
        self._wanted.pop(key, None)
        lease = self._leases.pop(key, None)
        if lease is not None:
            self._returning[lease.id] = lease
            lease.hide()

    @property
    def _hold(self) -> int:
        return int(self._rules.hold * 1e6)

    # --- while Redis is away -----------------------------------------------------------------------------------

    def room(self, terms: LimitSet, worst: Amount) -> list[Lease] | None:
        """Return the leases a call can draw on, one of each limited level, or None where it does not fit."""
        now, found = self._clock(), []
        for level in terms.limits.levels:
            if level.tokens is None and level.budget is None:
                continue
            lease = self._leases.get((terms.limits.tenant, level.field))
            if lease is None or not lease.solid or now >= lease.confirmed + self._rules.admit:
                return None
            if not lease.fits(level, worst):
                return None
            found.append(lease)
        return found or None

    def draw(self, leases: list[Lease], call: str, worst: Amount) -> None:
        """Admit a call on the leases that `room` returned just now."""
        self._draws[call] = _Draw(leases, worst)
        for lease in leases:
            lease.calls += 1
            lease.drawn = True
            lease.active = self._clock()
            lease.add(worst.tokens, worst.cost)

    def used(self, call: str, amount: Amount) -> None:
        """Correct the worst case of a call that has ended; its leases stay until Redis has its entry."""
        draw = self._draws.get(call)
        if draw is not None and not draw.ended:
            draw.ended = True
            for lease in draw.leases:
                lease.add(amount.tokens - draw.worst.tokens, amount.cost - draw.worst.cost)

    def settled(self, call: str) -> None:
        """Take note that Redis has charged a call."""
        draw = self._draws.pop(call, None)
        for lease in draw.leases if draw is not None else ():
            lease.calls -= 1

    # --- when Redis returns ------------------------------------------------------------------------------------

    def watch(self, *, available: bool) -> None:
        """Note when Redis goes and comes. After its return all leases are renewed at once."""
        now = self._clock()
        if not available:
            if self._away_since is None:
                self._away_since = now
        elif self._away_since is not None:
            self._back = (now, now - self._away_since)
            self._away_since = None
            for lease in (*self._leases.values(), *self._returning.values()):
                lease.renew_at = now

    @property
    def others_first(self) -> bool:
        """Whether Redis is just back: counters that it lost are not restored until every process has told its part."""
        return self._clock() < self._back[0] + self._rules.grace

    @property
    def overdue(self) -> bool:
        """The same after so long that Redis may have taken leases back that were used: then nothing is admitted."""
        return self._back[1] > self._rules.admit and self.others_first

    async def close(self, *, available: bool) -> None:
        """Give everything back before the process ends; what still has calls expires."""
        self._closing = True
        self._wanted.clear()
        for key in list(self._leases):
            self._give_back(key)
        if available:
            await asyncio.gather(*(self._release(lease) for lease in self._returning.values() if not lease.calls))
        if self._returning:
            _log.warning("leases not given back: they expire", leases=len(self._returning))

    def forget(self, tenant: str) -> None:
        """Drop the leases of a tenant that is gone, without a word: its counters are gone too."""
        for leases in (self._leases, self._wanted):
            for key in [key for key in leases if key[0] == tenant]:
                leases.pop(key).hide()
        self._returning = {name: lease for name, lease in self._returning.items() if lease.limits.tenant != tenant}


def covers(before: LimitScope, now: LimitScope) -> bool:
    """Whether a lease that was taken under one limit is good under another: only where nothing became stricter."""
    return (
        (now.tokens is None or (before.tokens is not None and before.tokens <= now.tokens))
        and (now.budget is None or (before.budget is not None and before.budget <= now.budget))
        and (now.budget is None or before.period == now.period)
    )


def _alone(limits: Limits, index: int) -> Limits:
    """Return one level without the others and without its request rate, for a hold that counts on it alone."""
    level = msgspec.structs.replace(limits.levels[index], requests_per_minute=None)
    width = len(limits.arguments) // len(limits.levels)
    arguments = limits.arguments[index * width : (index + 1) * width]
    alone = (arguments[0], 0, 0, *arguments[3:])  # interval and burst
    return msgspec.structs.replace(limits, levels=(level,), fields=(level.field,), arguments=alone)
