"""Fallbacks, retries, breakers and places of a running gateway, and what all of that costs the tenant."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from gateway_provider import BEHAVIOURS, Provider
from gateway_tenant import Tenant
from gateway_world import Cluster, Running, own_endpoint

from assistant_crds.contracts import AssistantPolicy, Budget, ModelRoute
from assistant_gateway.config import Settings

WIDE = Budget(amount_micros=10**9, currency="USD", period="Month")
PRICE = {"inputPerMillion": "10", "outputPerMillion": "20"}


@pytest.fixture
def settings(settings: Callable[..., Settings], upstream: Provider) -> Callable[..., Settings]:
    """Settings with more providers, all of them the scripted one: a fallback, a dear one, fragile ones."""

    def make(**changes: object) -> Settings:
        made = settings(**changes)
        document = yaml.safe_load(made.catalog_file.read_text())
        demo = document["providers"]["demo"] | {"models": {"*": PRICE}}
        dear = {"*": {"inputPerMillion": "1000", "outputPerMillion": "2000"}}
        document["providers"] |= {
            "demo": demo,
            "backup": demo,
            "dear": demo | {"models": dear},
            "fragile": demo | {"breaker": {"minCalls": 2, "openSeconds": 4}},
            "narrow": demo | {"concurrency": 1, "queueSeconds": 0.1},
            "hasty": demo | {"totalSeconds": 0.4, "idleSeconds": 30},
            "unknown-price": demo | {"models": {}},
            "gone": {"url": f"http://127.0.0.1:{free_port()}/v1", "models": {"*": PRICE}},
            "keyless": demo | {"keyRef": "missing"},
        }
        made.catalog_file.write_text(yaml.safe_dump(document))
        return made

    return make


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def assistant(*models: str, **limits: Any) -> AssistantPolicy:
    """Return an assistant with its models in order, as `provider/model`."""
    first, *others = (ModelRoute(provider=one.partition("/")[0], model=one.partition("/")[2]) for one in models)
    return AssistantPolicy(route=first, fallbacks=others, **limits)


async def tenant(cluster: Cluster, gateway: Running, name: str, *models: str, **limits: Any) -> Tenant:
    """Return a tenant with the assistant `a`."""
    made = Tenant(cluster, gateway, name)
    await made.put(assistants={"a": assistant(*models, **limits)})
    return made


def asked(upstream: Provider) -> list[str]:
    """Return the models that the provider was asked for, in order."""
    return [body["model"] for body in upstream.bodies]


FREE = [
    "says-500",
    "says-429",
    "says-401",
    "says-402",
    "says-404",
    "garbage",
    "hidden-error",
    "error-first",
    "redirects",
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["gone", "keyless", *FREE, "hangs", "huge", "silent", "empty"])
async def test_fallback_answers_and_every_call_is_on_the_books(
    fault: str, stream: bool, cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """Whatever a provider does before its answer goes out, the next one answers; each call that was made has an entry
    with what it cost, and nothing stays held."""
    broken = f"{fault}/any" if fault in {"gone", "keyless"} else f"demo/{fault}"
    mine = await tenant(cluster, gateway, f"route-{fault}-{stream}".lower(), broken, "backup/good", budget=WIDE)
    async with mine.ask("a", stream=stream, max_tokens=50) as answer:
        text = await answer.text()
    assert answer.status == 200
    assert answer.headers["x-assistant-model"] == "backup/good"
    assert "Hello" in text
    assert "error" not in text
    entries = await mine.entries(1 if fault == "keyless" else 2)
    by_provider = {entry.provider: entry for entry in entries}
    last = by_provider["backup"]
    assert (last.model, last.outcome, last.cost) == ("good", "ok", 11 * 10 + 4 * 20)
    if fault != "keyless":
        first = by_provider[broken.partition("/")[0]]
        # Whoever got the request and answered with nonsense may have worked, and will bill it.
        paid = fault in {"hangs", "silent", "empty", "huge", "garbage"}
        assert first.outcome != "ok"
        assert (0 < first.cost <= first.held_cost) if paid else first.cost == 0
        assert first.call != last.call
    assert await mine.held() == 0
    line = f'assistant_model_fallbacks_total{{assistant="a",model="good",provider="backup",tenant="{mine.namespace}"}}'
    assert await gateway.metric(line) == 1


@pytest.mark.parametrize("model", ["says-400", "echoes"])
async def test_requests_own_mistake_is_not_shopped_around(
    model: str, cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """A provider's 400 is the answer."""
    mine = await tenant(cluster, gateway, f"route-own-{model}", f"demo/{model}", "backup/good")
    assert (await mine.code("a"))[0] == 400
    assert asked(upstream) == [model]


@pytest.mark.parametrize("model", ["cut", "short", "stalls", "fails-midway", "huge-event"])
async def test_nothing_is_asked_again_once_a_byte_is_out(
    model: str, cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """A stream that breaks ends with an error event; no other answer is glued to it."""
    mine = await tenant(cluster, gateway, f"route-out-{model}", f"demo/{model}", "backup/good", budget=WIDE)
    async with mine.ask("a", stream=True) as answer:
        text = await answer.text()
    assert answer.headers["x-assistant-model"] == f"demo/{model}"
    assert "error" in json.loads(text.strip().splitlines()[-1].removeprefix("data: "))
    assert asked(upstream) == [model]
    assert len(await mine.entries(1)) == 1


async def test_when_nobody_answers_the_last_is_quoted(cluster: Cluster, gateway: Running, upstream: Provider) -> None:
    """Each is asked once, in order, and the client hears of the last."""
    models = ("demo/says-500", "backup/says-429", "dear/hangs")
    mine = await tenant(cluster, gateway, "route-nobody", *models)
    async with mine.ask("a") as answer:
        body = await answer.json()
    assert (answer.status, body["error"]["code"]) == (504, "provider_timeout")
    assert answer.headers["x-assistant-model"] == "dear/hangs"
    assert asked(upstream) == ["says-500", "says-429", "hangs"]


async def test_model_that_is_not_allowed_is_no_fallback(cluster: Cluster, gateway: Running, upstream: Provider) -> None:
    """The tenant's list of models holds for each destination, whatever a policy says besides."""
    mine = Tenant(cluster, gateway, "route-allow")
    await mine.put(assistants={"a": assistant("demo/says-500", "backup/good")}, models_allow=["demo/*"])
    assert await mine.code("a") == (502, "provider_error")
    assert asked(upstream) == ["says-500"]


# --- money -----------------------------------------------------------------------------------------------------


async def test_dearer_fallback_is_held_at_its_own_price_or_passed_over(
    cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """A fallback that what is left cannot pay is not asked; the next that it can pay is."""
    budget = Budget(amount_micros=20_000, currency="USD", period="Month")
    models = ("demo/says-500", "dear/good", "unknown-price/good", "backup/good")
    mine = await tenant(cluster, gateway, "route-dear", *models, budget=budget)
    async with mine.ask("a", max_tokens=50) as answer:
        assert answer.headers["x-assistant-model"] == "backup/good"
    assert asked(upstream) == ["says-500", "good"]
    assert [entry.provider for entry in await mine.entries(2)] == ["demo", "backup"]


async def test_call_that_cost_nothing_leaves_its_room_to_the_fallback(cluster: Cluster, gateway: Running) -> None:
    """With just enough left for one call, a refused connection or a 500 does not use it up."""
    trial = await tenant(cluster, gateway, "route-room-trial", "demo/says-500", budget=WIDE)
    await trial.code("a", max_tokens=50)
    (entry,) = await trial.entries(1)
    budget = Budget(amount_micros=entry.held_cost, currency="USD", period="Month")
    mine = await tenant(cluster, gateway, "route-room", "demo/says-500", "backup/good", budget=budget)
    assert await mine.code("a", max_tokens=50) == (200, None)


async def test_calls_that_were_paid_and_their_fallbacks_stay_within_the_budget(
    cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """Fifty requests at once, each of which may pay twice: what was charged is never more than the limit."""
    limit = 60_000
    budget = Budget(amount_micros=limit, currency="USD", period="Month")
    mine = await tenant(cluster, gateway, "route-money", "demo/hangs", "dear/good", "backup/good", budget=budget)
    found = await asyncio.gather(*(mine.code("a", max_tokens=50) for _ in range(50)))
    statuses = {status for status, _ in found}
    assert statuses <= {200, 429, 504}
    entries = await mine.entries(1)
    assert await mine.held() == 0
    entries = await mine.entries(len(entries))
    spent = sum(entry.cost for entry in entries)
    assert any(entry.model == "hangs" and entry.cost == entry.held_cost for entry in entries)
    assert 0 < spent <= limit


async def test_fallback_is_one_request_of_the_rate(cluster: Cluster, gateway: Running) -> None:
    """A tenant's rate counts what people ask, not how many providers it takes."""
    mine = Tenant(cluster, gateway, "route-rate")
    await mine.put(assistants={"a": assistant("demo/says-500", "backup/good", requests_per_minute=60, budget=WIDE)})
    async with mine.ask("a", max_tokens=5) as answer:
        assert answer.status == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "9"  # of a burst of ten
    assert "x-budget-remaining" in answer.headers


# --- retries ---------------------------------------------------------------------------------------------------


async def test_short_pause_is_waited_out_within_one_call(
    cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """A provider that asks for a moment is asked again; the tenant has one entry for it."""
    line = 'assistant_provider_retries_total{provider="demo",reason="unavailable"}'
    before = await gateway.metric(line)
    mine = await tenant(cluster, gateway, "route-again", "demo/recovers", budget=WIDE)
    assert await mine.code("a") == (200, None)
    assert asked(upstream) == ["recovers", "recovers"]
    assert [entry.outcome for entry in await mine.entries(1)] == ["ok"]
    assert await gateway.metric(line) == before + 1


async def test_refused_connection_is_tried_again_and_counted(cluster: Cluster, gateway: Running) -> None:
    """A provider that restarts gets three chances, then it is a 502."""
    line = 'assistant_provider_retries_total{provider="gone",reason="unreachable"}'
    before = await gateway.metric(line)
    mine = await tenant(cluster, gateway, "route-gone", "gone/any")
    assert await mine.code("a") == (502, "provider_unreachable")
    assert await gateway.metric(line) == before + 2


async def test_long_pause_is_kept_for_that_model_alone(cluster: Cluster, gateway: Running, upstream: Provider) -> None:
    """After a 429 with `Retry-After` that model is not asked again before its time; others of the provider are."""
    mine = Tenant(cluster, gateway, "route-pause")
    await mine.put(assistants={"a": assistant("demo/says-429"), "b": assistant("demo/good")})
    for _ in range(3):
        async with mine.ask("a") as answer:
            assert answer.status == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 7
    assert await mine.code("b") == (200, None)
    assert asked(upstream) == ["says-429", "good"]
    assert await gateway.metric('assistant_provider_breaker_state{provider="demo"}') == 0


# --- breaker and places ----------------------------------------------------------------------------------------


async def test_breaker_opens_shows_itself_and_closes_again(
    cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """After its failures a provider is left alone: at once refused or answered by the fallback, visible in the metric
    and to the operator; one good trial later all is as before."""
    state = 'assistant_provider_breaker_state{provider="fragile"}'
    mine = Tenant(cluster, gateway, "route-breaker")
    await mine.put(assistants={"a": assistant("fragile/says-500"), "b": assistant("fragile/good", "backup/good")})
    for _ in range(2):
        assert await mine.code("a") == (502, "provider_error")
    assert await gateway.metric(state) == 2
    async with mine.ask("a") as answer:
        body = await answer.json()
    assert (answer.status, body["error"]["code"]) == (503, "provider_unavailable")
    assert 1 <= int(answer.headers["Retry-After"]) <= 4
    async with mine.ask("b") as answer:
        assert answer.headers["x-assistant-model"] == "backup/good"
    assert asked(upstream) == ["says-500", "says-500", "good"]
    probe = (await mine.probe())["assistants"]
    assert (probe["a"]["reachable"], probe["a"]["reason"]) == (False, "ProviderUnavailable")
    assert (probe["b"]["reachable"], probe["b"]["reason"]) == (True, "Reachable")
    assert "answers by its fallback backup/good" in probe["b"]["message"]
    async with asyncio.timeout(10):
        while await gateway.metric(state) != 1:  # noqa: ASYNC110  # half-open, by the clock
            await asyncio.sleep(0.1)
    async with mine.ask("b") as answer:
        assert answer.headers["x-assistant-model"] == "fragile/good"
    assert await gateway.metric(state) == 0
    assert (await mine.probe())["assistants"]["a"]["reachable"]


async def test_errors_inside_of_answers_open_the_breaker_and_fail_its_trial(cluster: Cluster, gateway: Running) -> None:
    """A provider that answers 200 and sends an error is as ill as one that answers 500."""
    state = 'assistant_provider_breaker_state{provider="fragile"}'
    mine = await tenant(cluster, gateway, "route-breaker-events", "fragile/error-first")
    for _ in range(2):
        assert await mine.code("a", stream=True) == (502, "provider_error")
    assert await gateway.metric(state) == 2
    async with asyncio.timeout(10):
        while await gateway.metric(state) != 1:  # noqa: ASYNC110  # half-open, by the clock
            await asyncio.sleep(0.1)
    assert await mine.code("a", stream=True) == (502, "provider_error")
    assert await gateway.metric(state) == 2


@pytest.mark.parametrize("model", ["says-400", "says-404", "says-401", "huge"])
async def test_one_tenants_mistakes_close_no_provider_for_others(
    model: str, cluster: Cluster, gateway: Running
) -> None:
    """Wrong requests, wrong model names and absurd answers do not open the breaker."""
    mine = await tenant(cluster, gateway, f"route-mistake-{model}", f"fragile/{model}")
    for _ in range(4):
        await mine.code("a")
    assert await gateway.metric('assistant_provider_breaker_state{provider="fragile"}') == 0


async def test_broken_own_endpoint_is_nobody_elses_trouble(
    cluster: Cluster, settings: Callable, gateway: Running, upstream: Provider
) -> None:
    """A tenant's server that fails all the time is closed for that tenant and no other with the same address."""
    catalog = gateway.settings.catalog_file
    catalog.write_text(catalog.read_text().replace("allowHosts: []", "allowHosts: [localhost]"))
    url = upstream.url.replace("127.0.0.1", "localhost")
    one, other = Tenant(cluster, gateway, "route-own-one"), Tenant(cluster, gateway, "route-own-other")
    for each in (one, other):
        await each.put(assistants={"bad": own_endpoint(url, "says-500"), "good": own_endpoint(url)})
    async with asyncio.timeout(5):
        while await one.code("good") != (200, None):  # noqa: ASYNC110  # the catalogue is looked at once a second
            await asyncio.sleep(0.1)
    for _ in range(20):
        await one.code("bad")
    assert await one.code("good") == (503, "provider_unavailable")
    assert await other.code("good") == (200, None)
    assert await gateway.metric('assistant_provider_breaker_state{provider="demo"}') == 0


async def test_full_provider_is_refused_after_a_short_wait_or_passed_over(cluster: Cluster, gateway: Running) -> None:
    """With its one place taken a request waits a moment, then goes to the fallback, or is told when to come back."""
    mine = Tenant(cluster, gateway, "route-full")
    await mine.put(
        assistants={
            "long": assistant("narrow/paced"),
            "a": assistant("narrow/good"),
            "b": assistant("narrow/good", "backup/good"),
        }
    )
    async with mine.ask("long", stream=True) as running:
        await running.content.readuntil(b"\n\n")
        assert await gateway.metric('assistant_provider_calls_in_flight{provider="narrow"}') == 1
        async with mine.ask("a") as answer:
            body = await answer.json()
        assert (answer.status, body["error"]["code"], answer.headers["Retry-After"]) == (503, "provider_busy", "1")
        async with mine.ask("b") as answer:
            assert answer.headers["x-assistant-model"] == "backup/good"
        running.close()
    async with asyncio.timeout(5):
        while await mine.code("a") != (200, None):  # noqa: ASYNC110  # until the provider's answer has ended
            await asyncio.sleep(0.05)
    assert await gateway.metric('assistant_provider_calls_in_flight{provider="narrow"}') == 0


# --- the whole request's time, and fields that lead elsewhere --------------------------------------------------


@pytest.mark.parametrize(("model", "stream"), [("endless", True), ("hangs", False), ("silent", True)])
async def test_request_ends_at_its_deadline(
    model: str, stream: bool, cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """However long a provider goes on, the request ends when the catalogue says; it is settled and not made again."""
    mine = await tenant(cluster, gateway, f"route-late-{model}", f"hasty/{model}", "backup/good", budget=WIDE)
    async with mine.ask("a", stream=stream, max_tokens=50) as answer:
        text = await answer.text()
    assert "was not done within 0.4 s" in text
    assert "provider_timeout" in text
    (entry,) = await mine.entries(1)
    assert entry.outcome == "provider_timeout"
    assert entry.cost > 0
    assert await mine.held() == 0
    assert asked(upstream) == [model]


@pytest.mark.parametrize("field", ["models", "provider", "route", "plugins"])
async def test_field_that_names_other_models_is_refused(
    field: str, cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """No provider hears of a request that could lead past the list of allowed models."""
    mine = await tenant(cluster, gateway, "route-fields", "demo/good")
    async with mine.ask("a", **{field: ["openai/o1-pro"]}) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "field_not_allowed", field)
    assert not upstream.bodies


def test_each_fault_of_the_provider_is_in_one_of_these_tests() -> None:
    """A behaviour that is added to the scripted provider is tried with a fallback behind it."""
    before = {"gone", "keyless", *FREE, "hangs", "huge", "silent", "empty"}
    after = {"cut", "short", "stalls", "fails-midway", "huge-event"}
    fine = {
        "good",
        "endless",
        "paced",
        "slow-bytes",
        "flood",
        "counts-first",
        "no-done",
        "numbered",
        "whole-then-cut",
        "whole-then-silent",
        "recovers",
        "echoes",
        "features",
        "says-400",
        "says-503",
    }
    assert set(BEHAVIOURS) <= before | after | fine
