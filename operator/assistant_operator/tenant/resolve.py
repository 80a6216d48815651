"""Resolve every resource of a tenant by itself: usable, or not and why. A bad one never blocks its neighbours.

An Assistant or KnowledgeBase that cannot be resolved is left out of what the tenant's pods and the gateway get. An
Assistant whose KnowledgeBase is unusable is left out too: answering without its knowledge would be silently wrong.
Pure: a snapshot in, condition results and contract documents out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from assistant_crds import naming
from assistant_crds.assistant import AssistantSpec
from assistant_crds.conditions import Reason
from assistant_crds.contracts import (
    AssistantConfig,
    AssistantPolicy,
    Budget,
    EmbeddingPolicy,
    KnowledgeBaseConfig,
    TenantIdentity,
)
from assistant_crds.knowledge_base import KnowledgeBaseSpec
from assistant_crds.tenant import Models, TenantLimits, TenantSpec
from assistant_operator.tenant import limits, quantities
from assistant_operator.tenant.capacity import Capacity
from assistant_operator.tenant.condition import ConditionResult, false, true, unknown
from assistant_operator.tenant.limits import Quota
from assistant_operator.tenant.models import Refusal, Resolver, created, instructions
from assistant_operator.tenant.snapshot import Json, Snapshot, is_deleting, name_of
from assistant_operator.tenant.usage import Quotas

Spec = TypeVar("Spec", AssistantSpec, KnowledgeBaseSpec, TenantSpec)
_ACCEPTED = true(Reason.ACCEPTED, "The specification is valid.")
_REFS_WAIT = unknown("RefsResolved is judged once Accepted is True.")
_RESOLVED = true(Reason.RESOLVED, "Everything it refers to exists.")
# Of all files of a knowledge base: 1Pi, as in crds/knowledgebases.yaml.
MOST_BYTES = 2**50
# What comes of a specification that is not what it should be, however it got past the API server.
_UNREADABLE = (msgspec.ValidationError, ValueError, ArithmeticError, TypeError, AttributeError, KeyError)


@dataclass(frozen=True)
class Defaults:
    """What holds for a namespace without a Tenant, and for what a Tenant leaves open."""

    requests_per_minute: int | None
    replicas: int
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    tokens_per_day: int | None = None
    budget: Budget | None = None
    time_zone: str = "UTC"
    failure_policy: str = "Closed"


@dataclass(frozen=True)
class TenantSettings:
    """What the platform lets the tenant do, and how it is served."""

    accepted: ConditionResult
    quota: Quota
    time_zone: str
    failure_policy: str
    replicas: int
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    models_allow: list[str]
    allow_own_endpoints: bool
    allowed_origins: list[str]
    registration: str


@dataclass(frozen=True)
class ResolvedKnowledgeBase:
    """One KnowledgeBase; `config` and `policy` are set when it can be served."""

    raw: Json
    key: str
    model: str
    accepted: ConditionResult
    resolved: ConditionResult
    config: KnowledgeBaseConfig | None = None
    policy: EmbeddingPolicy | None = None

    @property
    def served(self) -> bool:
        """Whether pods and gateway get it."""
        return self.config is not None


@dataclass(frozen=True)
class ResolvedAssistant:
    """One Assistant; `config` and `policy` are set when it can be served."""

    raw: Json
    model: str
    accepted: ConditionResult
    resolved: ConditionResult
    knowledge_bases: list[str]
    quota: Quota
    config: AssistantConfig | None = None
    policy: AssistantPolicy | None = None

    @property
    def served(self) -> bool:
        """Whether pods and gateway get it."""
        return self.config is not None


@dataclass(frozen=True)
class Resolved:
    """Everything that is known about a tenant before anything is done. Resources being deleted are not in it."""

    identity: TenantIdentity
    settings: TenantSettings
    assistants: list[ResolvedAssistant]
    knowledge_bases: list[ResolvedKnowledgeBase]

    @property
    def quotas(self) -> Quotas:
        """The limits of the tenant and of its assistants."""
        assistants = {name_of(assistant.raw): assistant.quota for assistant in self.assistants}
        return Quotas(self.identity.namespace, self.settings.quota, assistants)

    def served_knowledge_bases(self) -> list[ResolvedKnowledgeBase]:
        """Return the knowledge bases that pods and gateway get."""
        return [knowledge_base for knowledge_base in self.knowledge_bases if knowledge_base.served]


def resolve(snapshot: Snapshot, providers: frozenset[str] | None, defaults: Defaults) -> Resolved:
    """Return the tenant's resolved resources; `providers` are the catalogue's names, None when unknown."""
    if snapshot.uid is None:
        raise ValueError(f"namespace {snapshot.namespace} does not exist")
    key = naming.tenant_key(snapshot.uid)
    settings = tenant_settings(snapshot.tenant, defaults)
    resolver = Resolver(snapshot, providers, settings.models_allow, settings.allow_own_endpoints)
    knowledge_bases = [
        _knowledge_base(raw, key, resolver)
        for raw in sorted(snapshot.knowledge_bases, key=name_of)
        if not is_deleting(raw)
    ]
    capacity = Capacity()
    knowledge_bases = capacity.fit(knowledge_bases)
    by_name = {name_of(knowledge_base.raw): knowledge_base for knowledge_base in knowledge_bases}
    assistants = [
        _assistant(raw, by_name, resolver) for raw in sorted(snapshot.assistants, key=name_of) if not is_deleting(raw)
    ]
    return Resolved(
        identity=TenantIdentity(namespace=snapshot.namespace, uid=snapshot.uid, key=key),
        settings=settings,
        assistants=capacity.fit(assistants),
        knowledge_bases=knowledge_bases,
    )


def tenant_settings(raw: Json | None, defaults: Defaults) -> TenantSettings:
    """Return the platform's settings for the tenant: its Tenant resource over the defaults."""
    spec, accepted = TenantSpec(), _ACCEPTED
    if raw is not None:
        try:
            spec = _convert(raw, TenantSpec)
            for text in (*spec.serving.resources.requests.values(), *spec.serving.resources.limits.values()):
                if quantities.parse(text) < 0:
                    raise ValueError(f"spec.serving.resources: {text} is below zero")
        except _UNREADABLE as error:
            # One field that cannot be read takes nothing of what the platform team forbids away.
            spec = TenantSpec(models=_models(raw))
            accepted = false(Reason.INVALID_SPEC, f"Tenant {name_of(raw)}: {error}. Correct its spec.")
    tenant_quota, time_zone, wrong = _tenant_limits(raw, defaults)
    if wrong and accepted.is_true:
        accepted = false(Reason.INVALID_SPEC, wrong)
    return TenantSettings(
        accepted=accepted,
        quota=tenant_quota,
        time_zone=time_zone,
        failure_policy=_failure_policy(spec.failure_policy or defaults.failure_policy),
        replicas=spec.serving.replicas.min if raw is not None and accepted.is_true else defaults.replicas,
        requests=spec.serving.resources.requests or defaults.requests,
        limits=spec.serving.resources.limits or defaults.limits,
        models_allow=list(spec.models.allow),
        allow_own_endpoints=spec.models.allow_own_endpoints,
        allowed_origins=list(spec.access.allowed_origins),
        # Closed: a Tenant that cannot be read may have meant to keep people out.
        registration=spec.access.registration if accepted.is_true else "Closed",
    )


def _models(raw: Json) -> Models:
    """Return which models a Tenant allows; none, where that cannot be read."""
    try:
        return msgspec.convert((raw.get("spec") or {}).get("models") or {}, type=Models)
    except _UNREADABLE:
        return Models(allow=[], allow_own_endpoints=False)


def _failure_policy(written: str) -> str:
    return written if written in limits.FAILURE_POLICIES else limits.FAILURE_POLICIES[0]


def _tenant_limits(raw: Json | None, defaults: Defaults) -> tuple[Quota, str, str]:
    """Return the limits, the time zone they are counted in, and what is wrong with them.

    Whatever else a Tenant gets wrong, its limits hold; a limit in money that cannot be understood leaves no money.
    """
    platform = Quota(defaults.requests_per_minute, defaults.tokens_per_day, defaults.budget)
    if raw is None:
        return platform, defaults.time_zone, ""
    written, zone, wrong = raw.get("spec") or {}, defaults.time_zone, ""
    try:
        zone = limits.time_zone(written.get("timeZone") or zone)
    except _UNREADABLE as error:
        wrong = f"Tenant {name_of(raw)}: {error}; until then days and months begin as in {zone}."
    try:
        own = limits.read(msgspec.convert(written.get("limits") or {}, type=TenantLimits))
    except _UNREADABLE as error:
        wrong = f"Tenant {name_of(raw)}: {error}. Correct its spec.limits; until then nothing may be spent."
        own = Quota(budget=Budget(amount_micros=0, currency="USD", period="Month"))
    return own.over(platform), zone, wrong


def _convert(raw: Json, kind: type[Spec]) -> Spec:
    return msgspec.convert(raw.get("spec") or {}, type=kind)


def _knowledge_base(raw: Json, tenant: str, resolver: Resolver) -> ResolvedKnowledgeBase:
    name, key = name_of(raw), naming.knowledge_base_key(tenant, raw["metadata"]["uid"])
    model, accepted = "", _ACCEPTED
    try:
        spec = _convert(raw, KnowledgeBaseSpec)
        model = resolver.describe(spec.embedding)
        max_bytes = quantities.whole_bytes(spec.limits.bytes, MOST_BYTES)
        resolver.check_model(spec.embedding, f"KnowledgeBase {name}", "spec.embedding")
    except _UNREADABLE as error:
        result = false(Reason.INVALID_SPEC, f"KnowledgeBase {name}: {error}. Correct its spec.")
        return ResolvedKnowledgeBase(raw, key, model, result, _REFS_WAIT)
    except Refusal as refusal:
        return ResolvedKnowledgeBase(raw, key, model, refusal.result, _REFS_WAIT)
    try:
        route = resolver.route(spec.embedding, f"KnowledgeBase {name}")
    except Refusal as refusal:
        return ResolvedKnowledgeBase(raw, key, model, accepted, refusal.result)
    config = KnowledgeBaseConfig(
        name=name,
        key=key,
        display_name=spec.display_name or name,
        dimensions=spec.embedding.dimensions,
        max_tokens=spec.chunking.max_tokens,
        overlap_tokens=spec.chunking.overlap,
        max_documents=spec.limits.documents,
        max_bytes=max_bytes,
    )
    policy = EmbeddingPolicy(route=route, dimensions=spec.embedding.dimensions)
    return ResolvedKnowledgeBase(raw, key, model, accepted, _RESOLVED, config, policy)


def _assistant(raw: Json, known: Mapping[str, ResolvedKnowledgeBase], resolver: Resolver) -> ResolvedAssistant:
    name, model = name_of(raw), ""
    wanted: list[str] = []
    quota = Quota()
    try:
        spec = _convert(raw, AssistantSpec)
        wanted = [reference.name for reference in spec.knowledge_bases]
        quota = limits.read(spec.limits)
        model = resolver.describe(spec.model)
        parameters = spec.model.parameters
        temperature = _decimal("model.parameters.temperature", parameters.temperature, 2)
        top_p = _decimal("model.parameters.topP", parameters.top_p, 1)
        min_score = _decimal("retrieval.minScore", spec.retrieval.min_score, 1) or 0.0
        resolver.check_models(spec.model, name)
    except _UNREADABLE as error:
        result = false(Reason.INVALID_SPEC, f"Assistant {name}: {error}. Correct its spec.")
        return ResolvedAssistant(raw, model, result, _REFS_WAIT, wanted, quota)
    except Refusal as refusal:
        return ResolvedAssistant(raw, model, refusal.result, _REFS_WAIT, wanted, quota)
    try:
        route = resolver.route(spec.model, f"Assistant {name}")
        fallbacks = resolver.fallbacks(spec.model, name)
        text = instructions(spec, f"Assistant {name}", resolver.snapshot)
        _require_knowledge_bases(name, wanted, known)
    except Refusal as refusal:
        return ResolvedAssistant(raw, model, _ACCEPTED, refusal.result, wanted, quota)
    if not all(known[knowledge_base].served for knowledge_base in wanted):
        return ResolvedAssistant(raw, model, _ACCEPTED, _RESOLVED, wanted, quota)
    config = AssistantConfig(
        name=name,
        generation=raw["metadata"]["generation"],
        display_name=spec.display_name or name,
        description=spec.description,
        instructions=text,
        knowledge_bases=wanted,
        max_chunks=spec.retrieval.max_chunks,
        min_score=min_score,
        created=created(raw),
    )
    policy = AssistantPolicy(
        route=route,
        requests_per_minute=quota.requests_per_minute,
        temperature=temperature,
        top_p=top_p,
        max_output_tokens=parameters.max_output_tokens,
        tokens_per_day=quota.tokens_per_day,
        budget=quota.budget,
        fallbacks=fallbacks,
    )
    return ResolvedAssistant(raw, model, _ACCEPTED, _RESOLVED, wanted, quota, config, policy)


def _require_knowledge_bases(name: str, wanted: list[str], known: Mapping[str, ResolvedKnowledgeBase]) -> None:
    for knowledge_base in wanted:
        if knowledge_base not in known:
            message = (
                f"Assistant {name} refers to KnowledgeBase {knowledge_base}, which does not exist in its namespace. "
                "Create it, or take it out of spec.knowledgeBases."
            )
            raise Refusal(false(Reason.KNOWLEDGE_BASE_NOT_FOUND, message))


def _decimal(field: str, text: str | None, highest: float) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f'spec.{field} is {text!r}, not a decimal such as "0.2"') from None
    if not 0 <= value <= highest:
        raise ValueError(f"spec.{field} is {text}, not between 0 and {highest:g}")
    return value
