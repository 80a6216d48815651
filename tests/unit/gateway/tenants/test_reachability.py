"""What a probe says of a model is what a call of it would meet."""

from __future__ import annotations

import time
from typing import Any, cast

import msgspec
import pytest
from yarl import URL

from assistant_crds.contracts import (
    AssistantPolicy,
    Budget,
    EmbeddingPolicy,
    ModelProbe,
    ModelRoute,
    TenantIdentity,
    TenantPolicy,
    TenantProbe,
)
from assistant_crds.gateway_api import Operation, Purpose
from assistant_gateway import errors
from assistant_gateway.calls.fallback import Attempt, Fallback
from assistant_gateway.calls.relay import Result
from assistant_gateway.errors import GatewayError
from assistant_gateway.limits.limit_scope import Amount
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import Admitted, Remaining
from assistant_gateway.metering.call import Call, Outcome
from assistant_gateway.metering.meter import Meter
from assistant_gateway.metering.tokenizers import Tokenizers
from assistant_gateway.providers.breaker import BreakerSettings
from assistant_gateway.providers.bulkhead import Bulkheads
from assistant_gateway.providers.catalog import EmbeddingInputTypes, Provider, Target, target
from assistant_gateway.providers.price_map import PriceMap
from assistant_gateway.providers.prices import ModelSettings
from assistant_gateway.tenants.reachability import Prober
from assistant_gateway.tenants.routing import Tenant, compile_policy

BUDGET = Budget(amount_micros=10**7, currency="USD", period="Month")
GOOD = Result(cast("Any", None), Outcome.OK)


class Unlimited(Limiter):
    """Admits everything."""

    def __init__(self) -> None:
        super().__init__(None)

    async def reserve(self, terms: LimitSet, call: str, worst: Amount) -> Admitted:
        return Admitted(time.time_ns() // 1000, tuple(Remaining(None, 0, None, None) for _ in terms.limits.levels))


class Listing:
    """A provider's answer, to the question for its models or to a trial embedding."""

    def __init__(self, status: int, body: bytes = b"") -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self.closed = False
        self._rest = body

    async def next(self) -> bytes:
        body, self._rest = self._rest, b""
        return body

    def close(self) -> None:
        self.closed = True


def _call(made: Attempt) -> Call:
    to, operation = made.to.provider, Operation.CHAT
    return Call(
        tenant="acme", name="a", provider=to, model="m", operation=operation, purpose=Purpose.CHAT, request_id="r"
    )


class World:
    """Providers `priced`, `free`, `unpriced`, `euro`, `keyless` and `down`, and one tenant."""

    def __init__(self) -> None:
        price = ModelSettings(input_per_million="1", output_per_million="2")
        free = ModelSettings(input_per_million="0", output_per_million="0")
        euro = ModelSettings(input_per_million="1", output_per_million="2", currency="EUR")
        self.targets = {
            "priced": _provider("priced", price),
            "free": _provider("free", free),
            "unpriced": _provider("unpriced"),
            "euro": _provider("euro", euro),
            "keyless": msgspec.structs.replace(_provider("keyless", price), missing_key="keyless"),
            "down": _provider("down", price),
            "reader": target("reader", Provider(kind="anthropic", key_ref="k", models={"*": price}), "key"),
        }
        self.bulkheads = Bulkheads(lambda: self.targets)
        self.meter = Meter(Unlimited(), PriceMap(None, ""), Tokenizers(None))
        self.now = 0.0
        self.prober = Prober(cast("Any", self), lambda: self.targets, self.bulkheads, self.meter, lambda: self.now)
        self.attempts = Fallback(self.bulkheads, lambda: self.targets)
        self.trials: list[Any] = []
        self.vector: tuple[int, bytes] = (200, b'{"data":[{"embedding":[1,0,0,0,0,0,0,0]}]}')

    async def post(self, to: Target, url: URL, body: bytes, trace: dict[str, str]) -> Listing:
        """Answer a trial embedding."""
        self.trials.append(msgspec.json.decode(body))
        return Listing(*self.vector)

    async def get(self, to: Target, url: URL, seconds: float) -> Listing:
        """Answer for every provider but the one that is down."""
        if to.provider == "down":
            raise errors.provider_unreachable(to.provider, "its host refused the connection")
        return Listing(200)

    async def call(self, tenant: Tenant) -> str:
        """Make a call of the assistant as the gateway does; return the code of its error, empty when it is answered."""
        route = tenant.assistants["a"]

        async def attempt(made: Attempt) -> Result:
            call = _call(made)
            fields = {"messages": msgspec.Raw(b'[{"role":"user","content":"Hi"}]')}
            await self.meter.admit(route.terms, call, made.target, fields, embedding=False)
            made.admitted = True
            if made.to.provider == "down":
                raise errors.provider_unreachable("down", "its host refused the connection")
            return GOOD

        try:
            await self.attempts.run(route.destinations, attempt)
        except GatewayError as error:
            return error.code
        return ""

    async def assistant(self, *providers: str, budget: Budget | None = BUDGET) -> ModelProbe:
        """Return the probe of an assistant that asks these, one after the other."""
        return (await self.prober.probe(_tenant(*providers, budget=budget))).assistants["a"]


def _provider(name: str, price: ModelSettings | None = None) -> Target:
    settings = Provider(
        url=f"http://{name}.test/v1",
        models={} if price is None else {"*": price},
        breaker=BreakerSettings(min_calls=1, failure_share=1),
    )
    return target(name, settings, None)


def _tenant(*providers: str, budget: Budget | None = BUDGET) -> Tenant:
    own, *fallbacks = [ModelRoute(model="m", provider=name) for name in providers]
    embedding = EmbeddingPolicy(route=own, dimensions=8)
    return compile_policy(
        TenantPolicy(
            tenant=TenantIdentity(namespace="acme", uid="u", key="t_1"),
            generation="p1",
            models_allow=[f"{name}/*" for name in (*World().targets, "nobody")],
            requests_per_minute=None,
            budget=budget,
            assistants={"a": AssistantPolicy(route=own, fallbacks=fallbacks)},
            knowledge_bases={"k": embedding},
        )
    )


ORDERS = [
    ["priced"],
    ["free"],
    ["unpriced"],
    ["euro"],
    ["keyless"],
    ["nobody"],
    ["other"],
    ["down"],
    ["down", "unpriced"],
    ["down", "euro"],
    ["down", "other"],
    ["down", "unpriced", "priced"],
    ["down", "priced"],
    ["keyless", "free"],
    ["keyless", "unpriced"],
    ["nobody", "priced"],
    ["unpriced", "priced"],
    ["other", "priced"],
    ["priced", "unpriced"],
]


@pytest.mark.parametrize("budget", [BUDGET, None], ids=["budget", "no budget"])
@pytest.mark.parametrize("order", ORDERS, ids=",".join)
async def test_reachable_means_that_a_call_is_answered(order: list[str], budget: Budget | None) -> None:
    """For each order of good and bad destinations the probe says what a call then finds."""
    world = World()
    probe = await world.assistant(*order, budget=budget)
    assert probe.reachable == (await world.call(_tenant(*order, budget=budget)) == "")
    assert probe.message


async def test_unknown_price_is_told_with_the_next_step() -> None:
    """Under a budget every call of a model without a price is refused; without a budget none is."""
    probe = await World().assistant("unpriced")
    assert (probe.reachable, probe.reason, probe.model) == (False, "PriceUnknown", "unpriced/m")
    assert "unpriced/m" in probe.message
    assert "providers.unpriced.models" in probe.message
    assert (await World().assistant("unpriced", budget=None)).reachable


async def test_embedding_model_without_a_price_is_told_too() -> None:
    """A knowledge base under the tenant's budget could embed nothing."""
    found = await World().prober.probe(_tenant("unpriced"))
    assert found.knowledge_bases["k"].reason == "PriceUnknown"


async def test_provider_that_makes_no_embeddings_is_told() -> None:
    """A knowledge base whose provider knows chat alone could embed nothing."""
    found = await World().prober.probe(_tenant("reader"))
    assert (found.knowledge_bases["k"].reachable, found.knowledge_bases["k"].reason) == (False, "ModelUnsuitable")
    assert found.assistants["a"].reachable


EIGHT = b'{"data":[{"embedding":[1,0,0,0,0,0,0,0]}]}'
BASE64_OF_EIGHT = b'{"data":[{"embedding":"AACAPwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}'
LISTED_BY_NONE = b'{"error":{"message":"This model does not support embeddings","code":400}}'


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, EIGHT, ""),
        (200, BASE64_OF_EIGHT, ""),
        (200, b'{"data":[{"embedding":[1,0,0]}]}', "makes vectors of 3 numbers, and spec.embedding.dimensions says 8"),
        (200, b'{"choices":[]}', "without a vector"),
        (200, b'{"data":[{"embedding":[]}]}', "without a vector"),
        (400, LISTED_BY_NONE, "does not support embeddings"),
        (404, b"", "was refused (404)"),
        (501, b'{"error":"start it with --embeddings"}', "was refused (501)"),
        (429, b"", ""),
        (503, b"", ""),
        (401, b"", ""),
    ],
)
async def test_a_model_is_tried_before_a_knowledge_base_is_said_to_work(status: int, body: bytes, said: str) -> None:
    """A chat model, or vectors of another length, would fail with the first document; a busy provider says nothing."""
    world = World()
    world.vector = (status, body)
    found = (await world.prober.probe(_tenant("free"))).knowledge_bases["k"]
    assert found.reachable == (said == "")
    if said:
        assert found.reason == "ModelUnsuitable"
        assert said in found.message
    assert found.model == "free/m"
    assert world.trials == [{"model": "m", "input": ["trial"], "dimensions": 8}]


async def test_a_trial_says_what_it_embeds_where_the_provider_asks() -> None:
    """Some refuse an embedding without it."""
    world = World()
    types = EmbeddingInputTypes(search="query", ingest="passage")
    known = world.targets["free"].settings
    settings = msgspec.structs.replace(known, embedding_input_types=types)
    world.targets["free"] = target("free", settings, None)
    assert (await world.prober.probe(_tenant("free"))).knowledge_bases["k"].reachable
    assert world.trials == [{"model": "m", "input": ["trial"], "dimensions": 8, "input_type": "passage"}]


async def test_a_trial_is_made_once_in_hours_and_soon_again_where_it_failed() -> None:
    """It is a call that costs something, and a mended model is to be seen soon."""
    world = World()
    tenant = _tenant("free")
    world.vector = (404, b"")
    for now in (0, 59):
        world.now = now
        assert not (await world.prober.probe(tenant)).knowledge_bases["k"].reachable
    assert len(world.trials) == 1
    world.vector, world.now = (200, EIGHT), 61
    assert (await world.prober.probe(tenant)).knowledge_bases["k"].reachable
    world.vector, world.now = (404, b""), 5 * 3600
    assert (await world.prober.probe(tenant)).knowledge_bases["k"].reachable
    assert len(world.trials) == 2
    world.now = 7 * 3600
    assert not (await world.prober.probe(tenant)).knowledge_bases["k"].reachable


async def test_each_fallback_is_told_by_itself() -> None:
    """Also while the model itself answers, and in the order in which they are asked."""
    probe = await World().assistant("priced", "unpriced", "down", "free")
    assert probe.reachable
    assert [(found.model, found.reason) for found in probe.fallbacks] == [
        ("unpriced/m", "PriceUnknown"),
        ("down/m", "ProviderUnreachable"),
        ("free/m", "Reachable"),
    ]


async def test_who_answers_instead_is_the_one_that_a_call_gets() -> None:
    """A fallback that would be refused is not named as the one that answers."""
    probe = await World().assistant("down", "unpriced", "priced")
    assert "It answers by its fallback priced/m" in probe.message
    none = await World().assistant("down", "unpriced")
    assert "No price is known for unpriced/m" in none.message


async def test_open_breaker_is_what_a_call_meets() -> None:
    """A provider that failed too often is not called, however well it lists its models."""
    world = World()
    bulkhead = world.bulkheads.bulkhead(_tenant("priced").assistants["a"].to.tenant, world.targets["priced"])
    permit = await bulkhead.enter("m", time.monotonic() + 9, "other")
    permit.leave("provider_error")
    assert (await world.assistant("priced")).reason == "ProviderUnavailable"
    assert await world.call(_tenant("priced")) == "provider_unavailable"


async def test_refused_call_says_why_its_fallbacks_were_not_asked() -> None:
    """A 502 of a provider that is away names what kept the fallback from being asked."""
    world = World()
    tenant = _tenant("down", "unpriced")

    async def attempt(made: Attempt) -> Result:
        call = _call(made)
        fields = {"messages": msgspec.Raw(b'[{"role":"user","content":"Hi"}]')}
        await world.meter.admit(tenant.assistants["a"].terms, call, made.target, fields, embedding=False)
        made.admitted = True
        raise errors.provider_unreachable("down", "x")

    with pytest.raises(GatewayError) as raised:
        await world.attempts.run(tenant.assistants["a"].destinations, attempt)
    assert raised.value.code == "provider_unreachable"
    assert "Fallback unpriced/m was not asked: No price is known for unpriced/m" in raised.value.message


def test_probe_of_an_older_gateway_decodes() -> None:
    """While the platform is upgraded the operator may be newer than the gateway it asks."""
    model = '{"reachable":true,"reason":"Reachable","message":"m"}'
    document = f'{{"generation":"g","assistants":{{"a":{model}}},"knowledgeBases":{{}}}}'
    assert msgspec.json.decode(document, type=TenantProbe).assistants["a"].fallbacks == []
