"""From a policy to routes: limits, permissions, destinations."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from assistant_crds import naming
from assistant_crds.contracts import AssistantPolicy, Budget, Endpoint, ModelRoute, TenantIdentity, TenantPolicy
from assistant_gateway.errors import GatewayError
from assistant_gateway.limits.limit_scope import LimitScope
from assistant_gateway.providers.catalog import Provider, target
from assistant_gateway.tenants.routing import PolicyError, compile_policy, resolve

KEY = naming.tenant_key("uid")


def policy(assistant: AssistantPolicy, allow: list[str], limit: int | None = None) -> TenantPolicy:
    """Return a policy with the assistant `support`."""
    return TenantPolicy(
        tenant=TenantIdentity(namespace="acme", uid="uid", key=KEY),
        generation="g",
        models_allow=allow,
        requests_per_minute=limit,
        assistants={"support": assistant},
        knowledge_bases={},
    )


def catalogue(model: str = "gpt-4.1", provider: str = "openai", **fields: Any) -> AssistantPolicy:
    """Return an assistant with a model of the catalogue."""
    return AssistantPolicy(route=ModelRoute(model=model, provider=provider), **fields)


def test_limits_are_kept_under_the_tenants_quota_prefix() -> None:
    """Both levels are asked for at once, under keys that the tenant's own Redis user cannot reach."""
    terms = compile_policy(policy(catalogue(requests_per_minute=60), ["*"], 600)).assistants["support"].terms
    assert [(level.field, level.requests_per_minute) for level in terms.limits.levels] == [
        ("tenant", 600),
        ("assistant:support", 60),
    ]
    assert all(str(key).startswith(f"quota:{{{KEY}}}:") for key in terms.limits.keys[1:])
    assert terms.limited
    assert not terms.hard


def test_embeddings_count_on_all_of_the_tenants_limits() -> None:
    """Requests, tokens and money of ingesting and searching are the tenant's; no assistant's limits hold for them."""
    fields = msgspec.structs.asdict(policy(catalogue(), ["*"], 600)) | {
        "budget": Budget(amount_micros=10_000, currency="USD", period="Day"),
        "tokens_per_day": 5,
    }
    terms = compile_policy(TenantPolicy(**fields)).terms
    assert terms.limits.levels == (LimitScope("tenant", "", 600, 5, 10_000, "Day"),)


def test_a_policy_whose_time_zone_is_unknown_is_refused() -> None:
    """Nobody could say when its day ends; the last good policy stays."""
    fields = msgspec.structs.asdict(policy(catalogue(), ["*"])) | {"time_zone": "Mars/Olympus"}
    with pytest.raises(PolicyError, match="time zone"):
        compile_policy(TenantPolicy(**fields))


def test_no_limit_no_question() -> None:
    """Without limits there is nothing to ask Redis."""
    assert compile_policy(policy(catalogue(), ["*"])).assistants["support"].terms.limited is False


@pytest.mark.parametrize(
    ("allow", "allowed"),
    [
        (["*"], True),
        (["openai/*"], True),
        (["openai/gpt-4.1"], True),
        (["anthropic/*", "openai/gpt-4*"], True),
        (["openai/gpt-4"], False),
        (["gpt-4.1"], False),
        (["OpenAI/*"], False),
        ([], False),
    ],
)
def test_models_are_allowed_by_pattern(allow: list[str], allowed: bool) -> None:
    """A model outside the tenant's list is a 403, whatever the operator wrote besides."""
    to = compile_policy(policy(catalogue(), allow)).assistants["support"].to
    targets = {"openai": target("openai", Provider(url="http://x"), "k")}
    if allowed:
        assert resolve(to, targets) is targets["openai"]
    else:
        with pytest.raises(GatewayError) as raised:
            resolve(to, targets)
        assert (raised.value.status, raised.value.code) == (403, "model_not_allowed")


def test_provider_that_is_not_there_is_the_platforms_fault() -> None:
    """An unknown provider is a 502: no client can mend it."""
    to = compile_policy(policy(catalogue(), ["*"])).assistants["support"].to
    with pytest.raises(GatewayError) as raised:
        resolve(to, {})
    assert (raised.value.status, raised.value.code) == (502, "provider_unknown")


def test_own_endpoint_is_guarded_and_its_key_hidden() -> None:
    """The tenant's own server is marked as such and its key is in no representation."""
    endpoint = Endpoint(url="https://llm.acme.example/v1", api_key="tenant-secret")
    assistant = AssistantPolicy(route=ModelRoute(model="m", endpoint=endpoint))
    to = compile_policy(policy(assistant, [])).assistants["support"].to
    found = resolve(to, {})
    assert found.own
    assert found.headers["Authorization"] == "Bearer tenant-secret"
    assert "tenant-secret" not in repr(to)
    assert to.label == "endpoint/m"


def test_own_endpoint_that_is_no_url_harms_only_itself() -> None:
    """An endpoint that cannot be used is refused when it is called, and does not keep the policy from loading."""
    broken = AssistantPolicy(route=ModelRoute(model="m", endpoint=Endpoint(url="file:///etc/passwd")))
    to = compile_policy(policy(broken, ["*"])).assistants["support"].to
    with pytest.raises(GatewayError) as raised:
        resolve(to, {})
    assert (raised.value.status, raised.value.code) == (502, "provider_unreachable")


def test_fallbacks_are_destinations_in_order_and_each_is_checked() -> None:
    """The assistant's own model comes first; the list of allowed models holds for each of the catalogue's."""
    own = Endpoint(url="https://llm.acme.example/v1", api_key="tenant-secret")
    fallbacks = [
        ModelRoute(model="m", endpoint=own),
        ModelRoute(model="claude", provider="anthropic"),
        ModelRoute(model="gpt-4.1-nano", provider="openai"),
    ]
    route = compile_policy(policy(catalogue(fallbacks=fallbacks), ["openai/*"])).assistants["support"]
    labels = ["openai/gpt-4.1", "endpoint/m", "anthropic/claude", "openai/gpt-4.1-nano"]
    assert [to.label for to in route.destinations] == labels
    assert [to.allowed for to in route.destinations] == [True, True, False, True]
    assert route.to is route.destinations[0]
    assert "tenant-secret" not in repr(route)


def test_second_call_of_a_request_is_under_the_same_limits_without_the_rate() -> None:
    """Tokens and money hold for each call, the rate for what people ask; counters and keys stay the same."""
    fields = msgspec.structs.asdict(policy(catalogue(requests_per_minute=60, tokens_per_day=9), ["*"], 600))
    terms = compile_policy(TenantPolicy(**fields)).assistants["support"].terms
    again = terms.without_rates()
    assert [level.requests_per_minute for level in again.limits.levels] == [None, None]
    assert [level.tokens for level in again.limits.levels] == [None, 9]
    assert (again.limits.keys, again.limits.fields, again.limits.zone) == (
        terms.limits.keys,
        terms.limits.fields,
        terms.limits.zone,
    )
    assert (again.rates, again.hard, again.limited) == ((), True, True)
    assert again.without_rates() is again


@pytest.mark.parametrize(("written", "bounded"), [("Closed", False), ("Bounded", True)])
def test_failure_policy_reaches_every_route(written: str, *, bounded: bool) -> None:
    """Whether calls may draw on a quota lease is said by the tenant's policy, for chat and for embeddings."""
    tenant = compile_policy(msgspec.structs.replace(policy(catalogue(), ["*"]), failure_policy=written))
    assert (tenant.terms.bounded, tenant.assistants["support"].terms.bounded) == (bounded, bounded)
