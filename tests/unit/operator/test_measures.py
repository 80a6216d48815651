"""The operator's metrics of tenants follow their resources, limits and documents, are bounded, and go with them."""

import math

import pytest

from assistant_crds.conditions import Reason
from assistant_crds.contracts import Budget, LevelUsage, TenantUsage
from assistant_observability import metrics
from assistant_operator import measures
from assistant_operator.measures import Measured
from assistant_operator.tenant.limits import Quota
from assistant_operator.tenant.observation import Counts
from assistant_operator.tenant.usage import Quotas

DAY, MONTH = "2026-11-24T00:00:00Z", "2026-12-01T00:00:00Z"
BUDGET = Budget(5_000_000, "USD", "Month")


def status(ready, reason=Reason.READY, since="2026-11-23T12:00:00Z"):
    return {
        "conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "Ready", "status": str(ready), "reason": reason.value, "lastTransitionTime": since},
        ]
    }


def level(tokens=0, spent=0, period="Month"):
    return LevelUsage(tokens=tokens, spent_micros=spent, day_ends=DAY, period=period, period_ends=MONTH)


def shown(gauge):
    return {tuple(sample.labels.values()): sample.value for family in gauge.collect() for sample in family.samples}


@pytest.fixture(autouse=True)
def _none_are_left():
    yield
    measures.clear()


def test_resources_are_counted_by_readiness():
    """What is not Ready says since when, and by whom it is to be mended; the oldest of each counts."""
    later = "2026-11-23T13:00:00Z"
    samples = measures.readiness(
        [
            status(True),
            status(False, Reason.SECRET_NOT_FOUND),
            status(False, Reason.PROGRESSING, later),
            status(False, Reason.STORE_UNREACHABLE),
        ]
    )
    assert {labels: value for (gauge, labels), value in samples.items() if gauge is metrics.TENANT_RESOURCES} == {
        ("true",): 1,
        ("false",): 3,
    }
    noon = 1795435200.0
    assert samples[metrics.TENANT_NOT_READY_SINCE, ("tenant",)] == noon
    assert samples[metrics.TENANT_NOT_READY_SINCE, ("platform",)] == noon


def test_a_time_that_cannot_be_read_says_nothing():
    """A leap second, which RFC 3339 allows, neither ends a run nor makes an alert."""
    samples = measures.readiness([status(False, Reason.PROGRESSING, "2026-06-30T23:59:60Z")])
    assert math.isnan(samples[metrics.TENANT_NOT_READY_SINCE, ("platform",)])


def test_every_limit_shows_what_was_used_of_it():
    """Tokens of a day and money of a period, of the tenant and of assistants that have limits of their own."""
    quotas = Quotas("acme", Quota(tokens_per_day=1000, budget=BUDGET), {"support": Quota(tokens_per_day=10)})
    used = TenantUsage(tenant=level(250, 4_000_000), assistants={"support": level(9), "other": level(1)})
    samples = measures.usage(quotas, used)
    measures.show("acme", Measured(), samples)
    assert shown(metrics.TENANT_LIMIT) == {
        ("acme", "", "tokens"): 1000,
        ("acme", "", "budget"): 5_000_000,
        ("acme", "support", "tokens"): 10,
    }
    assert shown(metrics.TENANT_LIMIT_USED)["acme", "", "budget"] == 4_000_000
    assert shown(metrics.TENANT_LIMIT_USED)["acme", "support", "tokens"] == 9
    assert shown(metrics.TENANT_LIMIT_RESETS)["acme", "", "tokens"] == 1795478400.0


def test_money_of_another_period_is_not_held_against_a_budget():
    """Until the gateway counts by a changed budget, nothing is known of what it has used."""
    quotas = Quotas("acme", Quota(budget=Budget(5, "USD", "Day")))
    assert measures.usage(quotas, TenantUsage(tenant=level(0, 3), assistants={})) == {}
    assert measures.usage(quotas, None) == {}


def test_a_tenant_has_a_bounded_number_of_series():
    """Of a thousand assistants with limits those show that are nearest to them."""
    names = [f"a{number}" for number in range(1000)]
    quotas = Quotas("acme", Quota(), {name: Quota(tokens_per_day=1000) for name in names})
    used = TenantUsage(tenant=level(), assistants={name: level(number) for number, name in enumerate(names)})
    found = {labels[0] for _, labels in measures.usage(quotas, used)}
    assert found == set(names[-measures.MOST_ASSISTANTS :])


def test_knowledge_is_added_up_over_all_bases():
    """Documents, those that wait, failed and are outdated, chunks and vectors; nothing where nothing was counted."""
    samples = measures.knowledge({"a": Counts(3, 1, 1, 20, 21, outdated=2), "b": Counts(2, 0, 0, 5, 5, outdated=1)})
    assert {labels: value for (_, labels), value in samples.items()} == {
        ("documents",): 5,
        ("pending",): 1,
        ("failed",): 1,
        ("chunks",): 25,
        ("vectors",): 26,
        ("outdated",): 3,
    }
    assert measures.knowledge({}) == {}


def test_series_go_with_what_they_speak_of():
    """What a tenant no longer has is not shown, nor anything of one that is gone; others stay."""
    held, other = Measured(), Measured()
    measures.show("acme", held, measures.readiness([status(False, Reason.PROGRESSING)]))
    measures.show("beta", other, measures.readiness([status(False, Reason.PROGRESSING)]))
    measures.show("acme", held, measures.readiness([status(True)]))
    assert set(shown(metrics.TENANT_NOT_READY_SINCE)) == {("beta", "platform")}
    measures.show("acme", held, {})
    assert {labels[0] for labels in shown(metrics.TENANT_RESOURCES)} == {"beta"}


def test_an_operator_that_leads_no_more_shows_no_tenants():
    """Its figures would stand beside those of the new leader, and grow old."""
    metrics.RESOURCES.labels("Assistant", "false").set(3)
    measures.show("acme", Measured(), measures.readiness([status(False, Reason.PROGRESSING)]))
    measures.clear()
    assert not shown(metrics.RESOURCES)
    assert not shown(metrics.TENANT_RESOURCES)
    assert not shown(metrics.TENANT_NOT_READY_SINCE)


def waits():
    (family,) = metrics.TIME_TO_READY.collect()
    values = {sample.name.removeprefix("assistant_time_to_ready_seconds"): sample.value for sample in family.samples}
    return values["_count"], values["_sum"]


def test_only_waiting_for_the_platform_is_measured():
    """The clock starts when a resource begins to wait for the platform, not while its author has to mend it."""
    held = Measured()
    count, total = waits()
    measures.note_waits([("u1", status(False, Reason.SECRET_NOT_FOUND))], held, 0.0)
    measures.note_waits([("u1", status(False, Reason.PROGRESSING))], held, 1000.0)
    measures.note_waits([("u1", status(False, Reason.NOT_ANSWERING))], held, 1002.0)
    measures.note_waits([("u1", status(True))], held, 1004.0)
    measures.note_waits([("u1", status(True))], held, 1005.0)
    assert waits() == (count + 1, total + 4.0)
    assert not held.waiting


def test_a_resource_that_goes_while_it_waits_is_forgotten():
    """Nothing is kept of what is gone."""
    held = Measured()
    measures.note_waits([("u1", status(False, Reason.PROGRESSING))], held, 0.0)
    measures.note_waits([], held, 1.0)
    assert not held.waiting
