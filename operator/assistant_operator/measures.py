"""What the operator's metrics say of each tenant: how it stands, what it used of its limits, what its bases hold.

Only the operator that leads knows; one that does not any more takes its figures away, because old ones would stand
beside the new leader's for ever. The series of a tenant are bounded, whatever it writes into its resources.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import Gauge

from assistant_crds.conditions import ConditionType, Reason
from assistant_crds.contracts import LevelUsage, TenantUsage
from assistant_observability import metrics
from assistant_operator.tenant.limits import Quota
from assistant_operator.tenant.observation import Counts
from assistant_operator.tenant.snapshot import Json
from assistant_operator.tenant.usage import Quotas

MOST_ASSISTANTS = 50  # of one tenant with limits of their own: those that are nearest to a limit
# Why a resource is not Ready where the platform's people have to act. Every other reason is for its author to mend.
PLATFORM_REASONS = frozenset(
    {
        Reason.GATEWAY_UNREACHABLE,
        Reason.STORE_UNREACHABLE,
        Reason.OPERATOR_OVERLOADED,
        Reason.PROGRESSING,
        Reason.IMAGE_PULL_FAILED,
        Reason.CONTAINER_FAILING,
        Reason.UNSCHEDULABLE,
        Reason.APPLY_FAILED,
        Reason.NOT_ANSWERING,
        Reason.STALE_CONFIGURATION,
        Reason.WAITING,
    }
)
_GAUGES = (
    metrics.TENANT_RESOURCES,
    metrics.TENANT_NOT_READY_SINCE,
    metrics.TENANT_LIMIT,
    metrics.TENANT_LIMIT_USED,
    metrics.TENANT_LIMIT_RESETS,
    metrics.TENANT_KNOWLEDGE,
)

Samples = dict[tuple[Gauge, tuple[str, ...]], float]


@dataclass
class Measured:
    """What is known of the metrics of one tenant."""

    series: frozenset[tuple[Gauge, tuple[str, ...]]] = frozenset()
    waiting: dict[str, float] = field(default_factory=dict)  # UID of a resource -> since when (monotonic)


def show(tenant: str, measured: Measured, samples: Samples) -> None:
    """Set these series of a tenant and take away its others."""
    for gauge, labels in measured.series - samples.keys():
        gauge.remove(tenant, *labels)
    for (gauge, labels), value in samples.items():
        gauge.labels(tenant, *labels).set(value)
    measured.series = frozenset(samples)


def clear() -> None:
    """Take away the series of all tenants: this operator does not lead any more."""
    for gauge in (*_GAUGES, metrics.RESOURCES):
        gauge.clear()


def readiness(statuses: Iterable[Json]) -> Samples:
    """Return how many resources are Ready and not, and since when those are not that have waited longest."""
    samples: Samples = {(metrics.TENANT_RESOURCES, (ready,)): 0.0 for ready in ("true", "false")}
    for condition in map(ready_condition, statuses):
        ready = condition["status"] == "True"
        samples[metrics.TENANT_RESOURCES, ("true" if ready else "false",)] += 1
        if not ready:
            cause = "platform" if condition["reason"] in PLATFORM_REASONS else "tenant"
            key, since = (metrics.TENANT_NOT_READY_SINCE, (cause,)), _seconds(condition["lastTransitionTime"])
            samples[key] = min(samples.get(key, since), since)
    return samples


def note_waits(written: Iterable[tuple[str, Json]], measured: Measured, now: float) -> None:
    """Measure how long resources (UID, status) waited for the platform that are Ready now."""
    before, measured.waiting = measured.waiting, {}
    for uid, status in written:
        condition = ready_condition(status)
        if condition["status"] == "True" and uid in before:
            metrics.TIME_TO_READY.observe(now - before[uid])
        elif condition["status"] != "True" and condition["reason"] in PLATFORM_REASONS:
            measured.waiting[uid] = before.get(uid, now)


def usage(quotas: Quotas, used: TenantUsage | None) -> Samples:
    """Return every limit in tokens and money, what was used of it, and when that begins again."""
    if used is None:
        return {}
    samples = _levels(used, {"": quotas.tenant})
    own = {name: _levels(used, {name: limits}) for name, limits in quotas.assistants.items()}
    for found in sorted(own.values(), key=_share, reverse=True)[:MOST_ASSISTANTS]:
        samples |= found
    return samples


def knowledge(counts: Mapping[str, Counts]) -> Samples:
    """Return what all knowledge bases of a tenant hold; nothing where they could not be counted, or there are none."""
    return {
        (metrics.TENANT_KNOWLEDGE, (what,)): float(sum(getattr(base, what) for base in counts.values()))
        for what in Counts.__dataclass_fields__
        if counts
    }


def ready_condition(status: Json) -> Json:
    """Return the condition that sums up the others."""
    found: Json = next(item for item in status["conditions"] if item["type"] == ConditionType.READY)
    return found


def _levels(used: TenantUsage, levels: Mapping[str, Quota]) -> Samples:
    samples: Samples = {}
    for name, limits in levels.items():
        level = used.assistants.get(name) if name else used.tenant
        for limit, most, spent, ends in _limits(limits, level) if level is not None else ():
            labels = (name, limit)
            samples[metrics.TENANT_LIMIT, labels] = most
            samples[metrics.TENANT_LIMIT_USED, labels] = spent
            samples[metrics.TENANT_LIMIT_RESETS, labels] = _seconds(ends)
    return samples


def _limits(limits: Quota, level: LevelUsage) -> Iterator[tuple[str, int, int, str]]:
    if limits.tokens_per_day is not None:
        yield "tokens", limits.tokens_per_day, level.tokens, level.day_ends
    if limits.budget is not None and limits.budget.period == level.period:
        yield "budget", limits.budget.amount_micros, level.spent_micros, level.period_ends


def _share(samples: Samples) -> float:
    """Return how much is used of the limit that is nearest to its end."""
    used = {labels: value for (gauge, labels), value in samples.items() if gauge is metrics.TENANT_LIMIT_USED}
    return max((value / (samples[metrics.TENANT_LIMIT, labels] or 1) for labels, value in used.items()), default=0.0)


def _seconds(moment: str) -> float:
    """Return a time of RFC 3339 as Unix time; NaN, which alerts of nothing, for one that Python cannot read."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return math.nan
