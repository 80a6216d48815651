"""The way into each provider: its breaker, its pauses, and how many calls it gets at once.

One bulkhead per provider of the catalogue, and one per tenant and URL for tenants' own endpoints, so that a tenant's
broken server closes nothing for another. Bulkheads belong to the process: two gateways may each send
`concurrency` calls.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping

from assistant_gateway import errors
from assistant_gateway.capacity.fairness import BusyError, Shares
from assistant_gateway.errors import GatewayError
from assistant_gateway.providers.breaker import Breaker, State
from assistant_gateway.providers.catalog import Target
from assistant_observability import logs, metrics

MAX_PAUSE_SECONDS = 60.0  # a provider that asks for an hour is asked again after this
MAX_PAUSES = 1000
MAX_OWN_BULKHEADS = 10_000
TENANT_RATIO = 3.0  # of the places that are left: three of four for one tenant, three of seven for each of two
_ANY = 2**31  # places, where the catalogue has no limit
_STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
# What says that a provider is ill. A refusal, whatever its status below 500, says that it is there.
FAULTS = frozenset({"provider_unreachable", "provider_timeout", "provider_error"})
RATE_LIMITED = "provider_rate_limit_exceeded"

_log = logs.logger(__name__)


class Bulkhead:
    """The way into one provider."""

    def __init__(self, target: Target, clock: Callable[[], float] = time.monotonic) -> None:
        self.target = target
        self.breaker = Breaker(target.settings.breaker, clock)
        self._clock = clock
        self._pauses: dict[str, float] = {}  # by model: providers limit their callers model by model
        limit = target.settings.concurrency
        self._places = Shares(limit or _ANY, ratio=TENANT_RATIO, most_waiting=limit or 1, always_one=True)

    @property
    def running(self) -> int:
        """How many calls run."""
        return self._places.used

    def renew(self, target: Target) -> None:
        """Follow a changed catalogue; what was counted stays."""
        self.target = target
        self.breaker.settings = target.settings.breaker
        self._places.resize(target.settings.concurrency or _ANY, target.settings.concurrency or 1)

    def refusal(self, model: str) -> GatewayError | None:
        """Return why a call cannot be made now, None when it can."""
        blocked = self.breaker.blocked()
        if blocked is not None:
            return errors.provider_unavailable(self.target.provider, blocked)
        if self._pauses:
            left = self._pauses.get(model, 0.0) - self._clock()
            if left > 0:
                return errors.provider_rate_limited(self.target.provider, "it asked for a pause", left)
            self._pauses.pop(model, None)
        return None

    async def enter(self, model: str, until: float, tenant: str) -> Permit:
        """Wait for a place if there is none, for a short time and not beyond `until` (the loop's clock).

        A tenant has a share of the places: one whose share is taken waits, even while there are places for the others.

        Raises:
            GatewayError: 503 or 429, with when to come back.
        """
        if (refused := self.refusal(model)) is not None:
            raise refused
        if not self._places.take_now(tenant, 1):
            soon = asyncio.get_running_loop().time() + self.target.settings.queue_seconds
            try:
                await self._places.take(tenant, 1, min(until, soon))
            except BusyError:
                raise errors.provider_busy(self.target.provider) from None
            if (refused := self.refusal(model)) is not None:  # it may have opened meanwhile
                self._places.give(tenant, 1)
                raise refused
        return Permit(self, model, self.breaker.enter(), tenant)

    def left(self, tenant: str, *, failed: bool | None, trial: bool) -> None:
        """Count the end of a call and let the next one in."""
        self._places.give(tenant, 1)
        if self.breaker.leave(failed=failed, trial=trial):
            metrics.PROVIDER_OPENINGS.labels(self.target.provider).inc()
            calls, failures = self.breaker.counted
            _log.warning("breaker opened", provider=self.target.provider, calls=calls, failures=failures)

    def pause(self, model: str, seconds: float) -> None:
        """Ask for nothing more of a model for a while."""
        if len(self._pauses) >= MAX_PAUSES:
            now = self._clock()
            self._pauses = {name: until for name, until in self._pauses.items() if until > now}
        if len(self._pauses) < MAX_PAUSES:
            self._pauses[model] = self._clock() + min(seconds, MAX_PAUSE_SECONDS)

    def resume(self, model: str) -> None:
        """Forget a pause: the provider has answered."""
        if self._pauses:
            self._pauses.pop(model, None)


class Permit:
    """One call's right to be made. Left exactly once, on every way out."""

    __slots__ = ("_bulkhead", "_left", "_model", "_tenant", "_trial")

    def __init__(self, bulkhead: Bulkhead, model: str, trial: bool, tenant: str) -> None:
        self._bulkhead, self._model, self._trial, self._left = bulkhead, model, trial, False
        self._tenant = tenant

    def answered(self) -> None:
        """Note that the provider has begun to answer: that ends a trial well, however long the answer takes."""
        self._bulkhead.resume(self._model)
        if self._trial:
            self._bulkhead.breaker.leave(failed=False, trial=True)
            self._trial = False

    def refused(self, error: GatewayError) -> None:
        """Note what a failed try says, whether it is tried again or not."""
        if error.code == RATE_LIMITED and error.retry_after is not None:
            self._bulkhead.pause(self._model, error.retry_after)

    def leave(self, code: str | None) -> None:
        """End the call. `code` is that of what went wrong, empty for nothing, None where nobody knows."""
        if self._left:
            return
        self._left = True
        self._bulkhead.left(self._tenant, failed=None if code is None else code in FAULTS, trial=self._trial)


class Bulkheads:
    """The bulkheads of all providers, and of the endpoints of tenants."""

    def __init__(
        self, targets: Callable[[], Mapping[str, Target]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._targets = targets
        self._clock = clock
        self._platform: dict[str, Bulkhead] = {}
        self._own: dict[tuple[str, str], Bulkhead] = {}

    def bulkhead(self, tenant: str, target: Target) -> Bulkhead:
        """Return the bulkhead of the provider, or of the tenant's own endpoint, that a call is for."""
        if target.own:
            return self._own_bulkhead((tenant, target.settings.url), target)
        found = self._platform.get(target.provider)
        if found is None or found.target is not target:
            found = self._follow(target)
        return found

    def _own_bulkhead(self, key: tuple[str, str], target: Target) -> Bulkhead:
        found = self._own.get(key)
        if found is None:
            if len(self._own) >= MAX_OWN_BULKHEADS:
                # Those without anything worth knowing go first; at random among the rest.
                idle = [
                    k for k, found in self._own.items() if not found.running and found.breaker.state is State.CLOSED
                ]
                for old in idle or random.sample(list(self._own), 100):
                    del self._own[old]
            found = self._own[key] = Bulkhead(target, self._clock)
        found.target = target
        return found

    def _follow(self, target: Target) -> Bulkhead:
        """Follow a catalogue that was loaded again. A provider that moved to another address begins anew."""
        targets = self._targets()
        for name in [name for name in self._platform if name not in targets]:
            del self._platform[name]
            for gone in (metrics.PROVIDER_BREAKER, metrics.PROVIDER_RUNNING):
                gone.remove(name)
        found = self._platform.get(target.provider)
        if found is not None and found.target.settings.url == target.settings.url:
            found.renew(target)
            return found
        found = self._platform[target.provider] = Bulkhead(target, self._clock)
        metrics.PROVIDER_BREAKER.labels(target.provider).set_function(lambda: _STATES[found.breaker.state])
        metrics.PROVIDER_RUNNING.labels(target.provider).set_function(lambda: found.running)
        return found

    def forget(self, namespace: str) -> None:
        """Drop the bulkheads of a tenant that is gone."""
        for key in [key for key in self._own if key[0] == namespace]:
            del self._own[key]
