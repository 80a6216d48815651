"""The status of every resource of a tenant, computed from what was resolved and observed. Pure.

One place decides what each condition says. A condition that cannot be known while another is not true is Unknown
with the reason Waiting; `Ready` repeats the first condition that stands in the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from assistant_crds import naming
from assistant_crds.assistant import AssistantStatus, Replicas
from assistant_crds.conditions import (
    ASSISTANT_CONDITIONS,
    KNOWLEDGE_BASE_CONDITIONS,
    TENANT_CONDITIONS,
    ConditionType,
    Reason,
)
from assistant_crds.contracts import LevelUsage, TenantUsage
from assistant_crds.knowledge_base import KnowledgeBaseStatus
from assistant_crds.meta import Condition, Usage
from assistant_crds.tenant import TenantStatus
from assistant_operator.desired.service import url
from assistant_operator.status.conditions import Conditions
from assistant_operator.status.workload import replicas
from assistant_operator.tenant import limits, usage
from assistant_operator.tenant.condition import ConditionResult, false, true, unknown
from assistant_operator.tenant.limits import Quota
from assistant_operator.tenant.resolve import ResolvedAssistant, ResolvedKnowledgeBase, TenantSettings
from assistant_operator.tenant.snapshot import Json, name_of
from assistant_operator.tenant.state import Tenant
from assistant_operator.tenant.usage import Alarm

# What changes with every document, and says nothing about whether anything works.
FIGURES = ("documents", "pending", "failed", "outdated", "vectors", "orphans")
Results = Mapping[ConditionType, ConditionResult]


def assistant(item: ResolvedAssistant, tenant: Tenant, now: str) -> Json:
    """Return the status of an Assistant; `now` is RFC 3339 in UTC."""
    evaluate = Conditions(tenant)
    ready, desired = replicas(tenant.snapshot.owned)
    used, quotas = usage.known(tenant.observation), (item.quota, tenant.resolved.settings.quota)
    own = None if used is None else used.assistants.get(name_of(item.raw))
    status = AssistantStatus(
        observed_generation=_generation(item.raw),
        conditions=[
            *_conditions(item.raw, ASSISTANT_CONDITIONS, evaluate.assistant(item), now),
            *_exhausted(item.raw, quotas, used, assistant_alarms(item, tenant), now),
            *_fallbacks(item.raw, evaluate.fallbacks(item), now),
        ],
        url=url(tenant.namespace),
        model=item.model,
        limit=limits.binding(quotas),
        usage=_usage(item.raw, own, used),
        replicas=Replicas(ready=ready, desired=desired),
    )
    return _json(status)


def knowledge_base(item: ResolvedKnowledgeBase, tenant: Tenant, now: str) -> Json:
    """Return the status of a KnowledgeBase. Counts that could not be taken this time keep their last values."""
    before = item.raw.get("status") or {}
    counts = tenant.observation.counts.get(item.key)
    numbers = {name: before.get(name) for name in FIGURES}
    if counts is not None:
        # While documents are being written, rows and vectors are counted at different moments.
        settled = counts.pending == 0
        numbers = {
            "documents": counts.documents,
            "pending": counts.pending,
            "failed": counts.failed,
            "outdated": counts.outdated,
            "vectors": counts.vectors,
            "orphans": max(0, counts.vectors - counts.chunks) if settled else before.get("orphans") or 0,
        }
    status = KnowledgeBaseStatus(
        observed_generation=_generation(item.raw),
        conditions=[
            *_conditions(item.raw, KNOWLEDGE_BASE_CONDITIONS, Conditions(tenant).knowledge_base(item), now),
            *_index(item.raw, numbers["outdated"], now),
        ],
        model=item.model,
        reindexed=tenant.observation.reindexed.get(item.key) or before.get("reindexed") or "",
        **numbers,
    )
    return _json(status)


def tenant(raw: Json, tenant: Tenant, now: str) -> Json:
    """Return the status of the Tenant of a namespace that has resources."""
    resolved = tenant.resolved
    used, quotas = usage.known(tenant.observation), (resolved.settings.quota,)
    status = TenantStatus(
        observed_generation=_generation(raw),
        conditions=[
            *_conditions(raw, TENANT_CONDITIONS, Conditions(tenant).tenant(), now),
            *_exhausted(raw, quotas, used, tenant_alarms(tenant), now),
        ],
        assistants=len(resolved.assistants),
        knowledge_bases=len(resolved.knowledge_bases),
        limit=limits.binding(quotas),
        usage=_usage(raw, None if used is None else used.tenant, used),
        url=url(tenant.namespace),
    )
    return _json(status)


def idle_tenant(raw: Json, settings: TenantSettings, now: str) -> Json:
    """Return the status of a Tenant whose namespace holds nothing to serve, or does not exist."""
    name = name_of(raw)
    idle = unknown(
        f"Namespace {name} does not exist, or holds no Assistant or KnowledgeBase yet: create one. "
        "A Tenant has the name of the namespace that it is for."
    )
    results = {kind: settings.accepted if kind is ConditionType.ACCEPTED else idle for kind in TENANT_CONDITIONS}
    status = TenantStatus(
        observed_generation=_generation(raw),
        conditions=_conditions(raw, TENANT_CONDITIONS, results, now),
        assistants=0,
        knowledge_bases=0,
        limit=limits.binding([settings.quota]),
    )
    return _json(status)


def deleting(raw: Json, message: str, now: str) -> Json:
    """Return the status of a resource whose deletion has to wait for something: all else stays as it was."""
    status = dict(raw.get("status") or {})
    result = false(Reason.DELETING, message)
    others = [item for item in status.get("conditions") or [] if item["type"] != ConditionType.READY]
    ready = _condition(raw, ConditionType.READY, result, now)
    return {**status, "conditions": [msgspec.to_builtins(ready), *others]}


def _conditions(raw: Json, kinds: tuple[ConditionType, ...], results: Results, now: str) -> list[Condition]:
    """Return `Ready` and the conditions of `kinds`; times of unchanged ones are kept."""
    ordered = [(kind, results[kind]) for kind in kinds]
    ready = [(ConditionType.READY, _summary(results[kind] for kind in kinds)), *ordered]
    return [_condition(raw, kind, result, now) for kind, result in ready]


def same(wanted: Json, live: Json | None) -> bool:
    """Return whether writing `wanted` would change nothing but times."""
    return _without_times(wanted) == _without_times(live or {})


def same_but_figures(wanted: Json, live: Json | None) -> bool:
    """Return whether writing `wanted` would change nothing but times, what was counted and what was used."""
    figures = {*FIGURES, "usage"}
    return same(
        {key: value for key, value in wanted.items() if key not in figures},
        {key: value for key, value in (live or {}).items() if key not in figures},
    )


def assistant_alarms(item: ResolvedAssistant, tenant: Tenant) -> list[Alarm]:
    """Return the alarms that concern an Assistant: its own and, as it is refused with all others, the tenant's."""
    own = usage.assistant_alarms(name_of(item.raw), tenant.resolved.quotas, usage.known(tenant.observation))
    return [*own, *tenant_alarms(tenant)]


def tenant_alarms(tenant: Tenant) -> list[Alarm]:
    """Return the alarms of the tenant as a whole."""
    return usage.tenant_alarms(tenant.resolved.quotas, usage.known(tenant.observation))


def exhausted(status: Json) -> Json:
    """Return the condition QuotaExhausted of a status; an empty one when it has none."""
    found = status.get("conditions") or []
    return next((item for item in found if item["type"] == ConditionType.QUOTA_EXHAUSTED), {})


def _fallbacks(raw: Json, result: ConditionResult | None, now: str) -> list[Condition]:
    return [] if result is None else [_condition(raw, ConditionType.FALLBACKS_USABLE, result, now)]


def _index(raw: Json, outdated: int | None, now: str) -> list[Condition]:
    """Return the condition IndexCurrent once documents were counted."""
    if outdated is None:
        return []
    result = true(Reason.CURRENT, "All documents were read by this version.")
    if outdated:
        result = false(
            Reason.INDEX_OUTDATED,
            "An earlier version of the platform has read some documents (status.outdated); they are found as before. "
            "To have them read again, which embeds them again, use POST /api/v1/knowledge-bases/"
            f"{name_of(raw)}/reindex or: kubectl annotate knowledgebase {name_of(raw)} --overwrite "
            f'{naming.ANNOTATION_REINDEX}="$(date)". A document that cannot be read again stays as it is; the API '
            "says why.",
        )
    return [_condition(raw, ConditionType.INDEX_CURRENT, result, now)]


def _exhausted(
    raw: Json, quotas: Iterable[Quota], used: TenantUsage | None, alarms: list[Alarm], now: str
) -> list[Condition]:
    """Return the condition QuotaExhausted where there is a limit to use up; what is not known stays as it was."""
    if not usage.is_metered(quotas):
        return []
    if used is not None:
        return [_condition(raw, ConditionType.QUOTA_EXHAUSTED, usage.condition(alarms), now)]
    before = exhausted(raw.get("status") or {})
    return [msgspec.convert(before, Condition)] if before else []


def _usage(raw: Json, level: LevelUsage | None, used: TenantUsage | None) -> Usage | None:
    if level is not None and used is not None:
        return usage.show(level, used.currency)
    before = (raw.get("status") or {}).get("usage")
    return None if before is None else msgspec.convert(before, Usage)


def _summary(results: Iterable[ConditionResult]) -> ConditionResult:
    in_the_way = [result for result in results if not result.is_true]
    if not in_the_way:
        return true(Reason.READY, "Serving.")
    first = next((result for result in in_the_way if result.is_false), in_the_way[0])
    return false(first.reason, first.message)


def _condition(raw: Json, kind: ConditionType, result: ConditionResult, now: str) -> Condition:
    before = next((item for item in (raw.get("status") or {}).get("conditions") or [] if item["type"] == kind), None)
    unchanged = before is not None and before["status"] == result.status
    return Condition(
        type=kind.value,
        status=result.status.value,
        reason=result.reason.value,
        message=result.message[:1024],
        observed_generation=_generation(raw),
        last_transition_time=before["lastTransitionTime"] if before is not None and unchanged else now,
    )


def _generation(raw: Json) -> int:
    return int(raw["metadata"]["generation"])


def _json(status: AssistantStatus | KnowledgeBaseStatus | TenantStatus) -> Json:
    document: Json = msgspec.to_builtins(status)
    return document


def _without_times(status: Json) -> Json:
    return {
        **status,
        "conditions": [
            {key: value for key, value in condition.items() if key != "lastTransitionTime"}
            for condition in status.get("conditions") or []
        ],
    }
