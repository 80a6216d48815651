"""Whether a call fits the limits of its assistant and tenant, in one round trip, and an answer without Redis.

While Redis is away request rates hold per process; calls under limits in tokens or money are refused, because nobody
could say whether they fit, except for what `leases` took in advance for tenants that want that. Whatever was used is
settled: at once, or when Redis is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from assistant_crds.contracts import TenantUsage
from assistant_gateway import errors
from assistant_gateway.limits import answers, gcra
from assistant_gateway.limits.ahead import Ahead, WriteAhead
from assistant_gateway.limits.leases import Leases, Rules
from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.quota import Admitted, Counted, Quota, RebuildNeededError, Refused
from assistant_gateway.limits.redis import Redis, UnavailableError
from assistant_gateway.limits.refusals import Refusals, usage_of
from assistant_gateway.limits.settling import Settlements
from assistant_gateway.limits.windows import Windows
from assistant_observability import logs, metrics

HOLD_SECONDS = 60.0  # what a killed gateway held is free again after so long
RENEW_SECONDS = 20.0
LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 0.5  # for calls that are refused otherwise: a Redis that is busy or restarts is soon back
MAX_UNSETTLED = 50_000  # kept while Redis is away, some 1.5 KB each; then calls are refused rather than forgotten
MAX_UNSETTLED_PER_TENANT = 10_000  # so that one tenant's calls do not use up what the others need
# Entries of the ledger that wait in Redis while Postgres is away, some 600 bytes each.
MAX_WAITING = 250_000
MAX_WAITING_PER_TENANT = 50_000
MAX_SCOPES_GONE = 500  # of one tenant: counters of assistants that are no more, until their month is over
AT_ONCE = 200
_HOLD = int(HOLD_SECONDS * 1e6)

_NOTHING = Amount(0, 0)

Rebuild: TypeAlias = Callable[[Quota, Limits], Awaitable[None]]

_log = logs.logger(__name__)


class _Held(msgspec.Struct):
    limits: Limits
    worst: Amount
    renew_at: float


class Limiter:
    """Asks Redis; decides alone while Redis is away, which is counted and shown in a header."""

    def __init__(
        self,
        redis: Redis | None,
        *,
        rebuild: Rebuild | None = None,
        write_ahead: WriteAhead | None = None,
        rules: Rules | None = None,
    ) -> None:
        """Prepare.

        Args:
            redis: None where none is configured.
            rebuild: restores the counters of a tenant that Redis has lost; raises UnavailableError.
            write_ahead: writes entries to the ledger that Redis does not take; None: they wait in memory alone.
            rules: of the leases.
        """
        self._redis = redis
        self._restore = rebuild
        self._quota = Quota(redis) if redis is not None else None
        self._leases = Leases(self._quota, rules)
        self._local = gcra.LocalRates()
        self._held: dict[str, _Held] = {}
        self._ahead = Ahead(write_ahead)
        self._settlements = Settlements(redis, self._quota, self._leases, self._ahead)
        self._refusals = Refusals()
        self._full: frozenset[str] | None = frozenset()  # whose entries wait for Postgres in masses; None: all tenants'
        self._notes: set[asyncio.Task[None]] = set()
        self._unanswered: set[str] = set()  # calls that Redis was asked for, and may hold
        self._rebuilding: dict[str, asyncio.Lock] = {}
        self._windows: dict[ZoneInfo, Windows] = {}

    @property
    def degraded(self) -> bool:
        """Whether limits are local now although they should be shared."""
        return self._redis is not None and not self._redis.available

    @property
    def unsettled(self) -> int:
        """How many calls wait for Redis to be settled."""
        return len(self._settlements)

    # --- before a call -----------------------------------------------------------------------------------------

    async def reserve(self, terms: LimitSet, call: str, worst: Amount) -> Admitted | Refused | Mapping[str, str]:
        """Hold the worst case; without Redis draw on leases and local rates and return the headers.

        Raises:
            GatewayError: 503: nobody can say whether it fits; 429 of a local rate.
        """
        self.ensure_room(terms)
        self._settlements.remember(terms.limits.tenant)
        try:
            answer = await self._ask(terms, call, worst)
        except UnavailableError:
            if terms.hard:
                metrics.QUOTA_LEASE_CALLS.labels(terms.namespace, "refused").inc()
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
        if terms.hard and terms.bounded:
            self._leases.note(terms, answer)
        return answer

    async def _ask(self, terms: LimitSet, call: str, worst: Amount) -> Admitted | Refused | Mapping[str, str]:
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
            if terms.bounded and terms.hard and (leased := self._admit_on_leases(terms, call, worst)) is not None:
                return leased
            if time.monotonic() >= until:
                raise UnavailableError("away")
            await asyncio.sleep(PATIENCE_SECONDS / 10)

    def ensure_room(self, terms: LimitSet) -> None:
        """Refuse a call that is asked for although there is no room to account for it, or after too many refusals.

        Raises:
            GatewayError: 503; 429 as for the tenant's last call.
        """
        tenant = terms.limits.tenant
        if (waiting := len(self._settlements)) and (
            waiting >= MAX_UNSETTLED or self._settlements.waiting(tenant) >= MAX_UNSETTLED_PER_TENANT
        ):
            raise _unavailable("Too many calls wait to be accounted for.")
        if self._full is None or tenant in self._full:
            raise _unavailable("Too many calls wait for the ledger, which cannot be written at the moment.")
        if (refused := self._refusals.paused(terms.limits)) is not None:
            raise self.refusal(terms, refused)

    def note_waiting(self, entries: Mapping[str, int]) -> None:
        """Learn how many entries of each tenant wait in Redis for Postgres: memory that the limits need as well."""
        full = frozenset(tenant for tenant, count in entries.items() if count >= MAX_WAITING_PER_TENANT)
        self._full = None if sum(entries.values()) >= MAX_WAITING else full

    def _withdraw(self, terms: LimitSet, call: str) -> None:
        """Give back what Redis may hold for a call that is not made. One that is made is settled under its id, once."""
        if call in self._unanswered:
            self._unanswered.discard(call)
            self._settlements.settle((terms.limits, call, _NOTHING, b""))

    def _is_away(self, terms: LimitSet) -> bool:
        if terms.bounded:
            self._leases.watch(available=not self.degraded)
            return self.degraded or self._leases.overdue
        return self.degraded

    def _admit_on_leases(self, terms: LimitSet, call: str, worst: Amount) -> Mapping[str, str] | None:
        """Draw a call on what was taken in advance; None where that is not enough."""
        leases = self._leases.room(terms, worst)
        if leases is None:
            return None
        headers = self._admit_alone(terms, call)
        self._leases.draw(leases, call, worst)
        metrics.QUOTA_LEASE_CALLS.labels(terms.namespace, "admitted").inc()
        return headers

    async def _ask_once(self, quota: Quota, terms: LimitSet, call: str, worst: Amount) -> Admitted | Refused:
        limits = terms.limits
        try:
            try:
                answer = await quota.reserve(limits, call, worst, _HOLD)
            except RebuildNeededError:
                if terms.bounded and self._leases.others_first:
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
            if self._quota is not None:
                if self._restore is None:
                    raise UnavailableError("counters are lost, and there is no ledger to restore them from")
                await self._restore(self._quota, limits)

    def _admit_alone(self, terms: LimitSet, call: str) -> dict[str, str]:
        """Admit a call by what this process knows; whatever Redis may hold for it is given back when it is settled."""
        metrics.LIMIT_DEGRADED.inc()
        headers = self._local_rates(terms, call) if terms.rates else {"x-ratelimit-degraded": "1"}
        self._unanswered.discard(call)
        metrics.LIMIT_ADMITTED_ALONE.labels(terms.namespace).inc()
        return headers

    def _local_rates(self, terms: LimitSet, call: str) -> dict[str, str]:
        verdict = self._local.admit(terms.rates, time.monotonic_ns() // 1000)
        level = terms.limits.levels[terms.rate_levels[verdict.level]]
        headers = {
            "x-ratelimit-limit-requests": str(terms.rates[verdict.level].burst),
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

    def headers(self, terms: LimitSet, answer: Admitted | Mapping[str, str]) -> dict[str, str]:
        """Return the headers that say what remains."""
        if not isinstance(answer, Admitted):
            return dict(answer)
        return answers.remaining(terms, answer, self._window(terms.limits.zone, answer.now))

    def refusal(self, terms: LimitSet, refused: Refused) -> errors.GatewayError:
        """Return the 429 for a call that does not fit, and count it."""
        limit = f"{refused.level.scope}_{refused.kind}"
        metrics.LIMIT_REFUSALS.labels(terms.namespace, terms.assistant, limit).inc()
        if refused.kind != "requests":
            self._refusals.add(terms.limits, refused)
            if self._quota is not None and self._refusals.is_news(terms.limits, refused):
                self._notes.add(task := asyncio.create_task(self._note(self._quota, terms.limits, refused)))
                task.add_done_callback(self._notes.discard)
        now = time.time_ns() // 1000  # Redis' clock said when to come back; headers may be some milliseconds off
        return answers.refusal(terms, refused, self._window(terms.limits.zone, now), now)

    @staticmethod
    async def _note(quota: Quota, limits: Limits, refused: Refused) -> None:
        with contextlib.suppress(UnavailableError):  # the next refusal a minute later says it again
            await quota.note(limits, refused)

    def _window(self, zone: ZoneInfo, now: int) -> Windows:
        windows = self._windows.get(zone)
        if windows is None or not windows.hold(now):
            windows = self._windows[zone] = Windows.at(zone, now)
        return windows

    # --- after it ----------------------------------------------------------------------------------------------

    def settle(self, limits: Limits, call: str, used: Amount, entry: bytes) -> None:
        """Have a call settled. Nobody waits for it; what Redis does not take now it is given later."""
        self._held.pop(call, None)
        self._leases.used(call, used)
        if self._redis is not None:
            self._settlements.settle((limits, call, used, entry))

    async def run(self) -> None:
        """Settle what could not be settled, and renew the holds of calls that last, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._settlements.catch_up()
            await self._settlements.clear()
            self._ahead.look()
            await self._leases.look(available=not self.degraded)
            now = time.monotonic()
            due = [(call, held) for call, held in self._held.items() if held.renew_at <= now]
            for start in range(0, len(due), AT_ONCE):
                await asyncio.gather(*(self._renew(call, held) for call, held in due[start : start + AT_ONCE]))

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
        writing = asyncio.create_task(self._ahead.close())
        while self.unsettled and time.monotonic() < until:
            await self._settlements.catch_up()
            await asyncio.sleep(0.01)
        await asyncio.wait({writing}, timeout=max(0.0, until - time.monotonic()))
        writing.cancel()
        await self._leases.close(available=not self.degraded)
        if self.unsettled:
            _log.error("calls not settled: Redis is away", calls=self.unsettled, lost_to_the_ledger=len(self._ahead))

    def expect(self, tenant: str, epoch: int, entries: int) -> None:
        """Tell how far the ledger knows a tenant's counters to be: a Redis that is behind has lost some."""
        if self._quota is not None:
            self._quota.expect(tenant, epoch, entries)

    def forget(self, tenant: str) -> None:
        """Drop what is known of a tenant that is gone."""
        self._refusals.forget(tenant)
        self._settlements.forget(tenant)
        self._rebuilding.pop(tenant, None)
        self._leases.forget(tenant)
        if self._quota is not None:
            self._quota.forget(tenant)

    async def drop_scopes(self, limits: Limits, levels: Mapping[str, LimitScope]) -> None:
        """Forget the counters of assistants that are no more; `levels`: of those that there are, by `LimitScope.field`.

        They go when their month is over, so that an assistant made again begins with what it used; many go at once.
        """
        if self._quota is None or self.degraded:
            return
        with contextlib.suppress(UnavailableError):
            gone = [field for field in await self._quota.scopes(limits) if field not in levels and field != "tenant"]
            if gone:
                await self._quota.drop(limits, gone, used=len(gone) > MAX_SCOPES_GONE)

    # --- for the operator --------------------------------------------------------------------------------------

    async def usage(self, terms: LimitSet, levels: Mapping[str, LimitScope]) -> TenantUsage | None:
        """Return what a tenant has used, None while it is unknown. `levels`: its limits, by `LimitScope.field`."""
        if self._quota is None or self.degraded:
            return None
        try:
            # Counters that Redis has lost would look like nothing used. A tenant without assistants has none to lose.
            if len(levels) > 1 and not await self._quota.epoch(terms.limits):
                if self._leases.others_first:
                    return None
                await self._rebuild(terms.limits)
            found = await self._quota.usage(terms.limits, list(levels))
            noted = await self._quota.noted(terms.limits, list(levels))
        except UnavailableError:
            return None
        windows = self._window(terms.limits.zone, time.time_ns() // 1000)
        none = Counted((windows.day[0], windows.day[1]), 0, 0, (windows.month[0], windows.month[1]), 0, 0)
        shown = usage_of(levels, {field: usage.counted for field, usage in found.items()}, noted, none)
        assistants = {field.partition(":")[2]: level for field, level in shown.items() if field != "tenant"}
        return TenantUsage(tenant=shown["tenant"], assistants=assistants, currency=terms.currency)


def _unavailable(message: str) -> errors.GatewayError:
    return errors.GatewayError(
        503, "limits_unavailable", f"{message} Try again.", kind=errors.SERVER, headers={"retry-after": "1"}
    )
