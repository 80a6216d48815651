"""Limits in requests, tokens and money: from what people write to what the gateway enforces, and to words for people.

Money is whole micro-units of its currency everywhere (1 USD = 1_000_000). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from assistant_crds import meta
from assistant_crds.assistant import AssistantLimits
from assistant_crds.contracts import Budget
from assistant_crds.tenant import TenantLimits

MICROS = 1_000_000
CURRENCIES = ("USD",)
PERIODS = ("Day", "Month")
FAILURE_POLICIES = ("Closed", "Bounded")
_CENT = MICROS // 100
_DAYS = {"Day": 1, "Month": 30}
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,7})(?:\.([0-9]{1,6}))?", re.ASCII)


@dataclass(frozen=True)
class Quota:
    """The limits of a tenant or of one assistant. None: no limit of that kind."""

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    budget: Budget | None = None

    def over(self, defaults: Quota) -> Quota:
        """Return these limits, with the defaults where there is none."""
        return Quota(
            defaults.requests_per_minute if self.requests_per_minute is None else self.requests_per_minute,
            defaults.tokens_per_day if self.tokens_per_day is None else self.tokens_per_day,
            defaults.budget if self.budget is None else self.budget,
        )


def read(limits: AssistantLimits | TenantLimits) -> Quota:
    """Return what a resource's `spec.limits` says; raises ValueError when its budget is none."""
    budget = None if limits.budget is None else parse(limits.budget)
    return Quota(limits.requests_per_minute, limits.tokens_per_day, budget)


def parse(budget: meta.Budget) -> Budget:
    """Return the budget in micro-units; raises ValueError when it is none."""
    match = _AMOUNT.fullmatch(budget.amount)
    if match is None:
        raise ValueError(
            f"the budget's amount is {budget.amount!r}, not a decimal below 100000000 with up to 6 decimals, "
            'such as "25.00"'
        )
    if budget.currency not in CURRENCIES:
        raise ValueError(f"the budget's currency is {budget.currency!r}, not one of {', '.join(CURRENCIES)}")
    if budget.period not in PERIODS:
        raise ValueError(f"the budget's period is {budget.period!r}, not one of {', '.join(PERIODS)}")
    whole, decimals = match.groups()
    micros = int(whole) * MICROS + int((decimals or "0").ljust(6, "0"))
    return Budget(amount_micros=micros, currency=budget.currency, period=budget.period)


def time_zone(name: str) -> str:
    """Return the name if it is that of a time zone; raises ValueError with what to do when it is not."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, malformed, or a folder of zones
        raise ValueError(
            f"spec.timeZone is {name!r}, which is no time zone. Use an IANA name such as Europe/Berlin"
        ) from None
    return name


def binding(quotas: Iterable[Quota]) -> str:
    """Return the limit that binds, for people: that in money, else in tokens, else in requests; empty without any.

    Budgets of a day and of a month are compared by what they leave for a day.
    """
    known = list(quotas)
    budgets = [quota.budget for quota in known if quota.budget is not None]
    if budgets:
        return budget_text(min(budgets, key=lambda budget: budget.amount_micros / _DAYS[budget.period]))
    tokens = [quota.tokens_per_day for quota in known if quota.tokens_per_day is not None]
    if tokens:
        return tokens_text(min(tokens))
    rates = [quota.requests_per_minute for quota in known if quota.requests_per_minute is not None]
    return f"{min(rates)}/min" if rates else ""


def budget_text(budget: Budget) -> str:
    """Return a budget for people, exactly: `25.00 USD/Month`."""
    whole, rest = divmod(budget.amount_micros, MICROS)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{decimals} {budget.currency}/{budget.period}"


def tokens_text(tokens: int) -> str:
    """Return a limit in tokens for people."""
    return f"{tokens} tokens/day"


def money(micros: int, currency: str) -> str:
    """Return an amount for people, rounded to cents: `1.23 USD`. What is not nothing does not look like nothing."""
    cents = (micros + _CENT // 2) // _CENT
    if micros > 0 and cents == 0:
        return f"<0.01 {currency}"
    return f"{cents // 100}.{cents % 100:02d} {currency}"


def rounded(number: int) -> int:
    """Return the number with three significant digits: status shows how much, the account says exactly."""
    step = int("1" + "0" * (len(str(number)) - 3))
    return (number + step // 2) // step * step
