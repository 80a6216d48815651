"""Each resource is judged by itself, with a reason and a next step."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_objects import (
    DEFAULTS,
    PROVIDERS,
    assistant,
    knowledge_base,
    own_endpoint,
    resolved,
    secret,
    snapshot,
    tenant,
)

from assistant_crds import naming
from assistant_crds.conditions import Reason
from assistant_crds.contracts import Budget
from assistant_operator.desired import policy
from assistant_operator.tenant.limits import Quota
from assistant_operator.tenant.resolve import resolve
from assistant_operator.tenant.snapshot import References, references

KEY = naming.tenant_key("uid-acme")


def usd(micros, period):
    return Budget(amount_micros=micros, currency="USD", period=period)


def only(found):
    (item,) = found.assistants
    return item


def test_a_valid_assistant_is_served():
    """Configuration for the pods, and route with defaults for the gateway, come from its spec."""
    item = only(
        resolved(
            assistant(
                model={"provider": "demo", "name": "m", "parameters": {"temperature": "0.2", "maxOutputTokens": 10}},
                instructions="Be kind.",
                limits={"requestsPerMinute": 7},
                retrieval={"maxChunks": 3, "minScore": "0.25"},
            )
        )
    )
    assert item.accepted.is_true
    assert item.resolved.is_true
    assert (item.model, item.config.instructions, item.config.max_chunks) == ("demo/m", "Be kind.", 3)
    assert (item.config.min_score, item.config.display_name) == (0.25, "support")
    assert (item.policy.temperature, item.policy.max_output_tokens, item.policy.requests_per_minute) == (0.2, 10, 7)
    assert (item.policy.route.provider, item.policy.route.endpoint) == ("demo", None)


def test_a_valid_knowledge_base_is_served_under_a_name_of_its_own():
    """Its key in the stores derives from its UID; quantities become bytes."""
    (base,) = resolved(knowledge_base(limits={"documents": 5, "bytes": "1Mi"})).knowledge_bases
    assert base.config.key == naming.knowledge_base_key(KEY, "uid-KnowledgeBase-handbook")
    assert (base.config.max_documents, base.config.max_bytes, base.policy.dimensions) == (5, 1 << 20, 16)


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"model": {"provider": "nobody", "name": "m"}}, Reason.PROVIDER_UNKNOWN, "demo, openai"),
        ({"model": {"provider": "openai", "name": "x"}}, Reason.MODEL_NOT_ALLOWED, "demo/*"),
        ({"model": own_endpoint()}, Reason.MODEL_NOT_ALLOWED, "models.allowOwnEndpoints"),
        ({"model": {"name": "m"}}, Reason.INVALID_SPEC, "exactly one of"),
        ({"model": {"provider": "demo"}}, Reason.INVALID_SPEC, "name"),
        ({"model": {"provider": "demo", "name": 5}}, Reason.INVALID_SPEC, "str"),
        ({"retrieval": {"minScore": "2"}}, Reason.INVALID_SPEC, "between 0 and 1"),
        ({"retrieval": {"minScore": "lots"}}, Reason.INVALID_SPEC, "decimal"),
        (
            {"model": {"provider": "demo", "name": "m", "parameters": {"temperature": "nan"}}},
            Reason.INVALID_SPEC,
            "temperature",
        ),
    ],
)
def test_what_is_not_accepted_says_why(change, reason, says):
    """The reason is stable, the sentence names the resource and the way out, and nothing of it is served."""
    limits = tenant(models={"allow": ["demo/*"], "allowOwnEndpoints": False})
    item = only(resolved(assistant(**change), tenant=limits))
    assert (item.accepted.status, item.accepted.reason) == ("False", reason)
    assert "Assistant support" in item.accepted.message
    assert says in item.accepted.message
    assert item.resolved.is_unknown
    assert not item.served


@pytest.mark.parametrize(
    ("spec", "objects", "reason", "says"),
    [
        ({"model": own_endpoint()}, {}, Reason.SECRET_NOT_FOUND, "Secret llm"),
        ({"model": own_endpoint()}, {"secrets": {"llm": secret(other="x")}}, Reason.KEY_NOT_FOUND, "no key token"),
        ({"model": own_endpoint()}, {"secrets": {"llm": secret(token=" ")}}, Reason.KEY_NOT_FOUND, "token"),
        (
            {"model": own_endpoint()},
            {"secrets": {"llm": {"data": {"token": "/w=="}}}},
            Reason.KEY_NOT_FOUND,
            "no usable text",
        ),
        (
            {"instructionsFrom": {"configMapKeyRef": {"name": "prompts", "key": "p"}}},
            {},
            Reason.CONFIG_MAP_NOT_FOUND,
            "ConfigMap prompts",
        ),
        (
            {"instructionsFrom": {"configMapKeyRef": {"name": "prompts", "key": "p"}}},
            {"config_maps": {"prompts": {"data": {"q": ""}}}},
            Reason.KEY_NOT_FOUND,
            "no key p",
        ),
        (
            {"instructionsFrom": {"configMapKeyRef": {"name": "prompts", "key": "p"}}},
            {"config_maps": {"prompts": {"data": {"p": "x" * 40000}}}},
            Reason.INVALID_SPEC,
            "32768",
        ),
        ({"knowledgeBases": [{"name": "nowhere"}]}, {}, Reason.KNOWLEDGE_BASE_NOT_FOUND, "KnowledgeBase nowhere"),
    ],
)
def test_what_is_not_resolved_names_the_missing_object(spec, objects, reason, says):
    """A missing Secret, ConfigMap, key or KnowledgeBase is named; the resource is accepted, and not served."""
    item = only(resolved(assistant(**spec), **objects))
    assert item.accepted.is_true
    assert (item.resolved.status, item.resolved.reason) == ("False", reason)
    assert says in item.resolved.message
    assert not item.served


def test_a_bad_resource_leaves_its_neighbours_alone():
    """Whatever is wrong with one, the others are served."""
    found = resolved(
        assistant("bad", model={"provider": "nobody", "name": "m"}),
        assistant("worse", model=5),
        assistant("good"),
        knowledge_base("broken", embedding={"name": "e"}),
        knowledge_base("fine"),
    )
    assert [item.config.name for item in found.assistants if item.served] == ["good"]
    assert [base.config.name for base in found.served_knowledge_bases()] == ["fine"]


def test_an_assistant_is_not_served_without_its_knowledge():
    """An assistant whose knowledge base is unusable is left out: an answer without it would be silently wrong."""
    found = resolved(
        assistant(knowledgeBases=[{"name": "handbook"}]),
        knowledge_base(embedding={"provider": "nobody", "name": "e", "dimensions": 16}),
    )
    assert only(found).resolved.is_true
    assert not only(found).served


def test_a_knowledge_base_that_is_being_deleted_no_longer_exists_for_others():
    """References to it are refused from the moment of its deletion."""
    found = resolved(assistant(knowledgeBases=[{"name": "handbook"}]), knowledge_base(deleting=True))
    assert found.knowledge_bases == []
    assert only(found).resolved.reason is Reason.KNOWLEDGE_BASE_NOT_FOUND


def test_an_own_endpoint_carries_its_key_to_the_gateway_only():
    """The key is in the policy, never in what pods get, and never in the text of the objects."""
    item = only(resolved(assistant(model=own_endpoint()), secrets={"llm": secret(token="sk-secret\n")}))
    assert item.policy.route.endpoint.api_key == "sk-secret"
    assert item.model == "llm.example.com/m"
    assert "sk-secret" not in repr(item.config)
    assert "sk-secret" not in repr(item.policy)


def test_an_unknown_catalogue_forbids_nothing():
    """While the catalogue cannot be read, no resource is refused because of it."""
    assert only(resolved(assistant(model={"provider": "nobody", "name": "m"}), providers=None)).served


def test_a_tenant_overrides_the_defaults():
    """Limits, replicas and resources of the Tenant hold; what it leaves open comes from the chart."""
    settings = resolved(
        assistant(), tenant=tenant(limits={"requestsPerMinute": 5}, serving={"replicas": {"min": 3}})
    ).settings
    assert (settings.quota.requests_per_minute, settings.replicas, settings.limits) == (5, 3, {"memory": "256Mi"})
    defaults = resolved(assistant()).settings
    assert (defaults.quota.requests_per_minute, defaults.replicas, defaults.models_allow) == (600, 1, ["*"])


def test_an_invalid_tenant_falls_back_to_the_defaults_and_says_so():
    """A Tenant that cannot be understood does not take its assistants down."""
    raw = tenant(serving={"resources": {"requests": {"cpu": "much"}}})
    found = resolved(assistant(), tenant=raw)
    assert (found.settings.accepted.status, found.settings.accepted.reason) == ("False", Reason.INVALID_SPEC)
    assert found.settings.requests == {"cpu": "100m"}
    assert only(found).served


def with_fallbacks(*fallbacks):
    return assistant(model={"provider": "demo", "name": "m", "fallbacks": list(fallbacks)})


def test_fallbacks_reach_the_gateway_in_order():
    """Each fallback is a route of its own, and the key of an own endpoint goes with it, to the gateway only."""
    item = only(
        resolved(
            with_fallbacks(own_endpoint("backup"), {"provider": "demo", "name": "small"}),
            secrets={"backup": secret(token="sk-secret")},
        )
    )
    one, two = item.policy.fallbacks
    assert (one.model, one.endpoint.api_key) == ("m", "sk-secret")
    assert (two.provider, two.model) == ("demo", "small")
    assert "sk-secret" not in repr(item.policy)
    assert item.policy.route.model == "m"


@pytest.mark.parametrize(
    ("fallback", "condition", "reason", "says"),
    [
        ({"provider": "nobody", "name": "m"}, "accepted", Reason.PROVIDER_UNKNOWN, "uses provider nobody"),
        ({"provider": "openai", "name": "m"}, "accepted", Reason.MODEL_NOT_ALLOWED, "uses openai/m"),
        (own_endpoint(), "resolved", Reason.SECRET_NOT_FOUND, "Secret llm"),
        ({"name": "m"}, "accepted", Reason.INVALID_SPEC, "spec.model.fallbacks[1]"),
    ],
)
def test_a_bad_fallback_is_named(fallback, condition, reason, says):
    """A fallback that could not answer is told at once, not in the moment it is needed; the message says which."""
    limits = tenant(models={"allow": ["demo/*"], "allowOwnEndpoints": True})
    found = only(resolved(with_fallbacks({"provider": "demo", "name": "s"}, fallback), tenant=limits))
    result = getattr(found, condition)
    assert (result.status, result.reason) == ("False", reason)
    assert says in result.message
    assert reason is Reason.INVALID_SPEC or result.message.find("allback 2 of Assistant support") >= 0
    assert not found.served


def test_references_are_found_and_malformed_specs_tolerated():
    """Every Secret and ConfigMap that a spec names is known, so that its events matter."""
    found = references(
        [
            assistant(model=own_endpoint("a")),
            assistant(instructionsFrom={"configMapKeyRef": {"name": "b", "key": "k"}}),
            knowledge_base(embedding=own_endpoint("c")),
            assistant(model=["nonsense"], instructionsFrom=3),
            assistant(model={"name": "m", "fallbacks": [3, own_endpoint("d")]}),
            assistant(model={"name": "m", "fallbacks": 3}),
        ]
    )
    assert found == References(frozenset({"a", "c", "d"}), frozenset({"b"}))


FIELDS = [
    "model",
    "fallbacks",
    "embedding",
    "name",
    "provider",
    "endpoint",
    "url",
    "apiKeySecretRef",
    "key",
    "limits",
    "bytes",
]
garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@given(garbage, garbage)
def test_no_spec_can_break_the_resolver(one, other):
    """Any spec gives a condition result, never an error."""
    broken = {**assistant("one"), "spec": one}
    base = {**knowledge_base("other"), "spec": other}
    found = resolved(broken, base, assistant("good"))
    references(snapshot(broken, base).resources)
    assert [item.served for item in found.assistants if item.raw["metadata"]["name"] == "good"] == [True]


BUDGET = {"amount": "25.00", "currency": "USD", "period": "Month"}


def test_limits_in_tokens_and_money_reach_the_policy():
    """What Assistant and Tenant allow is in the policy, money as micro-units, with the tenant's time zone."""
    found = resolved(
        assistant(limits={"tokensPerDay": 1000, "budget": {"amount": "0.000001", "period": "Day"}}),
        tenant=tenant(
            limits={"tokensPerDay": 5000, "budget": BUDGET}, timeZone="Europe/Berlin", failurePolicy="Bounded"
        ),
    )
    document = policy.build(found)
    assert (document.tokens_per_day, document.budget) == (5000, usd(25_000_000, "Month"))
    assert (document.time_zone, document.failure_policy) == ("Europe/Berlin", "Bounded")
    mine = document.assistants["support"]
    assert (mine.tokens_per_day, mine.budget) == (1000, usd(1, "Day"))


def test_without_a_word_on_money_there_is_no_limit_and_days_begin_in_utc():
    """Everything new is optional."""
    document = policy.build(resolved(assistant()))
    assert (document.tokens_per_day, document.budget, document.time_zone) == (None, None, "UTC")
    assert document.failure_policy == "Closed"


def test_a_tenant_overrides_the_platforms_budget():
    """What a Tenant leaves open comes from the chart."""
    defaults = replace(DEFAULTS, tokens_per_day=9, budget=usd(7, "Day"), time_zone="Asia/Tokyo")
    raw = tenant(limits={"tokensPerDay": 5})
    settings = resolve(snapshot(assistant(), tenant=raw), PROVIDERS, defaults).settings
    assert settings.quota == Quota(600, 5, usd(7, "Day"))
    assert settings.time_zone == "Asia/Tokyo"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "Europe", "../etc/passwd"])
def test_an_unknown_time_zone_is_told_and_the_limits_hold(zone):
    """The Tenant says what to write instead; its budget counts in the default zone until then."""
    settings = resolved(assistant(), tenant=tenant(limits={"budget": BUDGET}, timeZone=zone)).settings
    assert (settings.accepted.status, settings.accepted.reason) == ("False", Reason.INVALID_SPEC)
    assert "such as Europe/Berlin" in settings.accepted.message
    assert (settings.time_zone, settings.quota.budget) == ("UTC", usd(25_000_000, "Month"))


def test_a_tenants_mistake_elsewhere_does_not_lift_its_budget():
    """Falling back to the defaults would leave a tenant without its limit in money."""
    raw = tenant(limits={"budget": BUDGET}, serving={"resources": {"requests": {"cpu": "much"}}})
    settings = resolved(assistant(), tenant=raw).settings
    assert settings.accepted.is_false
    assert settings.quota.budget == usd(25_000_000, "Month")


@pytest.mark.parametrize("change", [{"currency": "EUR"}, {"period": "Week"}, {"amount": "1,5"}, {"amount": "1e9"}])
def test_a_budget_that_is_not_understood_is_no_budget_without_limit(change):
    """A Tenant's leaves nothing to spend, an Assistant's keeps the Assistant from being served; both say why."""
    settings = resolved(assistant(), tenant=tenant(limits={"budget": BUDGET | change})).settings
    assert settings.accepted.is_false
    assert "nothing may be spent" in settings.accepted.message
    assert settings.quota.budget is not None
    assert settings.quota.budget.amount_micros == 0
    item = only(resolved(assistant(limits={"budget": BUDGET | change})))
    assert (item.served, item.accepted.reason) == (False, Reason.INVALID_SPEC)
    assert "budget's" in item.accepted.message


def test_short_passages_overlap_by_half_at_most():
    """What nobody set follows the length of the passages."""
    base = resolved(knowledge_base(chunking={"maxTokens": 32})).knowledge_bases[0]
    assert (base.config.max_tokens, base.config.overlap_tokens) == (32, 16)
