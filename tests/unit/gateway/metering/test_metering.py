"""What a call may use at most and what it is charged, with limits that the test decides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from assistant_crds.gateway_api import Operation, Purpose
from assistant_gateway.errors import GatewayError
from assistant_gateway.ledger.entry import LedgerEntry, decode_entry
from assistant_gateway.limits import answers
from assistant_gateway.limits import limiter as limiter_module
from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import Admitted, Refused, Remaining
from assistant_gateway.limits.redis import UnavailableError
from assistant_gateway.limits.windows import Windows
from assistant_gateway.metering import lengths
from assistant_gateway.metering.call import Call, Outcome
from assistant_gateway.metering.meter import Meter
from assistant_gateway.metering.metered import Metered, answered_by
from assistant_gateway.metering.tokenizers import Tokenizers
from assistant_gateway.providers.catalog import Provider, Target, target
from assistant_gateway.providers.price_map import PriceMap
from assistant_gateway.providers.prices import ModelSettings
from assistant_gateway.wire.sse import EventRelay
from assistant_gateway.wire.usage import Usage

PRICED = {"m": ModelSettings(input_per_million="1", output_per_million="2")}
BUDGET = LimitScope("assistant", "a", budget=1_000_000, period="Day")
HI = [{"role": "user", "content": "Hi"}]


class Scripted(Limiter):
    """Answers as the test says, and remembers what it was asked."""

    def __init__(self, *script: Admitted | Refused) -> None:
        super().__init__(None)
        self.script = list(script)
        self.reserved: list[Amount] = []
        self.settled: list[tuple[str, Amount, LedgerEntry]] = []

    async def reserve(self, terms: LimitSet, call: str, worst: Amount) -> Admitted | Refused:
        self.reserved.append(worst)
        return self.script.pop(0) if self.script else admitted(terms)

    def settle(self, limits: Limits, call: str, used: Amount, entry: bytes) -> None:
        self.settled.append((call, used, decode_entry(entry)))


def admitted(terms: LimitSet) -> Admitted:
    """Return an admission with plenty left."""
    return Admitted(1_795_000_000_000_000, tuple(Remaining(None, 0, None, None) for _ in terms.limits.levels))


def terms(*levels: LimitScope, assistant: str = "a") -> LimitSet:
    """Return what holds for the assistant `a`."""
    return LimitSet.of("acme", "t_1", "UTC", levels, assistant=assistant)


def demo(**prices: Any) -> Target:
    """Return a provider: 1 USD per million tokens in, 2 out, unless the test says otherwise."""
    entry = ModelSettings(**({"input_per_million": "1", "output_per_million": "2"} | prices))
    return target("demo", Provider(url="http://demo.test/v1", models={"m": entry}), None)


def meter(limiter: Limiter) -> Meter:
    """Return a meter without public prices and tokenizers."""
    return Meter(limiter, PriceMap(None, ""), Tokenizers(None))


def call(purpose: Purpose = Purpose.CHAT) -> Call:
    """Return a call of `m`."""
    return Call(
        tenant="acme", name="a", provider="demo", model="m", operation=Operation.CHAT, purpose=purpose, request_id="r"
    )


def fields(**body: Any) -> dict[str, msgspec.Raw]:
    """Return a request taken apart."""
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in ({"messages": HI} | body).items()}


async def admit(limiter: Limiter, *levels: LimitScope, to: Target | None = None, **body: Any) -> Metered:
    """Admit a chat."""
    return await meter(limiter).admit(terms(*levels), call(), to or demo(), fields(**body), embedding=False)


async def test_worst_case_is_prompt_and_allowed_answers_at_their_prices() -> None:
    """Every answer that was asked for may be as long as allowed."""
    limiter = Scripted()
    metered = await admit(limiter, BUDGET, max_tokens=100, n=3)
    assert metered.held is not None
    assert metered.held.output == 300
    assert metered.held.input >= len(json.dumps(HI))
    assert limiter.reserved == [Amount(metered.held.input + 300, metered.held.input + 600)]


async def test_without_limits_nobody_is_asked_and_nothing_is_changed() -> None:
    """A tenant without limits costs no question before a call, and keeps answers of any length."""
    limiter = Scripted()
    metered = await admit(limiter)
    assert limiter.reserved == []
    assert metered.fields == fields()


async def test_rates_alone_need_no_worst_case() -> None:
    """A limit on requests holds whatever a request may cost, even what nobody can bound."""
    limiter = Scripted()
    metered = await admit(limiter, LimitScope("assistant", "a", 60), to=demo(), web_search_options={"a": 1})
    assert limiter.reserved == [Amount(0, 0)]
    assert metered.held is None


@pytest.mark.parametrize(
    ("to", "allowed"), [(demo(), 4096), (demo(max_output_tokens=1000), 1000), (demo(max_output_tokens=10**6), 4096)]
)
async def test_length_is_set_where_the_client_set_none(to: Target, allowed: int) -> None:
    """No longer than the model can answer; both names of the field are cleared of nulls."""
    metered = await admit(Scripted(), BUDGET, to=to, max_completion_tokens=None)
    assert metered.fields["max_tokens"] == msgspec.Raw(str(allowed).encode())
    assert "max_completion_tokens" not in metered.fields


async def test_answer_is_shortened_to_what_is_left_but_not_one_that_was_asked_for() -> None:
    """Near the end of a budget a shorter answer is better than none, unless the client said how long it is to be."""
    refused = Refused(BUDGET, "budget", 3_600_000_000, 10_000, 7_000)
    limiter = Scripted(refused)
    metered = await admit(limiter, BUDGET)
    assert metered.held is not None
    assert limiter.reserved[1].cost in {2_999, 3_000}
    assert metered.fields["max_tokens"] == msgspec.Raw(str(metered.held.output).encode())
    with pytest.raises(GatewayError, match="which this call may exceed"):
        await admit(Scripted(refused), BUDGET, max_tokens=4096)
    hardly = Refused(BUDGET, "budget", 3_600_000_000, 10_000, 9_000)
    with pytest.raises(GatewayError):
        await admit(Scripted(hardly), BUDGET)


@pytest.mark.parametrize(
    ("body", "to", "status", "code"),
    [
        ({}, demo(input_per_million=None, output_per_million=None), 403, "price_unknown"),
        ({}, demo(currency="EUR"), 403, "price_unknown"),
        ({"service_tier": "priority"}, demo(), 403, "price_unknown"),
        ({"service_tier": "x"}, demo(), 400, "invalid_value"),
        ({"max_tokens": 5, "options": {"num_predict": -1}}, demo(), 400, "field_not_allowed"),
        ({"web_search_options": {"a": 1}}, demo(), 400, "not_limitable"),
        ({"max_tokens": 10**9}, demo(), 400, "invalid_value"),
        ({"max_tokens": 10**18, "n": 10**6}, demo(), 400, "invalid_value"),
    ],
)
async def test_what_cannot_be_limited_is_refused(body: dict[str, Any], to: Target, status: int, code: str) -> None:
    """Nothing is guessed under a budget."""
    limiter = Scripted()
    with pytest.raises(GatewayError) as raised:
        await admit(limiter, BUDGET, to=to, **body)
    assert (raised.value.status, raised.value.code) == (status, code)
    assert limiter.reserved == []


def heard(*events: bytes) -> EventRelay:
    """Return a stream so far."""
    relay = EventRelay(keep_usage=True, secret=None, limit=2**20)
    for event in events:
        relay.feed(b"data: " + event + b"\n\n")
    return relay


def _report(metered: Metered) -> None:
    metered.reported = Usage(input=5, output=7)


def _absurd(metered: Metered) -> None:
    metered.reported = Usage(input=5, output=70_000)


def _stream(metered: Metered) -> None:
    metered.stream = heard(b'{"choices":[{"delta":{"content":"Hello"}}]}')


def _stream_reported(metered: Metered) -> None:
    metered.stream = heard(b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}')


def _whole(metered: Metered) -> None:
    metered.body = b'{"choices":[{"message":{"role":"assistant","content":"Hello"}}]}'


def _nothing(_metered: Metered) -> None:
    return


@pytest.mark.parametrize(
    ("hear", "outcome", "output", "source"),
    [
        (_report, Outcome.OK, 7, "reported"),
        (_absurd, Outcome.OK, 70_000, "reported"),
        (_stream, Outcome.CLIENT_GONE, 5, "estimated"),
        (_stream_reported, Outcome.CLIENT_GONE, 7, "reported"),
        (_whole, Outcome.OK, 5, "estimated"),
        (_nothing, Outcome.PROVIDER_TIMEOUT, 100, "estimated"),
    ],
)
async def test_charge_follows_what_was_heard(
    hear: Callable[[Metered], None], outcome: Outcome, output: int, source: str
) -> None:
    """The provider's word in full, else the text that came, else all that may have been written unseen."""
    limiter = Scripted()
    metered = await admit(limiter, BUDGET, max_tokens=100)
    metered.sent = True
    hear(metered)
    meter(limiter).settle(metered, outcome, free=False)
    ((_, amount, entry),) = limiter.settled
    assert metered.held is not None
    prompt = metered.held.input if hear in {_stream, _whole, _nothing} else 5
    assert (entry.input, entry.output, entry.source) == (prompt, output, source)
    assert amount == Amount(prompt + output, prompt + 2 * output) == Amount(entry.tokens, entry.cost)
    assert entry.disputed is (hear is _absurd)
    assert entry.disputed or entry.cost <= entry.held_cost


async def test_claims_of_a_tenants_own_server_are_bounded_by_the_hold() -> None:
    """Nobody sends a bill for it, and a broken server must not use up the tokens of the tenant's other assistants."""
    own = target("endpoint", Provider(url="http://llm.acme.example/v1"), None, own=True)
    limiter = Scripted()
    metered = await admit(limiter, LimitScope("tenant", "", tokens=10**6), to=own, max_tokens=100)
    metered.sent = True
    _absurd(metered)
    meter(limiter).settle(metered, Outcome.OK, free=False)
    ((_, amount, entry),) = limiter.settled
    assert (entry.output, entry.disputed, entry.source, amount.tokens) == (100, True, "estimated", 105)


async def test_text_that_cannot_have_come_from_the_allowed_length_is_charged() -> None:
    """A provider that ignores the limit and reports nothing is charged by its text, and the row is disputed."""
    limiter = Scripted()
    metered = await admit(limiter, BUDGET, max_tokens=10)
    metered.sent = True
    metered.body = json.dumps({"choices": [{"message": {"content": "a" * 16_000}}]}).encode()
    meter(limiter).settle(metered, Outcome.OK, free=False)
    ((_, _, entry),) = limiter.settled
    assert (entry.output, entry.disputed) == (1000, True)


async def test_disputed_calls_are_counted() -> None:
    """Somebody has to hear of a hold that was too small."""
    limiter = Scripted()
    before = REGISTRY.get_sample_value("assistant_model_calls_disputed_total", {"tenant": "acme", "provider": "demo"})
    metered = await admit(limiter, BUDGET, max_tokens=100)
    metered.sent = True
    _absurd(metered)
    meter(limiter).settle(metered, Outcome.OK, free=False)
    after = REGISTRY.get_sample_value("assistant_model_calls_disputed_total", {"tenant": "acme", "provider": "demo"})
    assert after == (before or 0) + 1


@pytest.mark.parametrize("alias", sorted(lengths.ALIASES))
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_under_a_limit_only_the_providers_own_field_goes_out(alias: str, name: str) -> None:
    """A server that ignores a name would write as much as it likes, one that prefers it more than was held."""
    to = target("demo", Provider(url="http://demo.test/v1", max_tokens_field=name, models=PRICED), None)
    for body, allowed in (({alias: 7}, 7), ({alias: 70, "max_tokens": 50}, 50), ({alias: -1}, 4096), ({alias: "9"}, 9)):
        metered = await admit(Scripted(), BUDGET, to=to, **body)
        assert metered.held is not None
        assert metered.held.output == allowed
        assert {field: bytes(raw) for field, raw in metered.fields.items() if field != "messages"} == {
            name: str(allowed).encode()
        }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"extra_body": {"max_tokens": 9}}, "extra_body.max_tokens"),
        ({"parameters": {"a": [{"maxNewTokens": 9}]}}, "parameters.maxNewTokens"),
        ({"generation_config": {"maxOutputTokens": 9}}, "generation_config.maxOutputTokens"),
        ({"sampling": [{"MAX-LENGTH": 9}]}, "sampling.MAX-LENGTH"),
        ({"x": {"candidateCount": 9}}, "x.candidateCount"),
        ({"x": {"y": "z" * 70_000}}, "x"),
        ({"maximum_tokens": 9}, "maximum_tokens"),
        ({"max_total_tokens": 9}, "max_total_tokens"),
        ({"n_cmpl": 9}, "n_cmpl"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
    ],
)
async def test_other_ways_to_ask_for_more_are_refused_by_name(body: dict[str, Any], param: str) -> None:
    """What might set the length or the number of answers somewhere is not passed on under a limit, at any depth."""
    with pytest.raises(GatewayError) as raised:
        await admit(Scripted(), BUDGET, **body)
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, "field_not_allowed", param)


async def test_names_inside_of_content_mean_nothing() -> None:
    """Schemas, tools and other limits hold names of any kind."""
    schema = {"type": "object", "properties": {"max_tokens": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    body = {"tools": tools, "response_format": schema, "reasoning": {"max_tokens": 5}, "truncate_prompt_tokens": 5}
    metered = await admit(Scripted(), BUDGET, **body, max_prompt_tokens=3, stream_options={"include_usage": True})
    assert set(body) <= set(metered.fields)


async def test_tiers_are_a_closed_set_and_nothing_of_a_request_is_remembered() -> None:
    """Any text might be written there: what it costs nobody knows, and as a key of a cache it would fill memory."""
    books = meter(Scripted())
    for tier in ("x" * 100_000, ["auto"], 5, "platinum", {"a": 1}):
        with pytest.raises(GatewayError) as raised:
            books.price(demo(), "m", fields(service_tier=tier))
        assert (raised.value.status, raised.value.param) == (400, "service_tier")
    for tier in (None, "auto", "default", "Flex"):
        assert books.price(demo(), "m", fields(service_tier=tier)) is not None
    with pytest.raises(GatewayError, match="No price is known for demo/m in the service tier"):
        books.price(demo(), "m", fields(service_tier="priority"))
    assert len(books._prices) == 2


async def test_refusals_cost_nothing_and_are_in_the_ledger() -> None:
    """A provider's no is an entry without tokens; a second settlement of the same call is none."""
    limiter = Scripted()
    metered = await admit(limiter, BUDGET, max_tokens=100)
    metered.sent = True
    books = meter(limiter)
    books.settle(metered, Outcome.PROVIDER_ERROR, free=True)
    books.settle(metered, Outcome.OK, free=False)
    ((_, amount, entry),) = limiter.settled
    assert amount == Amount(0, 0)
    assert (entry.outcome, entry.cost, entry.tokens) == ("provider_error", 0, 0)


async def test_two_calls_of_one_request_id_have_holds_of_their_own() -> None:
    """The caller chooses its request id, so it is not what makes a call unique."""
    first, second = await admit(Scripted(), BUDGET), await admit(Scripted(), BUDGET)
    assert first.id != second.id
    assert first.call.request_id == second.call.request_id


async def test_changed_prices_hold_at_once() -> None:
    """A price is remembered for one state of the catalogue only."""
    books = meter(Scripted())
    before, after = demo(), demo(input_per_million="3")
    assert [books.price(to, "m", {}).rate.input for to in (before, before, after)] == [10**6, 10**6, 3 * 10**6]


async def test_without_redis_limited_calls_are_refused_and_others_are_limited_alone() -> None:
    """No limit in tokens or money can be kept by one process; a rate of requests can, in some form."""
    limiter = Limiter(None)
    with pytest.raises(GatewayError) as raised:
        await admit(limiter, BUDGET, max_tokens=1)
    assert (raised.value.status, raised.value.code) == (503, "limits_unavailable")
    assert raised.value.headers["retry-after"] == "1"
    rate = LimitScope("assistant", "a", 6)
    metered = await admit(limiter, rate)
    assert metered.headers["x-ratelimit-degraded"] == "1"
    found = await asyncio.gather(*(admit(limiter, rate) for _ in range(5)), return_exceptions=True)
    assert [type(one).__name__ for one in found] == ["Metered"] * 4 + ["GatewayError"]


class FakeRedis:
    """Answers `reserve` as the test says; `None` is no answer."""

    available = True

    def __init__(self, *script: list[int] | None) -> None:
        self.script = list(script)
        self.asked: list[tuple[str, str]] = []

    async def run_script(self, _tenant: str, arguments: tuple[Any, ...]) -> list[int]:
        operation, call = arguments[5], arguments[12]
        self.asked.append((operation, call))
        answer = self.script.pop(0) if self.script else [1, 1, 1, 0, 0, 0, 0, 0]
        if answer is None:
            raise UnavailableError("no answer in time")
        return answer


NOW = 1_795_000_000_000_000
HELD = [1, NOW, 5, 6, -1, 0, -1, 100, -1, 0, -1, 100]


async def test_limited_call_asks_again_when_redis_hiccups() -> None:
    """A moment without an answer is not a refusal: the same hold is asked for again, which cannot hold it twice."""
    redis = FakeRedis(None, HELD)
    limiter = Limiter(redis)  # type: ignore[arg-type]
    metered = await admit(limiter, BUDGET, max_tokens=1)
    assert redis.asked == [("reserve", metered.id)] * 2


async def test_hold_of_a_caller_that_left_is_given_back() -> None:
    """What was asked for may have been held although nobody heard the answer."""
    redis = FakeRedis(*[None] * 1000)
    limiter = Limiter(redis)  # type: ignore[arg-type]
    asking = asyncio.create_task(admit(limiter, BUDGET, max_tokens=1))
    await asyncio.sleep(0.01)
    redis.script = []
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await limiter.close(1)
    assert redis.asked[-1] == ("settle", redis.asked[0][1])


async def test_what_redis_does_not_take_is_settled_later() -> None:
    """A settling without an answer is kept, and repeated with the same id until there is one."""
    redis = FakeRedis(None)
    limiter = Limiter(redis)  # type: ignore[arg-type]
    limiter.settle(terms(BUDGET).limits, "c", Amount(1, 1), b"entry")
    await asyncio.sleep(0.01)
    assert limiter.unsettled == 1
    await limiter.close(1)
    assert limiter.unsettled == 0
    assert redis.asked == [("settle", "c")] * 2


async def test_calls_are_refused_rather_than_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """When too many wait to be settled no more are made."""
    monkeypatch.setattr(limiter_module, "MAX_UNSETTLED", 1)
    redis = FakeRedis()
    redis.available = False
    limiter = Limiter(redis)  # type: ignore[arg-type]
    limiter.settle(terms(BUDGET).limits, "c", Amount(1, 1), b"entry")
    with pytest.raises(GatewayError, match="wait to be accounted for"):
        await admit(limiter, LimitScope("assistant", "a", 6))


def test_headers_are_of_the_level_with_the_least_left() -> None:
    """Each kind of limit may bind on another level."""
    both = terms(LimitScope("tenant", "", 600, 5000, 10**6), LimitScope("assistant", "a", 60, 9000, 20_000, "Day"))
    left = (Remaining(99, 5, 100, 900_000), Remaining(9, 5_000_000, 8000, 1))
    windows = Windows((0, 86_400_000_000, 0), (0, 30 * 86_400_000_000, 0))
    assert answers.remaining(both, Admitted(0, left), windows) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "5s",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "86400s",
        "x-budget-limit": "0.020000",
        "x-budget-remaining": "0.000001",
        "x-budget-reset": "86400s",
        "x-budget-currency": "USD",
    }


def test_headers_of_a_refusal_mean_what_those_of_an_answer_mean() -> None:
    """`reset` is when all is there again, `retry-after` when this call may come; both are of one bucket."""
    windows = Windows((0, 86_400_000_000, 0), (0, 30 * 86_400_000_000, 0))
    level = LimitScope("assistant", "a", 600, 5000)
    refused = answers.refusal(terms(level), Refused(level, "requests", 40_000, 600, 0), windows, 0).headers
    assert {name: refused[name] for name in refused if name.startswith(("x-ratelimit", "retry"))} == {
        "retry-after": "1",
        "retry-after-ms": "40",
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "9.94s",
    }
    refused = answers.refusal(
        terms(level), Refused(level, "tokens", 5_000_000, 5000, 4990), windows, 400_000_000
    ).headers
    assert (refused["retry-after"], refused["x-ratelimit-reset-tokens"]) == ("5", "86000s")


def test_refusal_that_will_never_fit_says_so() -> None:
    """Waiting does not help a call that is larger than the whole limit; clients are told not to repeat it."""
    windows = Windows((0, 86_400_000_000, 0), (0, 30 * 86_400_000_000, 0))
    error = answers.refusal(terms(BUDGET), Refused(BUDGET, "budget", None, 1_000_000, 0), windows, 0)
    assert (error.status, error.code) == (429, "budget_exhausted")
    assert error.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.headers
    assert "more than the whole limit" in error.message


@pytest.mark.parametrize(
    ("data", "model"),
    [
        (b'data: {"id":"1","model":"gpt-4.1-2025"}', "gpt-4.1-2025"),
        (b'{"choices":[{"message":{"content":"\\"model\\":\\"x\\""}}],"model" : "real"}', "real"),
        (b'{"choices":[]}', None),
    ],
)
def test_model_that_answered_is_read_from_the_answer(data: bytes, model: str | None) -> None:
    """Names in the model's own text are not taken for it."""
    assert answered_by(data) == model
