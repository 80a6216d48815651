"""Calls that were refused for tokens or money: how many of them a tenant may make, and which limits they used up.

To find out that a call does not fit costs more than to admit one: its prompt is counted, perhaps twice. So each tenant
has a rate of refusals in each process; above it, its calls are refused at once for a moment, as the last one was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from assistant_crds.contracts import LevelUsage
from assistant_gateway.limits import gcra
from assistant_gateway.limits.limit_scope import Limits, LimitScope
from assistant_gateway.limits.quota import Counted, Noted, Refused
from assistant_gateway.limits.windows import rfc3339

PER_MINUTE = 120  # refusals, beside a burst of a sixth of that
SOON = 1_000_000  # refusals until then are for what others hold, not for what was used
NOTE_SECONDS = 60.0  # how often a process says again that a limit is used up
MOST_KNOWN = 10_000


class Refusals:
    """What this process knows of refused calls."""

    def __init__(self) -> None:
        self._rates = gcra.LocalRates()
        self._pauses: dict[tuple[str, ...], tuple[float, Refused]] = {}
        self._noted: dict[tuple[str, str, str, int], float] = {}

    def paused(self, limits: Limits) -> Refused | None:
        """Return why a call is refused without a look at it, None where it is not."""
        if not self._pauses:
            return None
        key = (limits.tenant, *limits.fields)
        found = self._pauses.get(key)
        if found is None:
            return None
        if time.monotonic() >= found[0]:
            del self._pauses[key]
            return None
        return found[1]

    def add(self, limits: Limits, refused: Refused) -> None:
        """Count a refusal."""
        if not lasts(refused):
            return
        rate = gcra.RateLimit("tenant", limits.tenant, PER_MINUTE)
        verdict = self._rates.admit([rate], time.monotonic_ns() // 1000)
        if not verdict.allowed:
            if len(self._pauses) > MOST_KNOWN:
                self._pauses.clear()
            self._pauses[limits.tenant, *limits.fields] = (time.monotonic() + verdict.retry / 1e6, refused)

    def is_news(self, limits: Limits, refused: Refused) -> bool:
        """Whether the other processes should hear that a limit is used up."""
        if refused.retry_after is None or not lasts(refused):
            return False
        key = (limits.tenant, refused.level.field, refused.kind, refused.limit)
        now = time.monotonic()
        if now - self._noted.get(key, float("-inf")) < NOTE_SECONDS:
            return False
        if len(self._noted) > MOST_KNOWN:
            self._noted.clear()
        self._noted[key] = now
        return True

    def forget(self, tenant: str) -> None:
        """Drop what is known of a tenant that is gone."""
        self._pauses = {key: value for key, value in self._pauses.items() if key[0] != tenant}
        self._noted = {key: value for key, value in self._noted.items() if key[0] != tenant}


def lasts(refused: Refused) -> bool:
    """Whether a call was refused for what was used or for its size, not for its rate or for what others hold."""
    return refused.kind != "requests" and (refused.retry_after is None or refused.retry_after > SOON)


def level_usage(level: LimitScope, counted: Counted, noted: Noted) -> LevelUsage:
    """Return what the operator is told of a level.

    Used up is also a limit of which half or less is left, and that half too little for a call that came in this window,
    at whichever gateway, as long as the limit is not raised.
    """
    daily = level.period == "Day"
    spent, ends = (counted.day_cost, counted.day[1]) if daily else (counted.month_cost, counted.month[1])
    exhausted = []
    for kind, limit, used, told, until, end in (
        ("tokens", level.tokens, counted.day_tokens, noted.tokens, noted.tokens_until, counted.day[1]),
        ("budget", level.budget, spent, noted.cost, noted.cost_until, ends),
    ):
        if limit is not None and (used >= limit or (until == end and told >= limit and 2 * used >= limit)):
            exhausted.append(kind)
    return LevelUsage(
        tokens=counted.day_tokens,
        spent_micros=spent,
        day_ends=rfc3339(counted.day[1]),
        period=level.period,
        period_ends=rfc3339(ends),
        exhausted=exhausted,
    )


def usage_of(
    levels: Mapping[str, LimitScope], counted: Mapping[str, Counted], noted: Mapping[str, Noted], none: Counted
) -> dict[str, LevelUsage]:
    """Return the usage of each level; `none`: of one that has not been used in these windows."""
    nothing = Noted(0, 0, 0, 0)
    return {
        field: level_usage(level, counted.get(field, none), noted.get(field, nothing))
        for field, level in levels.items()
    }
