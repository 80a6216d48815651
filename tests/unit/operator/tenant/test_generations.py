"""A change of one resource concerns that resource alone."""

from operator_objects import CREDENTIALS, assistant, knowledge_base, platform, resolved, tenant

from assistant_operator.desired import policy, tenant_config
from assistant_operator.tenant.generations import (
    REMEMBERED,
    SHARED,
    Generations,
    config_parts,
    policy_parts,
)
from assistant_operator.tenant.generations import assistant as assistant_part
from assistant_operator.tenant.generations import (
    knowledge_base as base_part,
)


def documents(*resources, credentials=CREDENTIALS, **changes):
    found = resolved(*resources, **changes)
    return tenant_config.build(found, platform(), credentials), policy.build(found)


def remembered(*documents):
    configs, policies = Generations(), Generations()
    for config, wanted in documents:
        configs.put(config.generation, lambda config=config: config_parts(config))
        policies.put(wanted.generation, lambda wanted=wanted: policy_parts(wanted))
    return configs, policies


def test_a_changed_resource_is_the_only_one_that_waits():
    """Its siblings, the bases and the Tenant are served as wanted by whoever still has the former generation."""
    before = documents(assistant("a"), assistant("b"), knowledge_base())
    after = documents(
        assistant("a", instructions="Be brief.", limits={"tokensPerDay": 5}), assistant("b"), knowledge_base()
    )
    for document, known in zip((0, 1), remembered(before, after), strict=True):
        old, new = before[document].generation, after[document].generation
        assert old != new
        assert not known.agree(assistant_part("a"), old, new)
        assert known.agree(assistant_part("b"), old, new)
        assert known.agree(base_part("handbook"), old, new)
        assert known.agree(SHARED, old, new)


def test_a_new_and_a_removed_resource_concern_nobody_else():
    """What was not there before waits; what is gone holds up nobody."""
    before, after = documents(assistant("a"), assistant("b")), documents(assistant("b"), assistant("c"))
    known, _ = remembered(before, after)
    old, new = before[0].generation, after[0].generation
    assert not known.agree(assistant_part("c"), old, new)
    assert known.agree(assistant_part("b"), old, new)
    assert known.agree(SHARED, old, new)


def test_a_resource_that_cannot_be_served_concerns_nobody_else():
    """Pods tell callers why it is not there; its siblings are served as before."""
    before = documents(assistant("a"), assistant("b"))
    after = documents(assistant("a", knowledgeBases=[{"name": "absent"}]), assistant("b"))
    known, _ = remembered(before, after)
    old, new = before[0].generation, after[0].generation
    assert old != new
    assert known.agree(assistant_part("b"), old, new)
    assert known.agree(SHARED, old, new)


def test_a_tenants_limits_are_the_tenants_alone():
    """Until the gateway has them the Tenant waits, and its Assistants do not."""
    before = documents(assistant("a"))
    after = documents(assistant("a"), tenant=tenant(limits={"tokensPerDay": 5}, models={"allow": ["*"]}))
    _, known = remembered(before, after)
    old, new = before[1].generation, after[1].generation
    assert not known.agree(SHARED, old, new)
    assert known.agree(assistant_part("a"), old, new)


def test_a_new_api_key_concerns_all():
    """A client with the new key is refused by pods that do not have it."""
    before = documents(assistant("a"))
    key = type(CREDENTIALS)(stores=CREDENTIALS.stores, api_key="ak_" + "y" * 43)
    after = documents(assistant("a"), credentials=key)
    known, _ = remembered(before, after)
    assert not known.agree(assistant_part("a"), before[0].generation, after[0].generation)


def test_what_is_not_known_agrees_with_itself_alone():
    """Generations of long ago, or of another operator's time, are not guessed at."""
    known = Generations()
    for number in range(REMEMBERED + 1):
        known.put(str(number), lambda: {"Assistant/a": "same"})
    assert known.agree(assistant_part("a"), "1", str(REMEMBERED))
    assert not known.agree(assistant_part("a"), "0", str(REMEMBERED))
    assert not known.agree(assistant_part("b"), "1", "2")
    assert known.agree(assistant_part("b"), "unknown", "unknown")
