"""What a status says of usage and limits follows from the gateway's figures; an alarm is told in words that stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_objects import NOW, assistant, pod, resolved, snapshot, tenant

from assistant_crds.contracts import Budget, LevelUsage, ModelProbe, TenantProbe, TenantUsage
from assistant_operator import status
from assistant_operator.tenant import usage
from assistant_operator.tenant.limits import Quota
from assistant_operator.tenant.observation import GatewayView, Observation, StoreView
from assistant_operator.tenant.state import Tenant
from assistant_operator.tenant.usage import Quotas

DAY, MONTH = "2026-11-24T00:00:00Z", "2026-12-01T00:00:00Z"
CENT = {"budget": {"amount": "0.01", "period": "Month"}}


def level(tokens=0, spent=0, **changes):
    values = {"tokens": tokens, "spent_micros": spent, "day_ends": DAY, "period": "Month", "period_ends": MONTH}
    return LevelUsage(**(values | changes))


def used(own=None, shared=None):
    return TenantUsage(tenant=shared or level(), assistants={"support": own or level()})


def observation(found, generation="p1"):
    probe = TenantProbe(
        generation=generation,
        assistants={"support": ModelProbe(reachable=True, reason="Reachable", message="It answers.")},
        knowledge_bases={},
        usage=found,
    )
    return Observation("c1", "p1", GatewayView(probe), [], StoreView(), {})


def of_assistant(raw, found, generation="p1", **changes):
    world = resolved(raw, **changes)
    return status.assistant(
        world.assistants[0], Tenant(snapshot(raw, pods=[pod()]), world, observation(found, generation)), NOW
    )


def told(document):
    found = status.exhausted(document)
    return (found["status"], found["reason"]) if found else None


def test_usage_is_shown_rounded_with_the_time_it_starts_anew():
    """Spent, tokens and reset time are on the Assistant, the tenant's on the Tenant."""
    found = used(level(1234, 1_234_567), level(5678, 5_678_901))
    document = of_assistant(assistant(limits=CENT), found)
    assert document["usage"] == {"spent": "1.23 USD", "tokens": 1230, "resetsAt": MONTH}
    assert document["limit"] == "0.01 USD/Month"
    world = resolved(assistant(), tenant=tenant())
    of_tenant = status.tenant(tenant(), Tenant(snapshot(assistant()), world, observation(found)), NOW)
    assert of_tenant["usage"] == {"spent": "5.68 USD", "tokens": 5680, "resetsAt": MONTH}


def test_without_limits_in_tokens_or_money_nothing_can_be_exhausted():
    """The condition is there only where it means something."""
    assert told(of_assistant(assistant(), used(level(10**9, 10**9)))) is None


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        (7_999, ("False", "WithinLimits")),
        (8_000, ("False", "NearLimit")),
        (9_999, ("False", "NearLimit")),
        (10_000, ("True", "BudgetExhausted")),
        (10_001, ("True", "BudgetExhausted")),
    ],
)
def test_thresholds_are_exact(spent, expected):
    """80 % and 100 % are compared in micro-units."""
    document = of_assistant(assistant(limits=CENT), used(level(0, spent)))
    assert told(document) == expected


def test_an_exhausted_quota_names_limit_end_and_next_step_and_leaves_ready_alone():
    """The message says how long and what to do; Ready speaks of other things."""
    document = of_assistant(assistant(limits={"tokensPerDay": 100}), used(level(100)))
    assert told(document) == ("True", "TokensExhausted")
    message = status.exhausted(document)["message"]
    for part in ("Assistant support", "100 tokens/day", DAY, "spec.limits.tokensPerDay"):
        assert part in message
    calm = of_assistant(assistant(limits={"tokensPerDay": 100}), used())
    assert document["conditions"][0] == calm["conditions"][0]


def test_the_tenants_limit_exhausts_its_assistants_too():
    """An assistant with money left is refused all the same when the tenant has none."""
    document = of_assistant(assistant(), used(shared=level(0, 10_000)), tenant=tenant(limits=CENT))
    assert told(document) == ("True", "BudgetExhausted")
    assert "Tenant acme" in status.exhausted(document)["message"]


def test_a_rest_too_small_for_any_call_counts_as_used_up():
    """The gateway knows that nothing fits any more; 100 % need not be reached."""
    document = of_assistant(assistant(limits=CENT), used(level(0, 9_000, exhausted=["budget"])))
    assert told(document) == ("True", "BudgetExhausted")
    message = status.exhausted(document)["message"]
    assert "has used up" not in message
    assert "less left of its 0.01 USD/Month than a call needs" in message


@given(st.integers(300, 599), st.integers(300, 599))
def test_a_rest_is_told_with_what_was_used_and_what_is_left(one, other):
    """The words say both numbers; by the rest of the sentence people are told once."""
    quotas = Quotas("acme", Quota(), {"support": Quota(tokens_per_day=600)})
    alarms = [
        alarm
        for tokens in (one, other)
        for alarm in usage.assistant_alarms("support", quotas, used(level(tokens, exhausted=["tokens"])))
    ]
    assert len({alarm.mark for alarm in alarms}) == 1
    assert f"Used: {one} tokens; left: {600 - one} tokens." in alarms[0].sentence


def test_a_budget_is_held_only_against_its_own_period():
    """While the gateway still counts by the month, a budget by the day is not judged."""
    daily = {"budget": {"amount": "0.01", "period": "Day"}}
    assert told(of_assistant(assistant(limits=daily), used(level(0, 10**6)))) == ("False", "WithinLimits")


@pytest.mark.parametrize(("found", "generation"), [(None, "p1"), (used(), "p0")])
def test_what_is_not_known_stays_as_it_was(found, generation):
    """A gateway that is silent, or counts by former limits, changes neither figures nor condition."""
    raw = assistant(limits=CENT)
    before = of_assistant(raw, used(level(5, 10_000)))
    after = of_assistant(raw | {"status": before}, found, generation)
    assert (after["usage"], told(after)) == (before["usage"], ("True", "BudgetExhausted"))


def test_the_condition_goes_with_the_limit():
    """Once nothing can be used up any more, nothing is."""
    before = of_assistant(assistant(limits=CENT), used(level(0, 10_000)))
    assert told(of_assistant(assistant() | {"status": before}, used(level(0, 10_000)))) is None


@given(st.integers(8_000, 9_999), st.integers(8_000, 9_999))
def test_an_alarm_has_one_sentence_per_limit_and_window(one, other):
    """However much is used, the words are the same: by them it is known that people were told."""
    quotas = Quotas(
        "acme", Quota(), {"support": Quota(budget=Budget(amount_micros=10_000, currency="USD", period="Month"))}
    )
    sentences = {
        alarm.sentence
        for spent in (one, other)
        for alarm in usage.assistant_alarms("support", quotas, used(level(0, spent)))
    }
    assert len(sentences) == 1
    (later,) = usage.assistant_alarms("support", quotas, used(level(0, one, period_ends="2027-01-01T00:00:00Z")))
    assert later.sentence not in sentences
