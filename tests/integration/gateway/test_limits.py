"""Request rates in a real Redis: shared, exact, and still there in some form when Redis is not."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

from gateway_world import Cluster, Running, policy, running

from assistant_cluster import stores
from assistant_crds.contracts import AssistantPolicy, ModelRoute
from assistant_gateway.ledger.limiter import limiter_with_ledger
from assistant_gateway.limits.limit_scope import Amount, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.quota import SCRIPT, Admitted
from assistant_gateway.limits.redis import Redis


def limited(namespace: str, assistant: int | None, tenant: int | None):
    """Return a policy with a limit on the assistant `good` and on the tenant."""
    route = ModelRoute(model="good", provider="demo")
    assistants = {"good": AssistantPolicy(route=route, requests_per_minute=assistant)}
    assistants["other"] = AssistantPolicy(route=route)
    return policy(namespace, [], assistants=assistants, requests_per_minute=tenant)


async def statuses(ask: Callable, namespace: str, count: int, model: str = "good") -> list[int]:
    """Send requests at once; return their statuses."""

    async def one() -> int:
        async with ask(namespace, model) as answer:
            await answer.read()
            return answer.status

    return sorted(await asyncio.gather(*(one() for _ in range(count))))


async def until_known(ask: Callable, namespace: str) -> None:
    """Wait until the gateway serves the namespace; uses the assistant `other`."""
    async with asyncio.timeout(30):  # as long as a busy machine may take to pass on a policy
        while True:
            async with ask(namespace, "other") as answer:
                await answer.read()
                if answer.status != 404:
                    return
            await asyncio.sleep(0.02)


async def test_assistant_limit_binds_with_a_429_that_says_when(
    cluster: Cluster, gateway: Running, ask: Callable
) -> None:
    """A burst above the limit is refused with OpenAI's class, the limit that binds and the time to come back."""
    cluster.put_policy(limited("limits-assistant", 6, None))
    await until_known(ask, "limits-assistant")
    assert await statuses(ask, "limits-assistant", 8) == [200] * 5 + [429] * 3
    async with ask("limits-assistant", "good") as answer:
        error = (await answer.json())["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert "assistant 'good'" in error["message"]
    assert "6 requests per minute" in error["message"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 10
    assert answer.headers["x-ratelimit-limit-requests"] == "5"  # may come at once
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-ratelimit-degraded" not in answer.headers


async def test_tenant_limit_binds_over_all_assistants(cluster: Cluster, gateway: Running, ask: Callable) -> None:
    """What one assistant uses is missing for the other when the tenant's limit is the tighter one."""
    cluster.put_policy(limited("limits-tenant", 600, 6))
    await until_known(ask, "limits-tenant")  # takes one of five
    assert await statuses(ask, "limits-tenant", 6) == [200] * 4 + [429] * 2
    async with ask("limits-tenant", "other") as answer:
        assert answer.status == 429
        assert "tenant 'limits-tenant'" in (await answer.json())["error"]["message"]


async def test_refused_request_takes_nothing_from_the_other_level(
    cluster: Cluster, gateway: Running, ask: Callable
) -> None:
    """A request that the assistant's limit refuses leaves the tenant's allowance as it was."""
    cluster.put_policy(limited("limits-levels", 2, 6))
    await until_known(ask, "limits-levels")  # takes one of five from the tenant
    assert await statuses(ask, "limits-levels", 10) == [200] * 2 + [429] * 8
    assert await statuses(ask, "limits-levels", 4, "other") == [200] * 2 + [429] * 2


async def test_two_gateways_share_one_limit(
    cluster: Cluster, settings: Callable, gateway: Running, ask: Callable
) -> None:
    """However many gateways there are, together they let through what one would."""
    cluster.put_policy(limited("limits-shared", 6, None))
    await until_known(ask, "limits-shared")
    headers = {"Authorization": f"Bearer {cluster.token('limits-shared')}"}
    body = {"model": "good", "messages": [{"role": "user", "content": "Hi"}]}
    async with running(settings(redis_answer_seconds=5.0)) as second:
        await second.shared()

        async def one(where: Running) -> int:
            async with where.client.post(f"{where.url}/v1/chat/completions", json=body, headers=headers) as answer:
                return answer.status

        found = await asyncio.gather(*(one(where) for _ in range(20) for where in (gateway, second)))
    assert sorted(found).count(200) in {5, 6}  # one more when ten seconds pass meanwhile


async def test_raised_limit_holds_at_once(cluster: Cluster, gateway: Running, ask: Callable) -> None:
    """A tenant that has used up its limit may go on as soon as the limit is raised."""
    cluster.put_policy(limited("limits-raised", 2, None))
    await until_known(ask, "limits-raised")
    assert await statuses(ask, "limits-raised", 4) == [200] * 2 + [429] * 2
    cluster.put_policy(limited("limits-raised", 6000, None))
    async with asyncio.timeout(20):  # less than the half minute after which one more would be let through
        while await statuses(ask, "limits-raised", 1) != [200]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await statuses(ask, "limits-raised", 4) == [200] * 4


async def test_embeddings_count_as_requests(cluster: Cluster, gateway: Running, ask: Callable) -> None:
    """What a pod sends to be embedded is bounded by the tenant's rate as well, and uses it up for chats."""
    cluster.put_policy(limited("limits-embed", None, 6))
    headers = {"Authorization": f"Bearer {cluster.token('limits-embed')}"}
    body = {"model": "handbook", "input": "x"}
    await until_known(ask, "limits-embed")  # takes one of five
    found = []
    for _ in range(7):
        async with gateway.client.post(f"{gateway.url}/v1/embeddings", json=body, headers=headers) as answer:
            found.append((answer.status, (await answer.json()).get("error", {}).get("code")))
    assert found[:4] == [(200, None)] * 4
    assert (429, "rate_limit_exceeded") in found
    assert 429 in await statuses(ask, "limits-embed", 5)


async def test_redis_away_means_local_limits_soon_and_shared_ones_after(
    cluster: Cluster, settings: Callable, ask: Callable
) -> None:
    """Without Redis requests go on under local limits, are marked and counted, and cost at most one time-out."""
    with stores.redis() as store:
        async with running(settings(redis_url=store.gateway_url)) as gateway:
            cluster.put_policy(limited("limits-away", 6, None))
            headers = {"Authorization": f"Bearer {cluster.token('limits-away')}"}
            body = {"model": "good", "messages": [{"role": "user", "content": "Hi"}]}

            async def one() -> tuple[int, bool, float]:
                started = time.monotonic()
                url = f"{gateway.url}/v1/chat/completions"
                async with gateway.client.post(url, json=body, headers=headers) as answer:
                    await answer.read()
                    degraded = answer.headers.get("x-ratelimit-degraded") == "1"
                    return answer.status, degraded, time.monotonic() - started

            async def until(wanted: int, marked: bool) -> None:
                async with asyncio.timeout(5):
                    while (await one())[:2] != (wanted, marked):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)

            before = await gateway.metric("assistant_limit_degraded_total")
            await until(429, marked=False)
            store.server.pause()  # hangs: the worst way to be away
            counted = await gateway.metric("assistant_limit_degraded_total")
            burst = 4 - int(counted - before)  # a busy Redis that was late once has cost a local request already
            first = await one()
            assert first[:2] == (200, True)
            assert first[2] < 0.6
            rest = [await one() for _ in range(6)]
            assert [status for status, _, _ in rest] == [200] * burst + [429] * (6 - burst)
            assert all(degraded for _, degraded, _ in rest)
            assert sorted(seconds for *_, seconds in rest)[3] < 0.1
            assert await gateway.metric("assistant_limit_degraded_total") == counted + 7
            async with gateway.client.get(f"{gateway.operations}/readyz") as answer:
                assert answer.status == 200
                assert "away" in (await answer.json())["checks"]["redis"]
            store.server.resume()
            await until(429, marked=False)


async def test_redis_that_lost_the_script_is_taught_again() -> None:
    """A Redis that forgot its scripts answers the very next call."""
    with stores.redis() as store:
        redis = Redis(store.gateway_url, SCRIPT, answer_seconds=2)
        following = asyncio.create_task(redis.run())
        limiter = limiter_with_ledger(redis)
        terms = LimitSet.of("t", "t_1", "UTC", [LimitScope("assistant", "a", 60)], assistant="a")
        while not redis.available:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert isinstance(await limiter.reserve(terms, "first", Amount(0, 0)), Admitted)
        store.server.stop()
        store.server.start()
        async with asyncio.timeout(5):
            while not isinstance(await limiter.reserve(terms, uuid.uuid4().hex, Amount(0, 0)), Admitted):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        following.cancel()
        await redis.close()
