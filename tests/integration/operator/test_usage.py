"""Limits in money on a real API server: from the resources to the policy, and what was used back to the resources."""

from operator_context import connect
from operator_world import TRANSITIONS, condition

from assistant_crds import naming
from assistant_crds.contracts import LevelUsage, TenantUsage

MONTH_ENDS = "2026-12-01T00:00:00Z"
CENT = {"budget": {"amount": "0.01", "period": "Month"}}


def level(spent, period_ends=MONTH_ENDS):
    return LevelUsage(
        tokens=12_345, spent_micros=spent, day_ends="2026-11-24T00:00:00Z", period="Month", period_ends=period_ends
    )


def usage(spent, **changes):
    return TenantUsage(tenant=level(spent, **changes), assistants={"support": level(spent, **changes)})


async def tenant(world, **spec):
    metadata = {"name": world.namespace}
    await world.cluster.apply({"apiVersion": naming.API_VERSION, "kind": "Tenant", "metadata": metadata, "spec": spec})


async def events_of(world, kind, uid):
    namespace = "default" if kind == "Tenant" else world.namespace
    found = await world.cluster.list("Event", namespace)
    reasons = [event["reason"] for event in found if event["involvedObject"]["uid"] == uid]
    return sorted(reason for reason in reasons if reason not in TRANSITIONS)


async def test_what_was_spent_is_shown_at_most_once_a_minute(world, context, kube):
    """The first figures show at once, later ones after a minute, and unchanged ones are never written."""
    clock = [1000.0]
    context.monotonic = lambda: clock[0]
    await world.assistant(limits={"budget": {"amount": "25.00", "period": "Month"}})
    world.gateway.usage = usage(1_234_567)
    await world.settle(context)
    first = await world.get("Assistant", "support")
    assert first["status"]["usage"] == {"spent": "1.23 USD", "tokens": 12_300, "resetsAt": MONTH_ENDS}
    assert first["status"]["limit"] == "25.00 USD/Month"
    assert condition(first, "QuotaExhausted")["status"] == "False"

    head, row = kube.kubectl("get", "asst", "-n", world.namespace).stdout.splitlines()
    assert head.split() == ["NAME", "READY", "MODEL", "REPLICAS", "SPENT", "LIMIT", "AGE"]
    assert row.split()[4:8] == ["1.23", "USD", "25.00", "USD/Month"]

    world.gateway.usage = usage(2_000_000)
    clock[0] += 59
    await world.settle(context)
    assert (await world.get("Assistant", "support"))["metadata"]["resourceVersion"] == first["metadata"][
        "resourceVersion"
    ]
    clock[0] += 1
    await world.settle(context)
    second = await world.get("Assistant", "support")
    assert second["status"]["usage"]["spent"] == "2.00 USD"

    world.gateway.usage = usage(2_000_001)
    clock[0] += 61
    await world.settle(context)
    third = await world.get("Assistant", "support")
    assert third["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert await world.is_ready("Assistant", "support")


async def test_a_limit_is_told_at_80_and_100_percent_once_per_window(world, context):
    """Events and the condition come at once, not again after a restart, and again in the next month."""
    uid = (await world.assistant(limits=CENT))["metadata"]["uid"]
    world.gateway.usage = usage(0)
    await world.settle(context)
    assert await events_of(world, "Assistant", uid) == []

    for spent in (8_000, 8_500, 9_999):
        world.gateway.usage = usage(spent)
        await world.settle(context)
        assert await events_of(world, "Assistant", uid) == ["BudgetNearLimit"]
    world.gateway.usage = usage(10_000)
    await world.settle(context)
    told = ["BudgetExhausted", "BudgetNearLimit"]
    assert await events_of(world, "Assistant", uid) == told
    support = await world.get("Assistant", "support")
    exhausted = condition(support, "QuotaExhausted")
    assert (exhausted["status"], exhausted["reason"]) == ("True", "BudgetExhausted")
    assert MONTH_ENDS in exhausted["message"]
    assert support["status"]["usage"]["spent"] == "0.01 USD"
    assert await world.is_ready("Assistant", "support")

    # The API server forgets Events after an hour, and a new operator remembers nothing.
    for event in await world.cluster.list("Event", world.namespace):
        await world.cluster.delete("Event", event["metadata"]["name"], world.namespace)
    async with connect(world.settings, world.pod_port) as successor:
        await world.settle(successor)
    assert await events_of(world, "Assistant", uid) == []

    world.gateway.usage = usage(0, period_ends="2027-01-01T00:00:00Z")
    await world.settle(context)
    assert condition(await world.get("Assistant", "support"), "QuotaExhausted")["status"] == "False"
    world.gateway.usage = usage(10_000, period_ends="2027-01-01T00:00:00Z")
    await world.settle(context)
    assert await events_of(world, "Assistant", uid) == ["BudgetExhausted"]


async def test_a_tenants_limits_are_shown_on_it_and_its_assistants(world, context):
    """The Tenant gets its Event; its Assistants say why they are refused; a wrong time zone is told."""
    await tenant(world, limits=CENT, timeZone="Europe/Berlin", failurePolicy="Bounded")
    await world.assistant()
    world.gateway.usage = usage(10_000)
    await world.settle(context)
    found = await world.get("Tenant", world.namespace)
    assert (found["status"]["usage"]["spent"], found["status"]["limit"]) == ("0.01 USD", "0.01 USD/Month")
    assert condition(found, "QuotaExhausted")["reason"] == "BudgetExhausted"
    assert await events_of(world, "Tenant", found["metadata"]["uid"]) == ["BudgetExhausted"]
    support = await world.get("Assistant", "support")
    assert f"Tenant {world.namespace}" in condition(support, "QuotaExhausted")["message"]
    assert await events_of(world, "Assistant", support["metadata"]["uid"]) == []
    assert await world.is_ready("Tenant", world.namespace)

    await tenant(world, limits=CENT, timeZone="Mars/Olympus")
    await world.settle(context)
    refused = condition(await world.get("Tenant", world.namespace), "Accepted")
    assert (refused["status"], refused["reason"]) == ("False", "InvalidSpec")
    assert "such as Europe/Berlin" in refused["message"]
    await world.delete("Tenant", world.namespace)
