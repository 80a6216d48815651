"""The usage of a tenant compared with its limits: what the status shows, and which alarms are raised. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from assistant_crds import meta
from assistant_crds.conditions import Reason
from assistant_crds.contracts import LevelUsage, TenantUsage
from assistant_operator.tenant import limits
from assistant_operator.tenant.condition import ConditionResult, false, true
from assistant_operator.tenant.limits import Quota
from assistant_operator.tenant.observation import Observation

NEAR_PERCENT = 80
_REASONS = {"tokens": Reason.TOKENS_EXHAUSTED, "budget": Reason.BUDGET_EXHAUSTED}
_FIELDS = {"tokens": "spec.limits.tokensPerDay", "budget": "spec.limits.budget"}


@dataclass(frozen=True)
class Alarm:
    """A limit that is used up, or by 80 % or more. Its mark is the same as long as window and limit are."""

    subject: str  # such as "Assistant support"
    kind: Literal["tokens", "budget"]
    limit: str
    used_up: bool
    resets_at: str
    rest: str = ""  # of a limit that is used up as far as calls go: what was used, and what is left

    @property
    def reason(self) -> str:
        """The reason of its Event."""
        return _REASONS[self.kind].value if self.used_up else f"{self.kind.capitalize()}NearLimit"

    @property
    def sentence(self) -> str:
        """The text of the condition and of the Event."""
        return f"{self.mark} {self.rest}" if self.rest else self.mark

    @property
    def mark(self) -> str:
        """The part of the sentence that stays as long as window and limit do: by it an Event is known again."""
        if self.rest:
            return (
                f"{self.subject} has less left of its {self.limit} than a call needs that it asked for: such calls are "
                f"refused until {self.resets_at}. Ask for less, wait, or raise its {_FIELDS[self.kind]}."
            )
        if not self.used_up:
            return f"{self.subject} has used {NEAR_PERCENT} % of its {self.limit}. It resets at {self.resets_at}."
        return (
            f"{self.subject} has used up its {self.limit}: calls are refused until {self.resets_at}. "
            f"Wait, or raise its {_FIELDS[self.kind]}."
        )


@dataclass(frozen=True)
class Quotas:
    """The limits of a tenant and of its assistants."""

    namespace: str
    tenant: Quota
    assistants: Mapping[str, Quota] = field(default_factory=dict)


@dataclass(frozen=True)
class Digest:
    """As much of the usage as shows anywhere. `shown` is None where the status does not show it yet."""

    alarms: frozenset[Alarm]
    shown: Mapping[str, meta.Usage] | None


def known(observation: Observation) -> TenantUsage | None:
    """Return the usage, if the gateway reports it under this policy's limits."""
    probe = observation.gateway.probe
    if probe is None or probe.generation != observation.policy_generation:
        return None
    return probe.usage


def is_metered(quotas: Iterable[Quota]) -> bool:
    """Return whether there is any limit that can be used up."""
    return any(item.tokens_per_day is not None or item.budget is not None for item in quotas)


def show(level: LevelUsage, currency: str) -> meta.Usage:
    """Return the usage for a status."""
    return meta.Usage(
        spent=limits.money(level.spent_micros, currency),
        tokens=limits.rounded(level.tokens),
        resets_at=level.period_ends,
    )


def tenant_alarms(quotas: Quotas, used: TenantUsage | None) -> list[Alarm]:
    """Return the alarms of the tenant as a whole."""
    return [] if used is None else _alarms(f"Tenant {quotas.namespace}", quotas.tenant, used.tenant)


def assistant_alarms(name: str, quotas: Quotas, used: TenantUsage | None) -> list[Alarm]:
    """Return the alarms of one assistant's own limits."""
    level = None if used is None else used.assistants.get(name)
    return [] if level is None else _alarms(f"Assistant {name}", quotas.assistants.get(name, Quota()), level)


def digest(quotas: Quotas, used: TenantUsage, *, held: bool = False) -> Digest:
    """Return what of the usage shows; `held` when the status does not show it yet."""
    alarms = frozenset(
        alarm
        for found in (tenant_alarms(quotas, used), *(assistant_alarms(name, quotas, used) for name in used.assistants))
        for alarm in found
    )
    levels = {"": used.tenant, **used.assistants}
    shown = {name: show(level, used.currency) for name, level in levels.items()}
    return Digest(alarms, None if held else shown)


def condition(alarms: list[Alarm]) -> ConditionResult:
    """Return the result of the condition QuotaExhausted."""
    message = " ".join(alarm.sentence for alarm in sorted(alarms, key=lambda alarm: not alarm.used_up))
    for alarm in alarms:
        if alarm.used_up:
            return true(_REASONS[alarm.kind], message)
    if alarms:
        return false(Reason.NEAR_LIMIT, message)
    return false(Reason.WITHIN_LIMITS, "No limit is used up.")


def _alarms(subject: str, quota: Quota, level: LevelUsage) -> list[Alarm]:
    alarms = []
    budget, tokens = quota.budget, quota.tokens_per_day
    if budget is not None and budget.period == level.period:
        used, limit = level.spent_micros, budget.amount_micros
        up, near = _state(used, limit, reported="budget" in level.exhausted)
        if near:
            amounts = (limits.money(amount, budget.currency) for amount in (used, limit - used))
            rest = _rest(*amounts) if up and used < limit else ""
            alarms.append(Alarm(subject, "budget", limits.budget_text(budget), up, level.period_ends, rest))
    if tokens is not None:
        up, near = _state(level.tokens, tokens, reported="tokens" in level.exhausted)
        if near:
            counts = (f"{amount} tokens" for amount in (level.tokens, tokens - level.tokens))
            rest = _rest(*counts) if up and level.tokens < tokens else ""
            alarms.append(Alarm(subject, "tokens", limits.tokens_text(tokens), up, level.day_ends, rest))
    return alarms


def _rest(used: str, left: str) -> str:
    return f"Used: {used}; left: {left}."


def _state(used: int, limit: int, *, reported: bool) -> tuple[bool, bool]:
    """Return whether the limit is used up, and whether it is at least nearly so."""
    return reported or used >= limit, reported or used * 100 >= limit * NEAR_PERCENT
