"""From a tenant's policy to what a request needs: model, limits, defaults, and where the call goes."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfoNotFoundError

import msgspec

from assistant_crds.contracts import AssistantPolicy, Budget, ModelRoute, TenantPolicy
from assistant_gateway import errors
from assistant_gateway.limits.limit_scope import LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.providers.catalog import OWN_ENDPOINT, CatalogError, Provider, Target, target
from assistant_observability import logs

_log = logs.logger(__name__)


Scope: TypeAlias = Literal["tenant", "assistant"]
Period: TypeAlias = Literal["Day", "Month"]


class PolicyError(ValueError):
    """A policy cannot be used, and why; nothing secret in it."""


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where calls by one name go. Everything that does not depend on the request is made once, here."""

    name: str
    tenant: str
    model: str
    model_json: msgspec.Raw
    provider: str  # `endpoint` for the tenant's own
    allowed: bool = True
    own: Target | None = None
    problem: str | None = None  # why the tenant's own endpoint cannot be called

    @property
    def label(self) -> str:
        """What people read: `provider/model`."""
        return f"{self.provider}/{self.model}"


class ChatRoute(msgspec.Struct, frozen=True, kw_only=True):
    """An assistant. Its destinations are asked in order; there is at least one."""

    destinations: tuple[Destination, ...]
    terms: LimitSet
    defaults: Mapping[str, msgspec.Raw]  # fields that are filled in where a request has none
    max_output_tokens: msgspec.Raw | None

    @property
    def to(self) -> Destination:
        """The assistant's own model."""
        return self.destinations[0]


class EmbeddingRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A knowledge base. It has one model: another's vectors would not fit those that are stored."""

    to: Destination
    terms: LimitSet
    dimensions: msgspec.Raw


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant's routes, as of one generation of its policy."""

    namespace: str
    generation: str
    assistants: Mapping[str, ChatRoute]
    knowledge_bases: Mapping[str, EmbeddingRoute]
    terms: LimitSet  # of the tenant as a whole
    levels: Mapping[str, LimitScope]  # the limits of each scope, by `LimitScope.field`
    allow: tuple[str, ...] = ()  # patterns on `provider/model`
    service_account_uid: str | None = None  # as in `TenantPolicy`


def is_allowed(provider: str, model: str, allow: Sequence[str]) -> bool:
    """Whether a policy's patterns on `provider/model` let its tenant use a model of the platform's providers."""
    return any(fnmatch.fnmatchcase(f"{provider}/{model}", pattern) for pattern in allow)


def resolve(route: Destination, targets: Mapping[str, Target]) -> Target:
    """Return where a call goes now.

    Raises:
        GatewayError: the model is not allowed, or the provider cannot be called.
    """
    if not route.allowed:
        raise errors.forbidden("model_not_allowed", f"This tenant may not use the model {route.label}.")
    if route.problem is not None:
        raise errors.provider_unreachable(route.provider, route.problem)
    found = route.own or targets.get(route.provider)
    if found is None:
        raise errors.GatewayError(
            502, "provider_unknown", f"The platform has no provider {route.provider!r}.", kind=errors.SERVER
        )
    if found.missing_key is not None:
        raise errors.GatewayError(
            502,
            "provider_unauthorized",
            f"The platform has no key for provider {route.provider}; the platform team has to add it.",
            kind=errors.SERVER,
        )
    return found


def compile_policy(policy: TenantPolicy) -> Tenant:
    """Prepare all routes of a tenant; a route that cannot work says so when it is called.

    Raises:
        PolicyError: its limits or its time zone make no sense.
    """
    allow = policy.models_allow
    whole = _terms(policy, [_level("tenant", "", policy.requests_per_minute, policy.tokens_per_day, policy.budget)])
    levels = [whole.limits.levels[0]]
    for name, assistant in policy.assistants.items():
        limits = (assistant.requests_per_minute, assistant.tokens_per_day, assistant.budget)
        levels.append(_level("assistant", name, *limits))
    return Tenant(
        namespace=policy.tenant.namespace,
        generation=policy.generation,
        assistants={name: _chat_route(policy, name, assistant) for name, assistant in policy.assistants.items()},
        knowledge_bases={
            name: EmbeddingRoute(
                to=_destination(policy.tenant.namespace, name, embedding.route, allow),
                terms=whole,
                dimensions=_raw(embedding.dimensions),
            )
            for name, embedding in policy.knowledge_bases.items()
        },
        terms=whole,
        levels={level.field: level for level in levels},
        allow=tuple(allow),
        service_account_uid=policy.service_account_uid,
    )


def _chat_route(policy: TenantPolicy, name: str, assistant: AssistantPolicy) -> ChatRoute:
    levels = [
        _level("tenant", "", policy.requests_per_minute, policy.tokens_per_day, policy.budget),
        _level("assistant", name, assistant.requests_per_minute, assistant.tokens_per_day, assistant.budget),
    ]
    defaults = {}
    if assistant.temperature is not None:
        defaults["temperature"] = _raw(assistant.temperature)
    if assistant.top_p is not None:
        defaults["top_p"] = _raw(assistant.top_p)
    most = assistant.max_output_tokens
    return ChatRoute(
        destinations=tuple(
            _destination(policy.tenant.namespace, name, route, policy.models_allow)
            for route in (assistant.route, *assistant.fallbacks)
        ),
        terms=_terms(policy, levels, name, assistant.budget),
        defaults=defaults,
        max_output_tokens=None if most is None else _raw(most),
    )


def _level(scope: Scope, name: str, requests: int | None, tokens: int | None, budget: Budget | None) -> LimitScope:
    amount = None if budget is None else budget.amount_micros
    return LimitScope(scope, name, requests, tokens, amount, _period(budget))


def _period(budget: Budget | None) -> Period:
    return "Day" if budget is not None and budget.period == "Day" else "Month"


def _terms(
    policy: TenantPolicy, levels: list[LimitScope], assistant: str = "", budget: Budget | None = None
) -> LimitSet:
    budgets = [found for found in (policy.budget, budget) if found is not None]
    if len({found.currency for found in budgets}) > 1:
        raise PolicyError(f"the budgets of assistant {assistant} and of its tenant are in two currencies")
    currency = budgets[0].currency if budgets else "USD"
    tenant = policy.tenant
    try:
        terms = LimitSet.of(
            tenant.namespace, tenant.key, policy.time_zone, levels, assistant=assistant, currency=currency
        )
        return msgspec.structs.replace(terms, bounded=policy.failure_policy == "Bounded")
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise PolicyError(f"limits or time zone: {error}") from None


def _destination(namespace: str, name: str, route: ModelRoute, allow: list[str]) -> Destination:
    if route.endpoint is None:
        provider = route.provider or ""
        return Destination(
            name=name,
            tenant=namespace,
            model=route.model,
            model_json=_raw(route.model),
            provider=provider,
            allowed=is_allowed(provider, route.model, allow),
        )
    own, problem = None, None
    try:
        own = target(OWN_ENDPOINT, Provider(url=route.endpoint.url), route.endpoint.api_key, own=True)
    except CatalogError as error:
        problem = str(error)
        _log.warning("endpoint cannot be used", tenant=namespace, route=name, error=problem)
    # Whether a tenant may have an endpoint of its own is decided by the operator, which writes the policy.
    return Destination(
        name=name,
        tenant=namespace,
        model=route.model,
        model_json=_raw(route.model),
        provider=OWN_ENDPOINT,
        own=own,
        problem=problem,
    )


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
