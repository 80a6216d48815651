"""Tenants with thousands of assistants, used-up limits as every gateway tells them, and what a gone one leaves."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator

import msgspec
import pytest
from limiter_world import limiter_of, until
from redis.asyncio import Redis as Client

from assistant_cluster import stores
from assistant_crds import naming
from assistant_gateway.errors import GatewayError
from assistant_gateway.limits import limiter as limiter_module
from assistant_gateway.limits.limit_scope import Amount, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import Admitted, Quota, Refused, Totals
from assistant_gateway.limits.windows import Windows

NOTHING = Amount(0, 0)
MANY = 9000  # more than Lua could unpack at once


@pytest.fixture(scope="module")
def store() -> Iterator[stores.Redis]:
    with stores.redis() as found:
        yield found


def quota_of(limiter: Limiter) -> Quota:
    assert limiter._quota is not None
    return limiter._quota


def terms_of(tenant: str = "", *, tokens: int | None = None, rate: int | None = None) -> LimitSet:
    tenant = tenant or f"t_{uuid.uuid4().hex[:10]}"
    levels = [LimitScope("tenant", tokens=tokens), LimitScope("assistant", "a", rate)]
    return LimitSet.of(f"ns-{tenant}", tenant, "UTC", levels, assistant="a")


def totals(count: int) -> list[Totals]:
    return [Totals("tenant", count, count, count, count, count, count, count)] + [
        Totals(f"assistant:a{number}", 1, 1, 1, 1, 1, 1, 1) for number in range(count)
    ]


async def test_a_tenant_with_thousands_of_assistants_holds_up_nobody(store: stores.Redis) -> None:
    """Its counters are restored and asked for in pages, while each call of a neighbour is counted in Redis."""
    large, small = terms_of(), terms_of(tokens=10**9)
    async with limiter_of(store) as limiter:
        quota = quota_of(limiter)
        assert isinstance(await limiter.reserve(small, "first", NOTHING), Admitted)
        ending = asyncio.Event()

        async def neighbour() -> int:
            count = 0
            while not ending.is_set():
                assert isinstance(await limiter.reserve(small, f"n{count}", NOTHING), Admitted)
                limiter.settle(small.limits, f"n{count}", Amount(1, 0), b"entry")
                count += 1
                await asyncio.sleep(0.001)
            return count

        calls = asyncio.create_task(neighbour())
        assert await quota.restore(large.limits, 1, "0-0", totals(MANY))
        found = await quota.usage(large.limits)
        assert len(found) == MANY + 1
        assert found["assistant:a77"].counted.day_tokens == 1
        assert set(await quota.usage(large.limits, ["tenant", "assistant:a7"])) == {"tenant", "assistant:a7"}
        assert await quota.epoch(large.limits) == 1
        ending.set()
        made = await calls
        await until(lambda: not limiter.unsettled)
        assert (await quota.usage(small.limits))["tenant"].tokens == made
        assert limiter._redis is not None
        assert limiter._redis.available


async def test_a_restore_in_pages_keeps_holds_and_lets_one_caller_finish(store: stores.Redis) -> None:
    """Nothing is admitted before the last page; calls under way count after it; after an entry it begins anew."""
    terms = terms_of()
    async with limiter_of(store) as limiter:
        quota = quota_of(limiter)
        assert await quota.restore(terms.limits, 1, "0-0", [])
        await quota.reserve(terms.limits, "under way", Amount(70, 7), 60_000_000)
        await quota.invalidate(terms.limits)
        page = [value for total in totals(2)[:2] for value in msgspec.structs.astuple(total)]
        other = [value for total in totals(2)[2:] for value in msgspec.structs.astuple(total)]
        assert (await quota._ask(terms.limits, "begin", "5", ["0-0", *page]))[0] == 1
        assert not await quota.epoch(terms.limits)
        assert (await quota._ask(terms.limits, "finish", "4", ["0-0", *other]))[0] == 0  # it began another one
        await quota.renew(terms.limits, "another", Amount(30, 3), 60_000_000)
        assert (await quota._ask(terms.limits, "finish", "5", ["0-0", *other]))[0] == 1
        usage = await quota.usage(terms.limits)
        assert (usage["tenant"].held_tokens, usage["tenant"].held_cost, usage["tenant"].tokens) == (100, 10, 2)
        assert usage["assistant:a1"].tokens == 1
        await quota.invalidate(terms.limits)
        assert (await quota._ask(terms.limits, "begin", "6", ["0-0", *page]))[0] == 1
        await quota.settle(terms.limits, "another", Amount(1, 1), b"entry")
        assert (await quota._ask(terms.limits, "finish", "6", ["0-0", *other]))[0] == 0
        assert not await quota.epoch(terms.limits)


async def test_counters_of_assistants_that_are_no_more_go(store: stores.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a hold, or was used this month, stays; where there are very many of them, only what has a hold."""
    terms = terms_of()
    gone = [Totals(f"assistant:g{number}", 0, 0, 0, 0, 1, 1, 1) for number in range(5)]
    used = [Totals(f"assistant:u{number}", 0, 0, 1, 1, 1, 1, 1) for number in range(5)]
    levels = {level.field: level for level in terms.limits.levels}
    async with limiter_of(store) as limiter:
        quota = quota_of(limiter)
        assert await quota.restore(terms.limits, 1, "0-0", [*totals(0), *gone, *used])
        held = terms_of(terms.limits.tenant).limits
        held = msgspec.structs.replace(held, fields=("tenant", "assistant:u0"))
        await quota.renew(held, "under way", Amount(1, 1), 60_000_000)
        await limiter.drop_scopes(terms.limits, levels)
        assert set(await quota.scopes(terms.limits)) == {"tenant", *(total.field for total in used)}
        monkeypatch.setattr(limiter_module, "MAX_SCOPES_GONE", 3)
        await limiter.drop_scopes(terms.limits, levels)
        assert set(await quota.scopes(terms.limits)) == {"tenant", "assistant:u0"}


async def test_every_gateway_tells_the_same_of_a_limit_that_is_used_up(store: stores.Redis) -> None:
    """One refuses a call that the rest does not fit; both say so, until the limit is raised or its window is over."""
    terms = terms_of(tokens=1000)
    levels = {level.field: level for level in terms.limits.levels}

    async def told(limiter: Limiter, tokens: int) -> list[str]:
        raised = levels | {"tenant": LimitScope("tenant", tokens=tokens)}
        usage = await limiter.usage(terms, raised)
        assert usage is not None
        return usage.tenant.exhausted

    async with limiter_of(store) as one, limiter_of(store) as two:
        answer = await one.reserve(terms, "a", Amount(400, 0))
        assert isinstance(answer, Admitted)
        one.settle(terms.limits, "a", Amount(400, 0), b"entry")
        await until(lambda: not one.unsettled)
        for call, amount in (("b", 900), ("c", 590)):
            answer = await one.reserve(terms, call, Amount(amount, 0))
            if isinstance(answer, Refused):
                message = one.refusal(terms, answer).message
                assert "has used 400 tokens of its limit of 1000 tokens per day; 600 tokens left" in message
                await until(lambda: not one._notes)
            else:
                one.settle(terms.limits, call, Amount(590, 0), b"entry")
                await until(lambda: not one.unsettled)
            # A call that asks for nearly all is no reason to call a limit used up of which more than half is left.
            assert [await told(limiter, 1000) for limiter in (one, two)] == (
                [[], []] if call == "b" else [["tokens"]] * 2
            )
        assert await told(two, 2000) == []
        noted = (await quota_of(two).noted(terms.limits, ["tenant"]))["tenant"]
        assert (noted.tokens, noted.tokens_until) == (
            1000,
            Windows.at(terms.limits.zone, time.time_ns() // 1000).day[1],
        )


async def test_lost_counters_are_not_shown_as_nothing_used(store: stores.Redis) -> None:
    """A Redis that lost a tenant's counters: they are restored from the ledger before anybody is told of them."""
    terms = terms_of(tokens=1000)
    levels = {level.field: level for level in terms.limits.levels}
    async with limiter_of(store) as limiter:
        await limiter.reserve(terms, "a", NOTHING)
        await quota_of(limiter).invalidate(terms.limits)
        usage = await limiter.usage(terms, levels)
        assert usage is not None
        assert await quota_of(limiter).epoch(terms.limits)


async def test_a_call_that_ends_after_its_tenant_is_gone_leaves_no_key(store: stores.Redis) -> None:
    """Its entry stays until the ledger has it; then nothing of the tenant is left in Redis."""
    terms = terms_of(rate=600)
    pattern = f"{naming.quota_prefix(terms.limits.tenant)}*"
    async with limiter_of(store) as limiter, Client.from_url(store.operator_url, driver_info=None) as operator:

        async def keys() -> list[bytes]:
            return [key async for key in operator.scan_iter(match=pattern)]

        assert isinstance(await limiter.reserve(terms, "late", NOTHING), Admitted)
        limiter.forget(terms.limits.tenant)
        await operator.unlink(*await keys())
        limiter.settle(terms.limits, "late", Amount(1, 1), b"entry")
        async with asyncio.timeout(20):
            while await keys() != [str(terms.limits.keys[4]).encode()]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with Client.from_url(store.gateway_url, protocol=2, driver_info=None) as drain:
            stream = str(terms.limits.keys[4])
            await drain.xdel(stream, *(name for name, _ in await drain.xrange(stream)))
        async with asyncio.timeout(20):
            while await keys():  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_entries_that_wait_for_the_ledger_are_bounded(store: stores.Redis) -> None:
    """A tenant with too many is refused, or everybody where all have too many; calls under way are settled."""
    many, few = terms_of(rate=600), terms_of(rate=600)
    async with limiter_of(store) as limiter:
        assert isinstance(await limiter.reserve(many, "under way", NOTHING), Admitted)
        limiter.note_waiting({many.limits.tenant: limiter_module.MAX_WAITING_PER_TENANT, few.limits.tenant: 1})
        with pytest.raises(GatewayError) as refused:
            await limiter.reserve(many, "more", NOTHING)
        assert (refused.value.status, refused.value.code) == (503, "limits_unavailable")
        assert isinstance(await limiter.reserve(few, "few", NOTHING), Admitted)
        limiter.settle(many.limits, "under way", Amount(1, 1), b"entry")
        await until(lambda: not limiter.unsettled)
        limiter.note_waiting({"others": limiter_module.MAX_WAITING})
        with pytest.raises(GatewayError):
            limiter.ensure_room(few)
        limiter.note_waiting({})
        assert isinstance(await limiter.reserve(many, "again", NOTHING), Admitted)


async def test_refused_calls_have_a_rate_of_their_own(store: stores.Redis) -> None:
    """A tenant that is out of tokens and asks in a loop is refused without a question to Redis; a neighbour is not."""
    terms, other = terms_of(tokens=10), terms_of(tokens=10)
    async with limiter_of(store) as limiter:
        asked, codes = 0, set()
        for number in range(100):
            try:
                answer = await limiter.reserve(terms, f"r{number}", Amount(11, 0))
            except GatewayError as error:
                codes.add(error.code)
            else:
                assert isinstance(answer, Refused)
                limiter.refusal(terms, answer)
                asked += 1
        assert asked < 40
        assert codes == {"tokens_exhausted"}
        assert isinstance(await limiter.reserve(other, "o", Amount(1, 0)), Admitted)
