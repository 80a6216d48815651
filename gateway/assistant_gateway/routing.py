"""From a tenant's policy to what a request needs: model, limits, defaults, and where the call goes."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

import msgspec

from assistant_crds import naming
from assistant_crds.contracts import AssistantPolicy, ModelRoute, TenantPolicy
from assistant_gateway import errors
from assistant_gateway.catalog import OWN_ENDPOINT, CatalogError, Provider, Target, target
from assistant_gateway.limits.gcra import Level
from assistant_gateway.limits.limiter import Rates
from assistant_observability import logs

_log = logs.logger(__name__)


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
    """An assistant."""

    to: Destination
    rates: Rates
    defaults: Mapping[str, msgspec.Raw]  # fields that are filled in where a request has none
    max_output_tokens: msgspec.Raw | None


class EmbeddingRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A knowledge base."""

    to: Destination
    dimensions: msgspec.Raw


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant's routes, as of one generation of its policy."""

    namespace: str
    generation: str
    assistants: Mapping[str, ChatRoute]
    knowledge_bases: Mapping[str, EmbeddingRoute]


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
    """Prepare all routes of a tenant; a route that cannot work says so when it is called."""
    allow = policy.models_allow
    return Tenant(
        namespace=policy.tenant.namespace,
        generation=policy.generation,
        assistants={name: _chat_route(policy, name, assistant) for name, assistant in policy.assistants.items()},
        knowledge_bases={
            name: EmbeddingRoute(
                to=_destination(policy.tenant.namespace, name, embedding.route, allow),
                dimensions=_raw(embedding.dimensions),
            )
            for name, embedding in policy.knowledge_bases.items()
        },
    )


def _chat_route(policy: TenantPolicy, name: str, assistant: AssistantPolicy) -> ChatRoute:
    prefix = naming.quota_prefix(policy.tenant.key)
    levels = []
    if assistant.requests_per_minute is not None:
        levels.append(Level("assistant", f"{prefix}rpm:{name}", assistant.requests_per_minute))
    if policy.requests_per_minute is not None:
        levels.append(Level("tenant", f"{prefix}rpm", policy.requests_per_minute))
    defaults = {}
    if assistant.temperature is not None:
        defaults["temperature"] = _raw(assistant.temperature)
    if assistant.top_p is not None:
        defaults["top_p"] = _raw(assistant.top_p)
    most = assistant.max_output_tokens
    return ChatRoute(
        to=_destination(policy.tenant.namespace, name, assistant.route, policy.models_allow),
        rates=Rates.of(policy.tenant.namespace, name, levels),
        defaults=defaults,
        max_output_tokens=None if most is None else _raw(most),
    )


def _destination(namespace: str, name: str, route: ModelRoute, allow: list[str]) -> Destination:
    if route.endpoint is None:
        provider = route.provider or ""
        return Destination(
            name=name,
            tenant=namespace,
            model=route.model,
            model_json=_raw(route.model),
            provider=provider,
            allowed=any(fnmatch.fnmatchcase(f"{provider}/{route.model}", pattern) for pattern in allow),
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
