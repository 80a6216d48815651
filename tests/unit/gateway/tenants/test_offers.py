"""What a tenant may name in its resources."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from assistant_crds.contracts import AssistantPolicy, ModelRoute, TenantIdentity, TenantPolicy
from assistant_gateway.providers.catalog import Provider, Target, target
from assistant_gateway.providers.prices import ModelSettings
from assistant_gateway.tenants.offers import MOST_MODELS, offers, patterns_for
from assistant_gateway.tenants.routing import Tenant, compile_policy, resolve

PRICE = ModelSettings(input_per_million="1", output_per_million="2")


class Lists:
    """In place of a prober: lists of models by provider; None for one that does not answer."""

    def __init__(self, **lists: frozenset[str] | None) -> None:
        self._lists = lists

    async def listed(self, target: Target, tenant: Tenant) -> frozenset[str] | None:
        return self._lists[target.provider]


def tenant(*allow: str, model: str = "m") -> Tenant:
    """A tenant with these patterns and one assistant."""
    return compile_policy(
        TenantPolicy(
            tenant=TenantIdentity(namespace="acme", uid="u", key="t_1"),
            generation="p1",
            models_allow=list(allow),
            requests_per_minute=None,
            assistants={"a": AssistantPolicy(route=ModelRoute(model=model, provider="openai"))},
            knowledge_bases={},
        )
    )


def providers(**kinds: str) -> dict[str, Target]:
    """Providers of these kinds, each with a price for one model by name and for all others."""
    return {
        name: target(
            name, Provider(url="http://x.test/v1", kind=kind, key_ref="k", models={"named": PRICE, "*": PRICE}), "key"
        )
        for name, kind in kinds.items()
    }


async def test_models_are_those_that_are_known_and_allowed() -> None:
    """By the provider's list, the catalogue and the policy itself; providers without any are left out."""
    found = await offers(
        tenant("openai/gpt-*", "openai/named", "claude/sonnet"),
        providers(openai="openai", claude="anthropic", other="openai"),
        cast("Any", Lists(openai=frozenset({"gpt-5", "gpt-5-mini", "o9"}), claude=None, other=frozenset({"m"}))),
    )
    assert [msgspec.to_builtins(offer) for offer in found] == [
        {
            "provider": "claude",
            "kind": "anthropic",
            "embeddings": False,
            "available": False,
            "allowed": ["sonnet"],
            "models": ["sonnet"],
            "complete": False,
        },
        {
            "provider": "openai",
            "kind": "openai",
            "embeddings": True,
            "available": True,
            "allowed": ["gpt-*", "named"],
            "models": ["gpt-5", "gpt-5-mini", "named"],
            "complete": True,
        },
    ]


async def test_a_long_list_is_cut_and_says_so() -> None:
    """An answer has bounds, whatever a provider lists."""
    names = frozenset(f"m{number:05}" for number in range(MOST_MODELS + 5))
    (found,) = await offers(tenant("*"), providers(openai="openai"), cast("Any", Lists(openai=names)))
    assert (len(found.models), found.complete) == (MOST_MODELS, False)


@pytest.mark.parametrize(
    ("allow", "patterns"),
    [
        (["*"], ["*"]),
        (["open*"], ["*"]),
        (["openai/*", "openai/*"], ["*"]),
        (["*/gpt-*"], ["gpt-*"]),
        (["openai/meta/llama-*"], ["meta/llama-*"]),
        (["*gpt*"], ["*gpt*"]),
        (["other/*", "openai"], []),
    ],
)
def test_patterns_are_those_of_the_provider(allow: list[str], patterns: list[str]) -> None:
    """What is shown of a policy is what it means for one provider."""
    assert patterns_for("openai", allow) == patterns


@pytest.mark.parametrize("allow", ["*", "openai/gpt-*", "*/gpt-*", "open*", "*gpt*", "*5", "openai/gpt-5", "o*/g*"])
@pytest.mark.parametrize("model", ["gpt-5", "gpt-5-mini", "o9"])
async def test_what_is_offered_is_what_a_call_may_use(allow: str, model: str) -> None:
    """The list and the call read a policy in the same way."""
    targets = providers(openai="openai")
    found = await offers(tenant(allow), targets, cast("Any", Lists(openai=frozenset({model}))))
    offered = any(model in offer.models for offer in found)
    (to,) = tenant(allow, model=model).assistants["a"].destinations
    assert offered == to.allowed
    if offered:
        assert resolve(to, targets).provider == "openai"
