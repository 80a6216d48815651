"""Tokens and money from end to end: held before a call, settled after it, on every way out, and written down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import yaml
from gateway_provider import Provider
from gateway_tenant import Tenant
from gateway_world import Cluster, Running, own_endpoint, running
from redis.asyncio import Redis as Client

from assistant_cluster import stores
from assistant_crds.contracts import AssistantPolicy, Budget, ModelRoute
from assistant_gateway.config import Settings

CENT = 10_000
WIDE = Budget(amount_micros=10**9, currency="USD", period="Month")
FAULTS = [
    "cut",
    "short",
    "no-done",
    "stalls",
    "fails-midway",
    "hangs",
    "garbage",
    "hidden-error",
    "huge",
    "huge-event",
    "redirects",
    "says-400",
    "says-401",
    "says-429",
    "says-500",
]


@pytest.fixture
def settings(settings: Callable[..., Settings]) -> Callable[..., Settings]:
    """Settings whose provider has prices: 10 USD per million tokens in, 20 out, but none for `huge-event`."""

    def make(**changes: object) -> Settings:
        made = settings(**changes)
        document = yaml.safe_load(made.catalog_file.read_text())
        price = {"inputPerMillion": "10", "outputPerMillion": "20"}
        document["providers"]["demo"]["models"] = {"*": price, "slow-bytes": {"maxOutputTokens": 9}}
        made.catalog_file.write_text(yaml.safe_dump(document))
        return made

    return make


def assistant(model: str, **limits: Any) -> AssistantPolicy:
    """Return an assistant with limits."""
    return AssistantPolicy(route=ModelRoute(model=model, provider="demo"), **limits)


def budget(micros: int, period: str = "Day") -> Budget:
    """Return a budget in USD."""
    return Budget(amount_micros=micros, currency="USD", period=period)


async def test_a_budget_of_a_cent_answers_then_refuses_and_a_raised_one_admits_at_once(
    cluster: Cluster, gateway: Running
) -> None:
    """The budget is never exceeded; the refusal says what binds and what is left; a new limit holds at once."""
    tenant = Tenant(cluster, gateway, "meter-cent")
    await tenant.put(assistants={"good": assistant("good", budget=budget(CENT))})
    answered = 0
    while (found := await tenant.code("good", max_tokens=100)) == (200, None):
        answered += 1
        assert answered < 100
    assert found == (429, "budget_exhausted")
    assert answered > 1
    spent = sum(entry.cost for entry in await tenant.entries(answered))
    assert spent == answered * 190 <= CENT
    async with tenant.ask("good", max_tokens=100) as answer:
        assert answer.headers["x-budget-limit"] == "0.010000"
        assert answer.headers["x-should-retry"] == "false"
        assert int(answer.headers["Retry-After"]) <= 86_400
        assert "0.010000 USD per day" in (await answer.json())["error"]["message"]
    await tenant.put(assistants={"good": assistant("good", budget=budget(10 * CENT))})
    assert await tenant.code("good", max_tokens=100) == (200, None)
    usage = (await tenant.probe())["usage"]
    assert usage["assistants"]["good"]["spentMicros"] == (answered + 1) * 190 == usage["tenant"]["spentMicros"]


async def test_tokens_of_a_day_end_with_a_code_of_their_own(cluster: Cluster, gateway: Running) -> None:
    """A tenant's tokens bind over all operations, and what remains is in the headers."""
    tenant = Tenant(cluster, gateway, "meter-tokens")
    await tenant.put(["good"], tokens_per_day=2000)
    async with tenant.ask("good", max_tokens=10) as answer:
        assert answer.status == 200
        assert answer.headers["x-ratelimit-limit-tokens"] == "2000"
        assert 0 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 2000
    assert await tenant.code("good", max_tokens=3000) == (429, "tokens_exhausted")
    assert await tenant.code("handbook", path="embeddings", input="x" * 3000) == (429, "tokens_exhausted")


@pytest.mark.parametrize("stream", [False, True])
async def test_length_of_the_answer_is_what_was_held(
    cluster: Cluster, gateway: Running, upstream: Provider, *, stream: bool
) -> None:
    """A client that sets no length gets one where a limit holds, a shorter one near the end, none without limits."""
    tenant = Tenant(cluster, gateway, f"meter-length-{stream}".lower())
    await tenant.put(["good"], budget=WIDE)
    assert await tenant.code("good", stream=stream) == (200, None)
    assert upstream.bodies[-1]["max_tokens"] == 4096
    await tenant.put(["good"], budget=budget(5 * CENT))
    assert await tenant.code("good", stream=stream) == (200, None)
    assert 256 <= upstream.bodies[-1]["max_tokens"] < 4096
    await tenant.put(["good"])
    assert await tenant.code("good", stream=stream) == (200, None)
    assert "max_tokens" not in upstream.bodies[-1]


async def test_entry_says_everything(cluster: Cluster, gateway: Running) -> None:
    """Who asked for what and why, what it used by whose word, what it cost and held, and how long it took."""
    tenant = Tenant(cluster, gateway, "meter-entry")
    await tenant.put(["good"], budget=WIDE)
    headers = {"x-request-id": "mine", "x-assistant-user": "ada"}
    assert await tenant.code("good", stream=True, max_tokens=50, headers=headers) == (200, None)
    (entry,) = await tenant.entries(1)
    assert (entry.tenant, entry.name, entry.scope, entry.operation) == (tenant.namespace, "good", "good", "chat")
    assert (entry.purpose, entry.streamed) == ("chat", True)
    assert (entry.request, entry.user, entry.provider, entry.model, entry.answered) == (
        *("mine", "ada", "demo"),
        *("good", "good"),
    )
    assert (entry.input, entry.output, entry.source, entry.outcome) == (11, 4, "reported", "ok")
    assert (entry.price_input, entry.price_output, entry.price_source) == (10_000_000, 20_000_000, "catalogue")
    assert entry.cost == 11 * 10 + 4 * 20
    assert entry.held_cost >= entry.cost
    assert 0 < (entry.first_byte or 0) <= entry.duration
    assert await gateway.metric(
        'assistant_model_cost_micros_total{assistant="good",model="good",provider="demo",tenant="meter-entry"}'
    ) == pytest.approx(entry.cost)


async def test_the_same_request_id_is_charged_each_time(cluster: Cluster, gateway: Running) -> None:
    """A caller that repeats its request id gets no call for free."""
    tenant = Tenant(cluster, gateway, "meter-same")
    await tenant.put(["good"], budget=WIDE)
    for _ in range(3):
        assert await tenant.code("good", headers={"x-request-id": "same"}) == (200, None)
    assert sum(entry.cost for entry in await tenant.entries(3)) == 3 * 190


@pytest.mark.parametrize("purpose", ["ingest", "search"])
async def test_embeddings_are_metered(cluster: Cluster, gateway: Running, purpose: str) -> None:
    """Ingesting and searching cost the tenant, under their own purpose, and stop when its budget is used up."""
    tenant = Tenant(cluster, gateway, f"meter-{purpose}")
    await tenant.put(budget=budget(100))
    headers = {"x-assistant-purpose": purpose}
    while (found := await tenant.code("handbook", path="embeddings", input="x", headers=headers))[0] == 200:
        pass
    assert found == (429, "budget_exhausted")
    entries = await tenant.entries(1)
    assert {(entry.purpose, entry.name, entry.scope, entry.cost) for entry in entries} == {
        (purpose, "handbook", "", 30)
    }
    assert sum(entry.cost for entry in entries) <= 100


@pytest.mark.parametrize("stream", [False, True])
async def test_every_fault_settles(cluster: Cluster, gateway: Running, *, stream: bool) -> None:
    """Whatever a provider does there is one entry, nothing stays held, and nothing costs more than was held."""
    tenant = Tenant(cluster, gateway, f"meter-faults-{stream}".lower())
    await tenant.put(FAULTS, budget=WIDE)

    async def one(model: str) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            async with tenant.ask(model, stream=stream, max_tokens=50) as answer:
                await answer.read()

    await asyncio.gather(*(one(model) for model in FAULTS))
    entries = {entry.model: entry for entry in await tenant.entries(len(FAULTS))}
    assert set(entries) == set(FAULTS)
    assert all(0 <= entry.cost <= entry.held_cost for entry in entries.values())
    assert all(entries[name].cost == 0 for name in FAULTS if name.startswith("says") or name == "redirects")
    assert entries["hangs"].source == "estimated"
    assert entries["hangs"].cost == entries["hangs"].held_cost
    if stream:
        assert 0 < entries["cut"].output <= 5
    assert await tenant.held() == 0


async def test_a_client_that_hangs_up_is_charged_for_what_it_saw(cluster: Cluster, gateway: Running) -> None:
    """The text that arrived is charged as estimated, and the rest of the hold is given back."""
    tenant = Tenant(cluster, gateway, "meter-hangup")
    await tenant.put(["endless"], budget=WIDE)
    async with tenant.ask("endless", stream=True) as answer:
        await answer.content.readany()
    (entry,) = await tenant.entries(1)
    assert (entry.outcome, entry.source) == ("client_gone", "estimated")
    assert 0 < entry.output < 4096
    assert await tenant.held() == 0


async def test_shutdown_settles_running_streams(cluster: Cluster, settings: Callable) -> None:
    """A gateway that goes down in the middle of a stream leaves neither a hold nor a hole in the ledger."""
    async with running(settings(stream_seconds=0.1)) as gateway:
        tenant = Tenant(cluster, gateway, "meter-shutdown")
        await tenant.put(["endless"], budget=WIDE)
        answer = await tenant.ask("endless", stream=True)
        await answer.content.readany()
        await gateway.server.stop(drain_seconds=0)
        (entry,) = await tenant.entries(1)
        assert entry.outcome == "interrupted"


async def test_two_gateways_share_a_budget(cluster: Cluster, settings: Callable, gateway: Running) -> None:
    """However many ask at however many gateways, together they spend no more than the budget."""
    tenant = Tenant(cluster, gateway, "meter-shared")
    await tenant.put(["good"], budget=budget(2 * CENT))
    async with running(settings()) as second:

        async def one(where: Running) -> int:
            async with tenant.ask("good", where, max_tokens=10) as answer:
                await answer.read()
                return answer.status

        found = await asyncio.gather(*(one(where) for _ in range(60) for where in (gateway, second)))
        answered = found.count(200)
        assert set(found) == {200, 429}
        assert sum(entry.cost for entry in await tenant.entries(answered)) == answered * 190 <= 2 * CENT


async def test_unknown_price_and_unbounded_requests_are_refused_under_limits_only(
    cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """What nobody can put a number on is not called under a budget; the answer says what to do."""
    tenant = Tenant(cluster, gateway, "meter-unknown")
    await tenant.put(["slow-bytes", "good"], budget=WIDE)
    assert await tenant.code("slow-bytes") == (403, "price_unknown")
    assert await tenant.code("good", web_search_options={"a": 1}) == (400, "not_limitable")
    assert upstream.bodies == []
    await tenant.put(["slow-bytes", "good"])
    assert (await tenant.code("good", web_search_options={"a": 1}))[0] == 200
    assert await tenant.code("slow-bytes", stream=True) == (200, None)


async def test_own_endpoints_count_in_tokens_and_cost_nothing(
    cluster: Cluster, settings: Callable, upstream: Provider
) -> None:
    """A tenant pays its own server, so its budget is for the platform's providers alone."""
    made = settings()
    document = yaml.safe_load(made.catalog_file.read_text())
    document["tenantEndpoints"] = {"allowHosts": ["127.0.0.1"]}
    made.catalog_file.write_text(yaml.safe_dump(document))
    async with running(made) as gateway:
        tenant = Tenant(cluster, gateway, "meter-own")
        await tenant.put(assistants={"own": own_endpoint(upstream.url)}, budget=budget(1))
        assert await tenant.code("own") == (200, None)
        (entry,) = await tenant.entries(1)
        assert (entry.input, entry.output, entry.cost, entry.price_source) == (11, 4, 0, "own endpoint")


async def test_without_redis_limited_calls_are_refused_and_what_ran_is_settled_later(
    cluster: Cluster, settings: Callable
) -> None:
    """Closed: 503 and when to come back, never an uncounted call; one under way is charged when Redis is back."""
    with stores.redis() as store:
        async with running(settings(redis_url=store.gateway_url)) as gateway:
            tenant = Tenant(cluster, gateway, "meter-away")
            await tenant.put(["good", "endless"], budget=WIDE)
            assert await tenant.code("good") == (200, None)
            answer = await tenant.ask("endless", stream=True)
            await answer.content.readany()
            store.server.pause()
            async with tenant.ask("good") as refused:
                assert refused.status == 503
                assert refused.headers["Retry-After"] == "1"
                assert (await refused.json())["error"]["code"] == "limits_unavailable"
            answer.close()
            await asyncio.sleep(0.2)
            store.server.resume()
            entries = await tenant.entries(2)
            assert sorted(entry.model for entry in entries) == ["endless", "good"]
            async with asyncio.timeout(5):
                while await tenant.code("good") != (200, None):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert len(await tenant.entries(3)) == 3


async def test_counters_are_rebuilt_from_the_stream(cluster: Cluster, gateway: Running) -> None:
    """Counters that were lost come back from the ledger before anything is admitted."""
    tenant = Tenant(cluster, gateway, "meter-rebuilt")
    await tenant.put(["good"], budget=budget(CENT))
    for _ in range(10):
        assert await tenant.code("good", max_tokens=10) == (200, None)
    await tenant.entries(10)
    async with Client.from_url(gateway.settings.redis_url, protocol=2, driver_info=None) as redis:
        await redis.delete(f"quota:{{{tenant.key}}}:state")
    assert await tenant.code("good", max_tokens=10) == (200, None)
    await tenant.entries(11)
    usage = (await tenant.probe())["usage"]
    assert usage["tenant"]["spentMicros"] == 11 * 190 == usage["assistants"]["good"]["spentMicros"]
    assert usage["tenant"]["tokens"] == 11 * 15
