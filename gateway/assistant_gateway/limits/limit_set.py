"""What holds for the calls of one route, prepared once per policy."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from assistant_gateway.limits import gcra
from assistant_gateway.limits.limit_scope import Limits, LimitScope


class LimitSet(msgspec.Struct, frozen=True, kw_only=True):
    """The levels of one assistant, or of the tenant alone for embeddings, and how they are asked for."""

    namespace: str
    assistant: str  # empty: the tenant alone
    limits: Limits
    rates: tuple[gcra.RateLimit, ...]  # what holds of them in one process while Redis is away
    rate_levels: tuple[int, ...]  # where in `limits.levels` those are
    tokens: bool  # whether any level limits tokens
    money: bool  # whether any level limits money
    currency: str = "USD"
    bounded: bool = False  # failurePolicy: calls may draw on leases while Redis is away

    @property
    def hard(self) -> bool:
        """Whether a call has to be refused when nobody can say what was used."""
        return self.tokens or self.money

    @property
    def limited(self) -> bool:
        """Whether there is anything to ask before a call."""
        return self.tokens or self.money or bool(self.rates)

    def without_rates(self) -> LimitSet:
        """Return what holds for a second call of the same request, which has been counted as a request already."""
        if not self.rates:
            return self
        limits = self.limits.without_rates()
        return msgspec.structs.replace(self, limits=limits, rates=(), rate_levels=())

    @classmethod
    def of(
        cls,
        namespace: str,
        key: str,
        zone: str,
        levels: Sequence[LimitScope],
        *,
        assistant: str = "",
        currency: str = "USD",
    ) -> LimitSet:
        """Prepare.

        Raises:
            ZoneInfoNotFoundError: no such time zone.
            ValueError: a limit is negative or absurd.
        """
        limits = Limits.of(key, zone, levels)
        rates = [
            (index, gcra.RateLimit(level.scope, f"{key}:{level.field}", level.requests_per_minute))
            for index, level in enumerate(limits.levels)
            if level.requests_per_minute is not None
        ]
        return cls(
            namespace=namespace,
            assistant=assistant,
            limits=limits,
            rates=tuple(rate for _, rate in rates),
            rate_levels=tuple(index for index, _ in rates),
            tokens=any(level.tokens is not None for level in limits.levels),
            money=any(level.budget is not None for level in limits.levels),
            currency=currency,
        )
