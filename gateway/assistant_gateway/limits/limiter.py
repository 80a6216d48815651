"""Whether a call fits the limits of its assistant and tenant, in one round trip, and an answer without Redis.

While Redis is away request rates hold per process; calls under limits in tokens or money are refused, because nobody
could say whether they fit, except for what `grants` took in advance for tenants that want that. Whatever was used is
settled: at once, or when Redis is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from typing import TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from assistant_crds.contracts import LevelUsage, TenantUsage
from assistant_gateway import errors
from assistant_gateway.ledger_store.database import LedgerDatabase
from assistant_gateway.limits import answers, gcra
from assistant_gateway.limits.grants import Grants, Rules
from assistant_gateway.limits.levels import Amount, Limits
from assistant_gateway.limits.quota import Admitted, Counted, Quota, RebuildNeededError, Refused
from assistant_gateway.limits.rebuild import rebuild, rfc3339
from assistant_gateway.limits.redis import Redis, UnavailableError
from assistant_gateway.limits.terms import Terms
from assistant_gateway.limits.windows import Windows
from assistant_observability import logs, metrics

HOLD_SECONDS = 60.0  # what a killed gateway held is free again after so long
RENEW_SECONDS = 20.0
LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 0.5  # for calls that are refused otherwise: a Redis that is busy or restarts is soon back
MOST_UNSETTLED = 50_000  # kept while Redis is away, some 1.5 KB each; then calls are refused rather than forgotten
MOST_UNSETTLED_OF_A_TENANT = 10_000  # so that one tenant's calls do not use up what the others need
AT_ONCE = 200
_HOLD = int(HOLD_SECONDS * 1e6)
_SOON = 1_000_000  # refusals until then are for what others hold, not for what was used

_NOTHING = Amount(0, 0)

Settling: TypeAlias = tuple[Limits, str, Amount, bytes]

_log = logs.logger(__name__)


class _Held(msgspec.Struct):
    limits: Limits
    worst: Amount
    renew_at: float


class Limiter:
    """Asks Redis; decides alone while Redis is away, which is counted and shown in a header."""

    def __init__(
        self, redis: Redis | None, ledger: LedgerDatabase | None = None, *, rules: Rules | None = None
    ) -> None:
        self._redis = redis
        self._ledger = ledger
        self._quota = Quota(redis) if redis is not None else None
        self._grants = Grants(self._quota, rules)
        self._local = gcra.LocalRates()
        self._held: dict[str, _Held] = {}
        self._unsettled: deque[Settling] = deque()
        self._settling: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, int] = {}  # how many of `_unsettled` each tenant has
        self._unanswered: set[str] = set()  # calls that Redis was asked for, and may hold
        self._rebuilding: dict[str, asyncio.Lock] = {}
        self._exhausted: dict[str, set[tuple[str, str]]] = {}
        self._windows: dict[ZoneInfo, Windows] = {}

    @property
    def degraded(self) -> bool:
        """Whether limits are local now although they should be shared."""
        return self._redis is not None and not self._redis.available

    @property
    def unsettled(self) -> int:
        """How many calls wait for Redis to be settled."""
        return len(self._unsettled) + len(self._settling)

    # --- before a call -----------------------------------------------------------------------------------------

    async def reserve(self, terms: Terms, call: str, worst: Amount) -> Admitted | Refused | Mapping[str, str]:
        """Hold the worst case; without Redis draw on grants and local rates and return the headers.

        Raises:
            GatewayError: 503: nobody can say whether it fits; 429 of a local rate.
        """
        self.ensure_room(terms)
        try:
            answer = await self._ask(terms, call, worst)
        except UnavailableError:
            if terms.hard:
                metrics.LIMIT_GRANT_CALLS.labels(terms.namespace, "refused").inc()
                self._withdraw(terms, call)
                message = "The limits of this tenant cannot be checked at the moment, so the call was not made."
                raise _unavailable(message) from None
            return self._admit_alone(terms, call)
        except (errors.GatewayError, asyncio.CancelledError):
            self._withdraw(terms, call)
            raise
        if not isinstance(answer, Admitted | Refused):
            return answer
        if isinstance(answer, Admitted):
            self._held[call] = _Held(terms.limits, worst, time.monotonic() + RENEW_SECONDS)
        if terms.hard:
            self._note(terms, answer)
            if terms.bounded:
                self._grants.note(terms, answer)
        return answer

    async def _ask(self, terms: Terms, call: str, worst: Amount) -> Admitted | Refused | Mapping[str, str]:
        if self._quota is None:
            raise UnavailableError("not configured")
        until = time.monotonic() + (PATIENCE_SECONDS if terms.hard else 0)
        while True:
            if not self._is_away(terms):
                self._unanswered.add(call)
                with contextlib.suppress(UnavailableError):
                    answer = await self._ask_once(self._quota, terms, call, worst)
                    self._unanswered.discard(call)
                    return answer
            if terms.bounded and terms.hard and (granted := self._admit_on_grants(terms, call, worst)) is not None:
                return granted
            if time.monotonic() >= until:
                raise UnavailableError("away")
            await asyncio.sleep(PATIENCE_SECONDS / 10)

    def ensure_room(self, terms: Terms) -> None:
        """Refuse a call when too many wait for Redis already, of this tenant or in all.

        Raises:
            GatewayError: 503.
        """
        of_tenant = self._waiting.get(terms.limits.tenant, 0)
        if len(self._unsettled) >= MOST_UNSETTLED or of_tenant >= MOST_UNSETTLED_OF_A_TENANT:
            raise _unavailable("Too many calls wait to be accounted for.")

    def _withdraw(self, terms: Terms, call: str) -> None:
        """Give back what Redis may hold for a call that is not made. One that is made is settled under its id, once."""
        if call in self._unanswered:
            self._unanswered.discard(call)
            self._settle_later((terms.limits, call, _NOTHING, b""))

    def _is_away(self, terms: Terms) -> bool:
        if terms.bounded:
            self._grants.watch(available=not self.degraded)
            return self.degraded or self._grants.overdue
        return self.degraded

    def _admit_on_grants(self, terms: Terms, call: str, worst: Amount) -> Mapping[str, str] | None:
        """Draw a call on what was taken in advance; None where that is not enough."""
        grants = self._grants.room(terms, worst)
        if grants is None:
            return None
        headers = self._admit_alone(terms, call)
        self._grants.draw(grants, call, worst)
        metrics.LIMIT_GRANT_CALLS.labels(terms.namespace, "admitted").inc()
        return headers

    async def _ask_once(self, quota: Quota, terms: Terms, call: str, worst: Amount) -> Admitted | Refused:
        limits = terms.limits
        try:
            try:
                answer = await quota.reserve(limits, call, worst, _HOLD)
            except RebuildNeededError:
                if terms.bounded and self._grants.others_first:
                    raise
                await self._rebuild(limits)
                answer = await quota.reserve(limits, call, worst, _HOLD)
        except RebuildNeededError:
            raise UnavailableError("counters are lost") from None
        if isinstance(answer, Admitted | Refused):
            return answer
        raise UnavailableError("settled before it was held")

    async def _rebuild(self, limits: Limits) -> None:
        """Restore a tenant's counters, once for all calls that need them."""
        lock = self._rebuilding.setdefault(limits.tenant, asyncio.Lock())
        if lock.locked():
            async with lock:
                return
        async with lock:
            if self._redis is not None and self._quota is not None:
                await rebuild(self._redis, self._quota, limits, self._ledger)

    def _admit_alone(self, terms: Terms, call: str) -> dict[str, str]:
        """Admit a call by what this process knows; whatever Redis may hold for it is given back when it is settled."""
        metrics.LIMIT_DEGRADED.inc()
        headers = self._local_rates(terms, call) if terms.rates else {"x-ratelimit-degraded": "1"}
        self._unanswered.discard(call)
        metrics.LIMIT_ADMITTED_ALONE.labels(terms.namespace).inc()
        return headers

    def _local_rates(self, terms: Terms, call: str) -> dict[str, str]:
        verdict = self._local.admit(terms.rates, time.monotonic_ns() // 1000)
        level = terms.limits.levels[terms.rate_levels[verdict.level]]
        headers = {
            "x-ratelimit-limit-requests": str(level.requests_per_minute),
            "x-ratelimit-remaining-requests": str(verdict.remaining),
            "x-ratelimit-reset-requests": answers.duration(verdict.reset),
            "x-ratelimit-degraded": "1",
        }
        if verdict.allowed:
            return headers
        refused = Refused(level, "requests", verdict.retry, level.requests_per_minute or 0, 0)
        self._withdraw(terms, call)
        error = self.refusal(terms, refused)
        error.headers.update(headers)
        raise error

    def _note(self, terms: Terms, answer: Admitted | Refused) -> None:
        """Remember whose rest is too small for its calls, to show it on the resources."""
        noted = self._exhausted.get(terms.limits.tenant)
        if isinstance(answer, Refused):
            if answer.kind != "requests" and answer.retry_after is not None and answer.retry_after > _SOON:
                self._exhausted.setdefault(terms.limits.tenant, set()).add((answer.level.field, answer.kind))
        elif noted:
            noted.difference_update([(field, kind) for field in terms.limits.fields for kind in ("tokens", "budget")])

    def headers(self, terms: Terms, answer: Admitted | Mapping[str, str]) -> dict[str, str]:
        """Return the headers that say what remains."""
        if not isinstance(answer, Admitted):
            return dict(answer)
        return answers.remaining(terms, answer, self._window(terms.limits.zone, answer.now))

    def refusal(self, terms: Terms, refused: Refused) -> errors.GatewayError:
        """Return the 429 for a call that does not fit, and count it."""
        limit = f"{refused.level.scope}_{refused.kind}"
        metrics.LIMIT_REFUSALS.labels(terms.namespace, terms.assistant, limit).inc()
        return answers.refusal(terms, refused)

    def _window(self, zone: ZoneInfo, now: int) -> Windows:
        windows = self._windows.get(zone)
        if windows is None or not windows.hold(now):
            windows = self._windows[zone] = Windows.at(zone, now)
        return windows

    # --- after it ----------------------------------------------------------------------------------------------

    def settle(self, limits: Limits, call: str, used: Amount, entry: bytes) -> None:
        """Have a call settled. Nobody waits for it; what Redis does not take now it is given later."""
        self._held.pop(call, None)
        self._grants.used(call, used)
        if self._redis is not None:
            self._settle_later((limits, call, used, entry))

    def _settle_later(self, settling: Settling) -> None:
        if self.degraded:
            self._wait(settling)
            return
        task = asyncio.get_running_loop().create_task(self._settle(settling))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, settling: Settling) -> None:
        if self._quota is None:
            return
        try:
            await self._quota.settle(*settling)
            self._grants.settled(settling[1])
        except UnavailableError:
            self._wait(settling)

    def _wait(self, settling: Settling) -> None:
        self._unsettled.append(settling)
        tenant = settling[0].tenant
        self._waiting[tenant] = self._waiting.get(tenant, 0) + 1

    def _next(self) -> Settling:
        settling = self._unsettled.popleft()
        tenant = settling[0].tenant
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            del self._waiting[tenant]
        return settling

    async def run(self) -> None:
        """Settle what could not be settled, and renew the holds of calls that last, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._catch_up()
            await self._grants.look(available=not self.degraded)
            now = time.monotonic()
            due = [(call, held) for call, held in self._held.items() if held.renew_at <= now]
            for start in range(0, len(due), AT_ONCE):
                await asyncio.gather(*(self._renew(call, held) for call, held in due[start : start + AT_ONCE]))

    async def _catch_up(self) -> None:
        left = len(self._unsettled)  # one that Redis refuses again has its next turn later
        while left > 0 and not self.degraded:
            batch = [self._next() for _ in range(min(AT_ONCE, left))]
            left -= len(batch)
            self._settling.add(task := asyncio.create_task(self._settle_all(batch)))
            task.add_done_callback(self._settling.discard)
            await asyncio.shield(task)

    async def _settle_all(self, batch: list[Settling]) -> None:
        await asyncio.gather(*(self._settle(settling) for settling in batch))

    async def _renew(self, call: str, held: _Held) -> None:
        if self._quota is None or self.degraded:
            return
        try:
            if call in self._held:
                await self._quota.renew(held.limits, call, held.worst, _HOLD)
                held.renew_at = time.monotonic() + RENEW_SECONDS
        except UnavailableError:
            held.renew_at = time.monotonic() + 1

    async def close(self, seconds: float) -> None:
        """Settle what is left before the process ends, as long as it may take; say what could not be."""
        until = time.monotonic() + seconds
        while self.unsettled and time.monotonic() < until:
            await self._catch_up()
            await asyncio.sleep(0.01)
        await self._grants.close(available=not self.degraded)
        if self.unsettled:
            _log.error("calls not settled: Redis is away", calls=self.unsettled)

    def expect(self, tenant: str, epoch: int, entries: int) -> None:
        """Tell how far the ledger knows a tenant's counters to be: a Redis that is behind has lost some."""
        if self._quota is not None:
            self._quota.expect(tenant, epoch, entries)

    def forget(self, tenant: str) -> None:
        """Drop what is known of a tenant that is gone."""
        self._exhausted.pop(tenant, None)
        self._rebuilding.pop(tenant, None)
        self._grants.forget(tenant)
        if self._quota is not None:
            self._quota.forget(tenant)

    # --- for the operator --------------------------------------------------------------------------------------

    async def usage(self, terms: Terms, periods: Mapping[str, str]) -> TenantUsage | None:
        """Return what a tenant has used, None while nobody can say. `periods`: of each scope's budget, by field."""
        if self._quota is None or self.degraded:
            return None
        try:
            found = await self._quota.usage(terms.limits)
        except UnavailableError:
            return None
        windows = self._window(terms.limits.zone, time.time_ns() // 1000)
        none = Counted((windows.day[0], windows.day[1]), 0, 0, (windows.month[0], windows.month[1]), 0, 0)
        noted = self._exhausted.get(terms.limits.tenant, set())
        levels = {
            field: _level(field, found[field].counted if field in found else none, period, noted)
            for field, period in periods.items()
        }
        assistants = {field.partition(":")[2]: level for field, level in levels.items() if field != "tenant"}
        return TenantUsage(tenant=levels["tenant"], assistants=assistants, currency=terms.currency)


def _level(field: str, counted: Counted, period: str, noted: set[tuple[str, str]]) -> LevelUsage:
    daily = period == "Day"
    return LevelUsage(
        tokens=counted.day_tokens,
        spent_micros=counted.day_cost if daily else counted.month_cost,
        day_ends=rfc3339(counted.day[1]),
        period=period,
        period_ends=rfc3339(counted.day[1] if daily else counted.month[1]),
        exhausted=[kind for kind in ("tokens", "budget") if (field, kind) in noted],
    )


def _unavailable(message: str) -> errors.GatewayError:
    return errors.GatewayError(
        503, "limits_unavailable", f"{message} Try again.", kind=errors.SERVER, headers={"retry-after": "1"}
    )
