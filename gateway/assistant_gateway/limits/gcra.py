"""Request rates by GCRA, the generic cell rate algorithm: the rule, and a limiter in this process.

A limit of N requests per minute lets N requests per minute through in the long run, and a burst at once. The burst
is a sixth of the limit (ten seconds' worth), but never less than five requests or the limit itself, whichever is
smaller: a person who opens a chat sends a handful of requests together. So no minute ever sees more than the limit
and one burst.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

MICROSECONDS_PER_MINUTE = 60_000_000
SWEEP_ABOVE = 10_000


class RateLimit(msgspec.Struct, frozen=True):
    """One limit that a call has to fit: the assistant's, the tenant's."""

    name: str
    key: str
    requests_per_minute: int

    @property
    def burst(self) -> int:
        """How many requests may come at once."""
        limit = max(1, self.requests_per_minute)
        return max(-(-limit // 6), min(limit, 5))

    @property
    def interval(self) -> int:
        """Microseconds between two requests at the sustained rate."""
        return max(1, MICROSECONDS_PER_MINUTE // max(1, self.requests_per_minute))


class RateDecision(msgspec.Struct, frozen=True):
    """What became of a call. Times are in microseconds; `level` is the index of the level that binds."""

    allowed: bool
    level: int
    remaining: int
    reset: int
    retry: int


class LocalRates:
    """The same rule as in `quota.lua`, for one process, while Redis is away."""

    def __init__(self) -> None:
        self._arrivals: dict[str, int] = {}

    def admit(self, levels: Sequence[RateLimit], now: int) -> RateDecision:
        """Take one request from every level, or from none when one refuses; `now` in microseconds."""
        refused: RateDecision | None = None
        tightest: RateDecision | None = None
        arrivals = []
        for index, level in enumerate(levels):
            interval, capacity = level.interval, level.interval * level.burst
            arrival = self._arrivals.get(level.key, now)
            if not now <= arrival <= now + capacity:  # past, or left by a smaller limit or another clock
                arrival = now
            wait = arrival + interval - capacity - now
            if wait > 0:
                if refused is None or wait > refused.retry:
                    refused = RateDecision(False, index, 0, arrival - now, wait)
            else:
                left = (capacity - (arrival + interval - now)) // interval
                if tightest is None or left < tightest.remaining:
                    tightest = RateDecision(True, index, left, arrival + interval - now, 0)
            arrivals.append(arrival + interval)
        if refused is not None:
            return refused
        if tightest is None:
            raise ValueError("a call needs at least one level")
        for level, arrival in zip(levels, arrivals, strict=True):
            self._arrivals[level.key] = arrival
        if len(self._arrivals) > SWEEP_ABOVE:
            self._arrivals = {key: arrival for key, arrival in self._arrivals.items() if arrival > now}
        return tightest
