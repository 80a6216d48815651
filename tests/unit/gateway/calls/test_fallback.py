"""Who is asked next, who is not, when a request is sent again, and what a client is told in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from assistant_gateway import errors
from assistant_gateway.calls import retry
from assistant_gateway.calls.fallback import Attempt, Fallback
from assistant_gateway.calls.relay import Result
from assistant_gateway.calls.retry import delay_before, retrying
from assistant_gateway.errors import GatewayError
from assistant_gateway.metering.call import Outcome
from assistant_gateway.providers.breaker import BreakerSettings, State
from assistant_gateway.providers.bulkhead import Bulkheads
from assistant_gateway.providers.catalog import Provider, Target, target
from assistant_gateway.tenants.routing import Destination
from assistant_observability import metrics

GOOD = Result(cast("web.StreamResponse", None), Outcome.OK)


def provider(name: str, **settings: Any) -> Target:
    """Return a provider that is opened by one failure."""
    fields = {"breaker": BreakerSettings(min_calls=1, failure_share=1)} | settings
    return target(name, Provider(url=f"http://{name}.test/v1", **fields), None)


def to(name: str, *, allowed: bool = True) -> Destination:
    """Return the model `m` of a provider."""
    raw = msgspec.Raw(b'"m"')
    return Destination(name="support", tenant="acme", model="m", model_json=raw, provider=name, allowed=allowed)


class World:
    """Three providers, and what they do."""

    def __init__(self, script: Mapping[str, GatewayError | Result], **settings: Any) -> None:
        self.targets = {name: provider(name, **settings) for name in ("one", "two", "three")}
        self.bulkheads = Bulkheads(lambda: self.targets)
        self.attempts = Fallback(self.bulkheads, lambda: self.targets)
        self.script = script
        self.asked: list[str] = []
        self.first: list[bool] = []

    async def attempt(self, made: Attempt) -> Result:
        """Do as the script says; errors with `early` come before the call was admitted."""
        self.asked.append(made.to.provider)
        self.first.append(made.first)
        does = self.script.get(made.to.provider, GOOD)
        made.admitted = not getattr(does, "early", False)
        if made.admitted:
            made.headers = {**made.headers, made.to.provider: "1"}
        if isinstance(does, GatewayError):
            raise does
        return does

    async def run(self, *names: str | Destination) -> Result:
        """Ask for an answer of one of these."""
        return await self.attempts.run([to(n) if isinstance(n, str) else n for n in names], self.attempt)


def early(error: GatewayError) -> GatewayError:
    """Return an error that comes before anyone was asked."""
    cast("Any", error).early = True
    return error


def refused(code: str, status: int = 429) -> GatewayError:
    """Return a refusal of the gateway's own."""
    return GatewayError(status, code, code)


ELSEWHERE = [
    errors.provider_unreachable("one", "x", unsent=True),
    errors.provider_timeout("one", "x"),
    errors.provider_timeout("one", "x").paid(),
    errors.provider_error("one", "x"),
    errors.provider_error("one", "x", code="provider_model_not_found"),
    errors.provider_unauthorized("one", own=False),
    errors.provider_rate_limited("one", "x", 5),
    errors.provider_quota_exhausted("one", own=False),
]
ITS_OWN = [
    errors.invalid_request("x"),
    errors.context_too_long("one", "x"),
    errors.content_filtered("one", "x"),
    refused("provider_refused_request", 422),
    refused("shutting_down", 503),
]


@pytest.mark.parametrize("error", ELSEWHERE, ids=lambda error: error.code)
async def test_what_another_may_do_better_goes_on(error: GatewayError) -> None:
    """The next in order is asked, and the fallback is counted by who answered."""
    line = metrics.FALLBACKS.labels("acme", "support", "two", "m")
    before = line._value.get()
    world = World({"one": error})
    assert await world.run("one", "two", "three") is GOOD
    assert world.asked == ["one", "two"]
    assert world.first == [True, False]
    assert line._value.get() == before + 1


@pytest.mark.parametrize("error", ITS_OWN, ids=lambda error: error.code)
async def test_what_is_the_requests_own_fault_ends_it(error: GatewayError) -> None:
    """A request that one provider refuses is not shopped around."""
    world = World({"one": error})
    with pytest.raises(GatewayError) as raised:
        await world.run("one", "two")
    assert raised.value is error
    assert world.asked == ["one"]


async def test_last_that_was_asked_is_quoted() -> None:
    """When nobody answers the client hears of the last who was asked, not of one that was passed over."""
    last = errors.provider_timeout("two", "x")
    world = World({"one": errors.provider_error("one", "x"), "two": last})
    del world.targets["three"]
    with pytest.raises(GatewayError) as raised:
        await world.run("one", "two", "three")
    assert raised.value is last


async def test_open_breaker_is_passed_over() -> None:
    """A provider that has failed too often is not asked; nor does its fallback count as a second call."""
    world = World({"one": errors.provider_error("one", "x")})
    await world.run("one", "two")
    world.asked.clear(), world.first.clear()
    await world.run("one", "two")
    assert (world.asked, world.first) == (["two"], [True])
    with pytest.raises(GatewayError) as raised:
        await world.run("one")
    assert raised.value.code == "provider_unavailable"
    assert raised.value.headers["x-assistant-model"] == "one/m"


async def test_full_provider_is_passed_over_after_a_short_wait() -> None:
    """Another with room answers."""
    world = World({}, concurrency=1, queue_seconds=0.01)
    await world.bulkheads.bulkhead(to("one").tenant, world.targets["one"]).enter(
        "m", asyncio.get_running_loop().time() + 9, "other"
    )
    await world.run("one", "two")
    assert world.asked == ["two"]


async def test_missing_key_or_provider_is_passed_over() -> None:
    """What the platform team has to mend does not keep a fallback from answering."""
    world = World({})
    world.targets["one"] = msgspec.structs.replace(world.targets["one"], missing_key="one")
    await world.run("unknown", "one", "two")
    assert world.asked == ["two"]


async def test_list_of_allowed_models_holds_for_each() -> None:
    """A model the tenant may not use is never asked, be it first or last in order."""
    world = World({"one": errors.provider_error("one", "x")})
    with pytest.raises(GatewayError) as raised:
        await world.run(to("one", allowed=False), "two")
    assert (raised.value.status, raised.value.code) == (403, "model_not_allowed")
    with pytest.raises(GatewayError) as raised:
        await world.run("one", to("two", allowed=False))
    assert raised.value.code == "provider_error"
    assert world.asked == ["one"]


@pytest.mark.parametrize("code", ["budget_exhausted", "tokens_exhausted", "price_unknown", "field_not_allowed"])
async def test_refusal_before_the_first_call_is_final_and_of_a_fallback_is_not(code: str) -> None:
    """A limit is no reason to look for a cheaper model; a fallback that does not fit is passed over for the next."""
    world = World({"one": early(refused(code))})
    with pytest.raises(GatewayError):
        await world.run("one", "two")
    assert world.asked == ["one"]
    world = World({"one": errors.provider_error("one", "x"), "two": early(refused(code))})
    assert await world.run("one", "two", "three") is GOOD
    world = World({"one": (failure := errors.provider_error("one", "x")), "two": early(refused(code))})
    with pytest.raises(GatewayError) as raised:
        await world.run("one", "two")
    assert raised.value is failure


async def test_fallback_that_lacks_a_field_is_passed_over() -> None:
    """What the first provider takes and a translated fallback does not is no fault of the request."""
    lacks = refused("unsupported_parameter", 400)
    world = World({"one": errors.provider_error("one", "x"), "two": lacks})
    assert await world.run("one", "two", "three") is GOOD
    world = World({"one": (failure := errors.provider_error("one", "x")), "two": lacks})
    with pytest.raises(GatewayError) as raised:
        await world.run("one", "two")
    assert raised.value is failure
    with pytest.raises(GatewayError) as raised:
        await world.run("two", "three")
    assert raised.value is lacks


async def test_limit_that_holds_for_all_ends_it() -> None:
    """Too many requests, or nobody who could say what is left, are the same for every model."""
    for code, status in (("rate_limit_exceeded", 429), ("limits_unavailable", 503)):
        world = World({"two": early(refused(code, status))})
        world.targets["one"] = msgspec.structs.replace(world.targets["one"], missing_key="one")
        with pytest.raises(GatewayError) as raised:
            await world.run("one", "two", "three")
        assert raised.value.code == code
        assert world.asked == ["two"]


async def test_rest_of_limits_is_told_of_all_calls() -> None:
    """What the first admission said of request rates stays, the second one's word on tokens and money wins."""
    world = World({"one": errors.provider_error("one", "x")})
    found: list[Mapping[str, str]] = []

    async def attempt(made: Attempt) -> Result:
        try:
            return await world.attempt(made)
        finally:
            found.append(made.headers)

    await world.attempts.run([to("one"), to("two")], attempt)
    assert found[-1] == {"one": "1", "two": "1"}


async def test_after_the_deadline_nobody_else_is_asked() -> None:
    """A request that has taken its time is not started again elsewhere."""
    world = World({"one": errors.provider_timeout("one", "x")}, total_seconds=0.001)

    async def slow(made: Attempt) -> Result:
        await asyncio.sleep(0.01)
        return await world.attempt(made)

    with pytest.raises(GatewayError):
        await world.attempts.run([to("one"), to("two")], slow)
    assert world.asked == ["one"]


@pytest.mark.parametrize("error", [ConnectionResetError(), asyncio.CancelledError()])
async def test_client_that_goes_away_frees_the_place_and_says_nothing_of_the_provider(error: BaseException) -> None:
    """Its call is left, uncounted, and nobody else is asked."""
    world = World({}, concurrency=1)

    async def gone(_made: Attempt) -> Result:
        raise error

    with pytest.raises(type(error)):
        await world.attempts.run([to("one"), to("two")], gone)
    bulkhead = world.bulkheads.bulkhead(to("one").tenant, world.targets["one"])
    assert (bulkhead.running, bulkhead.breaker.counted) == (0, (0, 0))


async def test_address_that_a_rule_of_ours_forbids_opens_no_breaker() -> None:
    """Once the platform allows it, the next call is made: nobody has to wait for a breaker that nothing failed at."""
    world = World({"one": errors.provider_not_allowed("one", "x")})
    with pytest.raises(GatewayError):
        await world.run("one")
    bulkhead = world.bulkheads.bulkhead(to("one").tenant, world.targets["one"])
    assert (bulkhead.breaker.state, bulkhead.breaker.counted) == (State.CLOSED, (0, 0))


async def test_stream_that_broke_off_counts_against_the_provider_but_is_not_made_again() -> None:
    """What has gone out has gone out."""
    broken = Result(GOOD.answer, Outcome.PROVIDER_ERROR, "x", "provider_error")
    world = World({"one": broken})
    assert await world.run("one", "two") is broken
    assert world.asked == ["one"]
    assert world.bulkheads.bulkhead(to("one").tenant, world.targets["one"]).breaker.state is State.OPEN


# --- sending again ---------------------------------------------------------------------------------------------


def limited(after: str | None, status: int = 429) -> GatewayError:
    """Return a provider's 429 or 503."""
    error = errors.provider_rate_limited("one", "x") if status == 429 else errors.provider_error("one", "x")
    if after is not None:
        error.headers["retry-after"] = after
        error.again = True
    return error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (errors.provider_unreachable("one", "refused", unsent=True), True),
        (errors.provider_unreachable("one", "closed the connection"), False),
        (errors.provider_timeout("one", "x"), False),
        (errors.provider_timeout("one", "x").paid(), False),
        (errors.provider_error("one", "x"), False),
        (errors.invalid_request("x"), False),
        (limited("1"), True),
        (limited("0"), True),
        (limited("1", 503), True),
        (limited("3"), False),
        (limited("soon"), False),
        (limited(None), False),
    ],
)
def test_only_what_is_safe_is_sent_again(error: GatewayError, again: bool) -> None:
    """What never arrived, or what the provider turned away and wants to have again soon."""
    assert (delay_before(error, 1) is not None) is again
    assert delay_before(error, retry.TRIES) is None


def test_delays_have_full_jitter_on_top_of_what_the_provider_asks() -> None:
    """Many clients do not come back in the same moment, and never before the provider's word."""
    refused_connection = errors.provider_unreachable("one", "x", unsent=True)
    first = [delay_before(refused_connection, 1) or 0 for _ in range(300)]
    second = [delay_before(refused_connection, 2) or 0 for _ in range(300)]
    assert min(first) < 0.02
    assert 0.08 < max(first) <= 0.1
    assert 0.16 < max(second) <= 0.2
    assert all(1 <= (delay_before(limited("1"), 1) or 0) <= 1.1 for _ in range(100))


class Sender:
    """Fails so often, then answers."""

    def __init__(self, *script: GatewayError) -> None:
        self.script = list(script)
        self.sent = 0

    async def send(self) -> str:
        """Send."""
        self.sent += 1
        if self.script:
            raise self.script.pop(0)
        return "answer"


def made(seconds: float = 60, **settings: Any) -> Attempt:
    """Return an attempt with so much time."""
    noted: list[GatewayError] = []
    permit: Any = SimpleNamespace(refused=noted.append, noted=noted)
    deadline = asyncio.get_running_loop().time() + seconds
    return Attempt(to("one"), provider("one", **settings), permit, deadline, True, {})


async def test_sent_again_until_it_arrives_and_counted() -> None:
    """Two refused connections cost the client nothing but a moment."""
    line = metrics.PROVIDER_RETRIES.labels("one", "unreachable")
    before = line._value.get()
    sender = Sender(*(errors.provider_unreachable("one", "x", unsent=True) for _ in range(2)))
    assert await retrying(made(), sender.send) == "answer"
    assert sender.sent == 3
    assert line._value.get() == before + 2


async def test_sent_so_often_and_no_more() -> None:
    """The last error is told."""
    sender = Sender(*(errors.provider_unreachable("one", "x", unsent=True) for _ in range(9)))
    attempt = made()
    with pytest.raises(GatewayError, match="cannot be reached"):
        await retrying(attempt, sender.send)
    assert sender.sent == retry.TRIES
    assert len(cast("Any", attempt.permit).noted) == retry.TRIES


async def test_no_wait_goes_beyond_the_deadline() -> None:
    """A pause that the request has no time for is not waited out."""
    sender = Sender(limited("2"))
    with pytest.raises(GatewayError):
        await retrying(made(1), sender.send)
    assert sender.sent == 1


async def test_answer_that_does_not_begin_before_the_deadline_is_given_up_and_paid() -> None:
    """The request's own deadline holds where it is shorter than the provider's time to a first byte."""

    async def hang() -> str:
        await asyncio.sleep(60)
        return ""

    with pytest.raises(GatewayError) as raised:
        await retrying(made(0.02, total_seconds=0.02), hang)
    assert (raised.value.status, raised.value.code, raised.value.billed) == (504, "provider_timeout", True)
