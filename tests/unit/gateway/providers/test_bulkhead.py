"""Who may call a provider now: breaker, pauses, places, and whose failures count for whom."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping

import pytest

from assistant_gateway.errors import GatewayError, provider_rate_limited
from assistant_gateway.providers.breaker import BreakerSettings, State
from assistant_gateway.providers.bulkhead import Bulkhead, Bulkheads, Permit
from assistant_gateway.providers.catalog import Provider, Target, target
from assistant_observability import metrics

_TENANTS = itertools.count()
FAST = BreakerSettings(min_calls=2, open_seconds=10)


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def demo(name: str = "demo", url: str = "http://demo.test/v1", *, own: bool = False, **settings: object) -> Target:
    """Return a provider whose breaker opens at the second failure."""
    return target(name, Provider(url=url, **({"breaker": FAST} | settings)), None, own=own)


async def enter(bulkhead: Bulkhead, model: str = "m", seconds: float = 5, tenant: str = "") -> Permit:
    """Enter, with plenty of time; each time for another tenant, if the test does not say for which."""
    return await bulkhead.enter(model, asyncio.get_running_loop().time() + seconds, tenant or str(next(_TENANTS)))


async def fail(bulkhead: Bulkhead, times: int, code: str = "provider_error") -> None:
    """Make calls that end so."""
    for _ in range(times):
        (await enter(bulkhead)).leave(code)


@pytest.mark.parametrize("code", ["provider_unreachable", "provider_timeout", "provider_error"])
async def test_faults_open(code: str) -> None:
    """A provider that cannot be reached, is too slow or fails is left alone, and whoever asks is told how long."""
    bulkhead = Bulkhead(demo(), Clock())
    await fail(bulkhead, 2, code)
    with pytest.raises(GatewayError) as raised:
        await enter(bulkhead)
    assert (raised.value.status, raised.value.code, raised.value.retry_after) == (503, "provider_unavailable", 10)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "context_length_exceeded",
        "provider_unauthorized",
        "provider_model_not_found",
        "provider_rate_limit_exceeded",
        "provider_quota_exhausted",
        "provider_answer_too_large",
        "shutting_down",
        None,
    ],
)
async def test_refusals_do_not_open(code: str | None) -> None:
    """What one tenant's request or model name can cause must not close a provider for all."""
    bulkhead = Bulkhead(demo(), Clock())
    await fail(bulkhead, 50, code)
    assert bulkhead.breaker.state is State.CLOSED
    assert bulkhead.running == 0


async def test_head_of_an_answer_ends_a_trial_and_its_end_still_counts() -> None:
    """A long stream does not keep others out of a provider that answers again; if it breaks off, that is a failure."""
    clock = Clock()
    bulkhead = Bulkhead(demo(), clock)
    await fail(bulkhead, 2)
    clock.now += 10
    trial = await enter(bulkhead)
    with pytest.raises(GatewayError):
        await enter(bulkhead)
    trial.answered()
    assert bulkhead.breaker.state is State.CLOSED
    (await enter(bulkhead)).leave("")
    trial.leave("provider_error")
    assert bulkhead.breaker.state is State.OPEN


async def test_permit_is_left_once() -> None:
    """Leaving twice gives no second place back."""
    bulkhead = Bulkhead(demo(concurrency=1), Clock())
    permit = await enter(bulkhead)
    permit.leave("")
    permit.leave("provider_error")
    assert bulkhead.running == 0
    assert bulkhead.breaker.counted == (1, 0)


async def test_pause_is_of_one_model_and_ends() -> None:
    """A provider's `Retry-After` keeps calls of that model away until then, and no others."""
    clock = Clock()
    bulkhead = Bulkhead(demo(), clock)
    (await enter(bulkhead)).refused(provider_rate_limited("demo", "slow down", 7))
    assert bulkhead.breaker.state is State.CLOSED
    clock.now += 2.5
    with pytest.raises(GatewayError) as raised:
        await enter(bulkhead)
    assert (raised.value.status, raised.value.code, raised.value.retry_after) == (
        429,
        "provider_rate_limit_exceeded",
        5,
    )
    await enter(bulkhead, "other")
    clock.now += 5
    await enter(bulkhead)


async def test_no_pause_is_for_hours_and_an_answer_ends_it() -> None:
    """A provider that asks for a day is asked again in a minute; one that answers is not waited for."""
    clock = Clock()
    bulkhead = Bulkhead(demo(), clock)
    permit = await enter(bulkhead)
    permit.refused(provider_rate_limited("demo", "slow down", 86_400))
    clock.now += 61
    await enter(bulkhead)
    permit.refused(provider_rate_limited("demo", "slow down", 30))
    permit.answered()
    await enter(bulkhead)


async def test_places_are_given_in_order_and_never_more_than_there_are() -> None:
    """Whoever waits gets the next place, before those who come later."""
    bulkhead = Bulkhead(demo(concurrency=2), Clock())
    first, second = await enter(bulkhead), await enter(bulkhead)
    order: list[int] = []

    async def wait(number: int) -> Permit:
        permit = await enter(bulkhead)
        order.append(number)
        return permit

    waiting = [asyncio.create_task(wait(number)) for number in range(2)]
    await asyncio.sleep(0)
    first.leave("")
    late = asyncio.create_task(wait(2))
    second.leave("")
    for task in waiting:
        (await task).leave("")
    (await late).leave("")
    assert order == [0, 1, 2]
    assert bulkhead.running == 0


async def test_a_tenant_at_its_share_waits_and_others_do_not() -> None:
    """Places are left for the next tenant, however many calls one has; and for a third, when two want all they get."""
    bulkhead = Bulkhead(demo(concurrency=8, queue_seconds=0.02), Clock())

    async def take_all(tenant: str) -> None:
        while True:
            await enter(bulkhead, tenant=tenant)

    for greedy in ("a", "b"):
        with pytest.raises(GatewayError) as raised:
            await take_all(greedy)
        assert raised.value.code == "provider_busy"
    assert bulkhead.running < 8
    await enter(bulkhead, tenant="c", seconds=0)


async def test_whoever_waits_is_served_in_turn_between_tenants() -> None:
    """A tenant with a long queue does not hold up one that came later."""
    bulkhead = Bulkhead(demo(concurrency=4), Clock())
    held = [await enter(bulkhead, tenant=tenant) for tenant in ("a", "a", "b", "c")]
    order: list[str] = []

    async def wait(tenant: str) -> None:
        await enter(bulkhead, tenant=tenant)
        order.append(tenant)

    waiting = [asyncio.create_task(wait(tenant)) for tenant in ("a", "a", "a", "d")]
    await asyncio.sleep(0)
    for permit in held[:2]:
        permit.leave("")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert "d" in order
    for task in waiting:
        task.cancel()


async def test_wait_is_short_and_ends_in_a_refusal() -> None:
    """Nobody waits for a place longer than the catalogue says, nor beyond the request's own deadline."""
    bulkhead = Bulkhead(demo(concurrency=1, queue_seconds=0.05), Clock())
    held = await enter(bulkhead)
    for seconds in (5, 0):
        with pytest.raises(GatewayError) as raised:
            await enter(bulkhead, seconds=seconds)
        assert (raised.value.status, raised.value.code, raised.value.retry_after) == (503, "provider_busy", 1)
    held.leave("")
    await enter(bulkhead)
    assert bulkhead.running == 1


async def test_queue_is_no_longer_than_the_line_ahead() -> None:
    """Under a flood most are refused at once instead of all of them late."""
    bulkhead = Bulkhead(demo(concurrency=1, queue_seconds=5), Clock())
    await enter(bulkhead)
    waiting = asyncio.create_task(enter(bulkhead))
    await asyncio.sleep(0)
    with pytest.raises(GatewayError):
        await enter(bulkhead)
    waiting.cancel()


@pytest.mark.parametrize("woken", [True, False])
async def test_whoever_gives_up_waiting_takes_no_place(woken: bool) -> None:
    """A client that hangs up while it waits, even in the moment its turn comes, leaves the place to others."""
    bulkhead = Bulkhead(demo(concurrency=1), Clock())
    held = await enter(bulkhead)
    waiting = asyncio.create_task(enter(bulkhead))
    await asyncio.sleep(0)
    if woken:
        held.leave("")
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    held.leave("")
    assert bulkhead.running == 0
    await enter(bulkhead)


async def test_breaker_that_opens_sends_those_who_wait_away() -> None:
    """A place of a provider that has just failed is no use, and is not lost."""
    bulkhead = Bulkhead(demo(concurrency=2, breaker=BreakerSettings(min_calls=2)), Clock())
    first, second = await enter(bulkhead), await enter(bulkhead)
    waiting = asyncio.create_task(enter(bulkhead))
    await asyncio.sleep(0)
    first.leave("provider_error")
    second.leave("provider_error")
    with pytest.raises(GatewayError, match="failed too often"):
        await waiting
    assert bulkhead.running == 0


def test_own_endpoints_have_a_bulkhead_per_tenant_and_url() -> None:
    """One tenant's broken server closes nothing for another, nor for another server of the same tenant."""
    bulkheads = Bulkheads(dict, Clock())
    one, other = (demo("endpoint", f"http://{host}.test/v1", own=True) for host in "ab")
    bulkhead = bulkheads.bulkhead("acme", one)
    assert bulkhead is bulkheads.bulkhead("acme", one)
    assert bulkhead is not bulkheads.bulkhead("zeta", one)
    assert bulkhead is not bulkheads.bulkhead("acme", other)
    bulkheads.forget("acme")
    assert bulkhead is not bulkheads.bulkhead("acme", one)


async def test_reloaded_catalogue_keeps_what_is_known_and_drops_what_is_gone() -> None:
    """New settings hold at once for the same provider; at another address it begins anew; metrics go with it."""
    now: Mapping[str, Target] = {"demo": demo(), "gone": demo("gone")}
    bulkheads = Bulkheads(lambda: now, Clock())
    bulkhead, gone = bulkheads.bulkhead("acme", now["demo"]), bulkheads.bulkhead("acme", now["gone"])
    await fail(bulkhead, 2)
    assert metrics.PROVIDER_BREAKER.labels("demo")._value is not None
    assert b'breaker_state{provider="gone"} 0.0' in metrics.exposition(metrics.GATEWAY)[0]
    now = {"demo": demo(concurrency=1)}
    assert bulkheads.bulkhead("acme", now["demo"]) is bulkhead
    assert bulkhead.target.settings.concurrency == 1
    assert b'breaker_state{provider="demo"} 2.0' in metrics.exposition(metrics.GATEWAY)[0]
    assert b'breaker_state{provider="gone"}' not in metrics.exposition(metrics.GATEWAY)[0]
    now = {"demo": demo(url="http://elsewhere.test/v1")}
    moved = bulkheads.bulkhead("acme", now["demo"])
    assert moved.breaker.state is State.CLOSED
    assert gone.breaker.state is State.CLOSED
