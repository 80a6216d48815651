"""What becomes of calls when Redis is slow, refuses one of them, or is away: billed once, at no neighbour's cost."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator

import pytest
from limiter_world import limiter_of, until
from redis.asyncio import Redis as Client

from assistant_cluster import stores
from assistant_gateway.errors import GatewayError
from assistant_gateway.limits import limiter as limiter_module
from assistant_gateway.limits.limit_scope import Amount, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.quota import Admitted
from assistant_gateway.limits.redis import UnavailableError
from assistant_observability import metrics

NOTHING = Amount(0, 0)


@pytest.fixture
def own_store() -> Iterator[stores.Redis]:
    """A Redis that a test may stop."""
    with stores.redis() as store:
        yield store


def terms_of(*, assistant: int | None = 600, tokens: int | None = None, bounded: bool = False) -> LimitSet:
    """Limits of a new tenant's assistant: a rate of requests, and tokens per day if that is said."""
    tenant = f"t_{uuid.uuid4().hex[:10]}"
    levels = [LimitScope("tenant", tokens=tokens), LimitScope("assistant", "a", assistant)]
    return LimitSet.of(f"ns-{tenant}", tenant, "UTC", levels, assistant="a")


async def entries(store: stores.Redis, terms: LimitSet) -> list[bytes]:
    """Return the entries of the tenant's stream."""
    async with Client.from_url(store.gateway_url, protocol=2, driver_info=None) as client:
        return [fields[b"entry"] for _, fields in await client.xrange(str(terms.limits.keys[4]))]


def admitted_alone(terms: LimitSet) -> float:
    """Return the metric of one tenant."""
    return metrics.LIMIT_ADMITTED_ALONE.labels(terms.namespace)._value.get()


async def test_a_call_whose_question_got_no_answer_is_billed_once(own_store) -> None:
    """Redis holds a call and its answer is lost: the call is made under local rates, and billed when Redis is back."""
    terms = terms_of()
    async with limiter_of(own_store) as limiter:
        assert isinstance(await limiter.reserve(terms, "first", NOTHING), Admitted)
        limiter.settle(terms.limits, "first", Amount(5, 50), b"first")
        await until(lambda: not limiter.unsettled)
        own_store.server.pause()  # what is asked now is answered when Redis goes on
        headers = await limiter.reserve(terms, "slow", NOTHING)
        assert isinstance(headers, dict)
        assert headers["x-ratelimit-degraded"] == "1"
        own_store.server.resume()
        await until(lambda: not limiter.degraded)
        limiter.settle(terms.limits, "slow", Amount(7, 70), b"slow")
        await until(lambda: not limiter.unsettled)
        assert await entries(own_store, terms) == [b"first", b"slow"]
        usage = await limiter._quota.usage(terms.limits)
        assert (usage["tenant"].tokens, usage["tenant"].cost, usage["tenant"].entries) == (12, 120, 2)
        assert (usage["tenant"].held_tokens, usage["tenant"].held_cost) == (0, 0)
        assert admitted_alone(terms) == 1


async def test_a_call_that_is_not_made_leaves_no_hold(own_store) -> None:
    """Redis holds a call and its answer is lost: where the call is refused for that, what is held comes back."""
    terms = terms_of(tokens=1000)
    async with limiter_of(own_store) as limiter:
        assert isinstance(await limiter.reserve(terms, "first", NOTHING), Admitted)
        own_store.server.pause()
        with pytest.raises(GatewayError) as refused:
            await limiter.reserve(terms, "refused", Amount(600, 0))
        assert refused.value.status == 503
        own_store.server.resume()
        await until(lambda: not limiter.degraded and not limiter.unsettled)
        assert isinstance(await limiter.reserve(terms, "next", Amount(900, 0)), Admitted)
        assert admitted_alone(terms) == 0


async def test_a_call_that_redis_refuses_stops_nobody_else(own_store) -> None:
    """One tenant's counters are damaged: its calls get no answer, everybody else's are counted in Redis as before."""
    broken, whole = terms_of(), terms_of()
    async with limiter_of(own_store) as limiter:
        assert isinstance(await limiter.reserve(whole, "first", NOTHING), Admitted)
        async with Client.from_url(own_store.gateway_url, protocol=2, driver_info=None) as client:
            await client.set(str(broken.limits.keys[1]), "no hash")
        for number in range(20):
            asked = [limiter.reserve(terms, f"{number}-{terms.namespace}", NOTHING) for terms in (broken, whole)]
            alone, counted = await asyncio.gather(*asked)
            assert isinstance(alone, dict)
            assert isinstance(counted, Admitted)
            assert not limiter.degraded
        for number in range(20):
            for terms in (broken, whole):
                limiter.settle(terms.limits, f"{number}-{terms.namespace}", Amount(1, 1), b"entry")
        await until(lambda: limiter.unsettled == 20)
        assert len(await entries(own_store, whole)) == 20
        async with Client.from_url(own_store.gateway_url, protocol=2, driver_info=None) as client:
            await client.delete(str(broken.limits.keys[1]))
        await until(lambda: not limiter.unsettled)
        assert len(await entries(own_store, broken)) == 20


async def test_a_user_without_the_rights_means_that_redis_is_away(own_store) -> None:
    """What refuses every call alike is an outage: nobody else asks until it is mended."""
    terms = terms_of()
    async with limiter_of(own_store) as limiter:
        async with Client.from_url(own_store.operator_url, protocol=2, driver_info=None) as client:
            await client.execute_command("ACL SETUSER", "gateway", "-hmget")
        with contextlib.suppress(UnavailableError):
            await limiter._quota.reserve(terms.limits, "a", NOTHING, 1000)
        assert limiter.degraded


async def test_what_waits_for_redis_is_bounded_for_each_tenant(own_store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant with too many calls that wait to be billed is refused; the others go on."""
    monkeypatch.setattr(limiter_module, "MAX_UNSETTLED_PER_TENANT", 3)
    many, few = terms_of(), terms_of()
    async with limiter_of(own_store) as limiter:
        for terms in (many, few):
            assert isinstance(await limiter.reserve(terms, "first", NOTHING), Admitted)
        own_store.server.pause()
        for number in range(3):
            assert isinstance(await limiter.reserve(many, f"m{number}", NOTHING), dict)
            limiter.settle(many.limits, f"m{number}", NOTHING, b"entry")
        with pytest.raises(GatewayError) as refused:
            limiter.ensure_room(many)
        assert refused.value.status == 503
        with pytest.raises(GatewayError):
            await limiter.reserve(many, "m3", NOTHING)
        assert isinstance(await limiter.reserve(few, "f", NOTHING), dict)
        own_store.server.resume()
        await until(lambda: not limiter.degraded and not limiter.unsettled)
        assert isinstance(await limiter.reserve(many, "again", NOTHING), Admitted)
        assert await entries(own_store, many) == [b"entry"] * 3
