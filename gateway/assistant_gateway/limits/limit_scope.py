"""Limits of a tenant and of its assistants, and amounts that are held against them.

A number is bounded by `MAX_AMOUNT`, far below where a Lua number (a double) stops being exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from assistant_crds import naming
from assistant_gateway.limits import gcra

MAX_AMOUNT = 10**14  # per call and per limit: 100 million units of a currency
NONE = -1

Kind: TypeAlias = Literal["requests", "tokens", "budget"]
Arguments: TypeAlias = tuple[str | int | bytes, ...]


class LimitScope(msgspec.Struct, frozen=True):
    """The limits of the tenant (`name` empty) or of one of its assistants. None: no limit of that kind."""

    scope: Literal["tenant", "assistant"]
    name: str = ""
    requests_per_minute: int | None = None
    tokens: int | None = None  # per day
    budget: int | None = None  # micro-units per period
    period: Literal["Day", "Month"] = "Month"

    @property
    def field(self) -> str:
        """Name of the counters in Redis."""
        return "tenant" if self.scope == "tenant" else f"assistant:{self.name}"


class Limits(msgspec.Struct, frozen=True):
    """Where and what a call counts, prepared once per policy: the tenant first, then what is below it."""

    tenant: str  # naming.tenant_key
    zone: ZoneInfo
    levels: tuple[LimitScope, ...]
    keys: Arguments
    fields: tuple[str, ...]
    arguments: Arguments

    @classmethod
    def of(cls, tenant: str, zone: str, levels: Iterable[LimitScope] = ()) -> Limits:
        """Prepare; a tenant without limits is counted all the same.

        Raises:
            ZoneInfoNotFoundError: no such time zone.
            ValueError: a limit is negative or absurd.
        """
        below = [level for level in levels if level.scope != "tenant"]
        above = [level for level in levels if level.scope == "tenant"] or [LimitScope("tenant")]
        ordered = (above[0], *below)
        arguments: list[str | int | bytes] = []
        for level in ordered:
            for limit in (level.requests_per_minute, level.tokens, level.budget):
                _check(limit or 0)
            interval, burst = 0, 0
            if level.requests_per_minute is not None:
                rate = gcra.RateLimit(level.scope, "", level.requests_per_minute)
                interval, burst = rate.interval, rate.burst
            tokens = NONE if level.tokens is None else level.tokens
            budget = NONE if level.budget is None else level.budget
            arguments += [level.field, interval, burst, tokens, budget, level.period]
        prefix = naming.quota_prefix(tenant)
        names = ("state", "requests", "deadlines", "ledger")
        keys: Arguments = (len(names), *(prefix + name for name in names))
        fields = tuple(level.field for level in ordered)
        return cls(tenant, ZoneInfo(zone), ordered, keys, fields, tuple(arguments))

    def without_rates(self) -> Limits:
        """Return the same without limits on the rate of requests."""
        levels = [msgspec.structs.replace(level, requests_per_minute=None) for level in self.levels]
        return Limits.of(self.tenant, self.zone.key, levels)


class Amount(msgspec.Struct, frozen=True):
    """Tokens and micro-units."""

    tokens: int
    cost: int

    def __post_init__(self) -> None:
        _check(self.tokens)
        _check(self.cost)


def _check(number: int) -> None:
    if not 0 <= number <= MAX_AMOUNT:
        raise ValueError(f"{number} is not between 0 and {MAX_AMOUNT}")
