"""Readiness waits for what is needed, health tells what is missing, neither tells where it lives."""

from __future__ import annotations

import asyncio
import time

import pytest
from api_world import FakeStore, World, client_of, document, make_world

from assistant_api.clients import Clients
from assistant_api.gateway import GatewayError
from assistant_api.health.service import Health


def health_of(world: World) -> Health:
    """One that remembers nothing yet, of what is around the application."""
    return Health(Clients(world.gateway, world.database, world.redis, world.weaviate), world.config)  # type: ignore[arg-type]


async def eventually_ready(health: Health) -> None:
    async with asyncio.timeout(3):
        while health.readiness().status != "ready":  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_process_is_ready_once_everything_needed_has_answered(world: World) -> None:
    """The generation served is part of the answer."""
    health = health_of(world)
    assert health.readiness().status == "not_ready"
    await health.start()
    await eventually_ready(health)
    assert health.readiness().config_generation == world.config.generation
    assert health.readiness().checks == {"configuration": "ok", "gateway": "ok", "postgres": "ok", "weaviate": "ok"}
    await health.stop()


async def test_it_is_not_ready_while_a_needed_store_is_away_and_heals_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollout with a wrong credential must not replace a working pod."""
    monkeypatch.setattr("assistant_api.health.service.STARTUP_INTERVAL_SECONDS", 0.02)
    world.weaviate.error = OSError("Connect call failed ('10.1.2.3', 8080)")
    health = health_of(world)
    await health.start()
    async with asyncio.timeout(3):
        while world.weaviate.pings < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    readiness = health.readiness()
    assert readiness.status == "not_ready"
    assert readiness.checks["weaviate"] == "unreachable"
    world.weaviate.error = None
    await eventually_ready(health)
    await health.stop()


async def test_a_store_that_no_assistant_needs_is_not_waited_for(world: World) -> None:
    """Without knowledge bases only the gateway counts."""
    world.config.replace(document(knowledge_bases=[], assistants=[]))
    world.weaviate.error = world.database.error = OSError("down")
    health = health_of(world)
    await health.start()
    await eventually_ready(health)
    assert set(health.readiness().checks) == {"configuration", "gateway"}
    await health.stop()


async def test_a_later_outage_does_not_take_the_process_out_of_service(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller who is told what is missing is better off than one whose connection is refused."""
    monkeypatch.setattr("assistant_api.health.service.CACHE_TTL_SECONDS", 0.05)
    health = health_of(world)
    await health.start()
    await eventually_ready(health)
    world.weaviate.error = OSError("down")
    world.gateway.down = True
    await asyncio.sleep(0.06)  # no answer is remembered any longer
    assert (await health.detailed()).status == "unhealthy"
    assert health.readiness().status == "ready"
    assert health.readiness().checks["weaviate"] == "unreachable"
    await health.stop()


async def test_a_stopping_process_is_not_ready(world: World) -> None:
    """Endpoints drop the pod while its streams run on."""
    health = health_of(world)
    await health.start()
    await eventually_ready(health)
    health.drain()
    assert health.readiness().status == "not_ready"
    assert health.readiness().checks["shutdown"] == "in progress"
    assert health.basic().status == "unhealthy"
    await health.stop()


async def test_a_broken_configuration_is_told_while_the_former_is_served(world: World) -> None:
    """The operator reads here why its newest document is not in use."""
    health = health_of(world)
    await health.start()
    await eventually_ready(health)
    world.config.problem = "tenant.json is not a valid configuration: x"
    assert health.readiness().status == "ready"
    assert health.readiness().checks["configuration"] == world.config.problem
    await health.stop()


async def test_without_a_configuration_nothing_is_ready() -> None:
    """The probe answers 503 and says what is missing."""
    world = make_world(configured=False)
    async with client_of(world, key=None) as client:
        ready = await client.get("/readyz")
        basic = await client.get("/health")
    assert ready.status_code == basic.status_code == 503
    assert ready.json() == {
        "status": "not_ready",
        "configGeneration": "",
        "checks": {"configuration": "not loaded yet"},
    }


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError("Connect call failed ('10.1.2.3', 5432)"), "unreachable"),
        (TimeoutError(), "timeout"),
        (GatewayError(401, "invalid_api_key", "bad token"), "refused"),
        (type("InvalidPasswordError", (Exception,), {})("user t_1 at 10.1.2.3"), "refused"),
    ],
)
async def test_a_failure_is_one_word(error: Exception, problem: str) -> None:
    """What a client's exception says (addresses, users) stays in the log."""
    world = make_world()
    world.database.error = error
    async with client_of(world, key=None) as client:
        one = await client.get("/health/postgres")
        whole = await client.get("/health/detailed")
    assert one.status_code == 503
    assert one.json()["error"] == problem
    assert whole.json()["checks"]["postgres"]["error"] == problem
    assert "10.1.2.3" not in one.text + whole.text


@pytest.mark.parametrize(
    ("down", "status", "code"),
    [([], "healthy", 200), (["redis"], "degraded", 200), (["gateway"], "unhealthy", 503)],
)
async def test_the_whole_is_as_healthy_as_its_parts(down: list[str], status: str, code: int) -> None:
    """Without the gateway no question is answered; without a store, some are."""
    world = make_world()
    world.gateway.down = "gateway" in down
    world.redis.error = OSError() if "redis" in down else None
    async with client_of(world, key=None) as client:
        answer = await client.get("/health/detailed")
    assert answer.status_code == code
    assert answer.json()["status"] == status
    assert set(answer.json()["checks"]) == {"gateway", "postgres", "redis", "weaviate"}
    assert all(check["response_ms"] >= 0 for check in answer.json()["checks"].values())


async def test_a_store_that_hangs_costs_its_time_out_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others are not kept waiting for it."""
    monkeypatch.setattr("assistant_api.health.service.PING_TIMEOUT_SECONDS", 0.2)
    world = make_world()
    world.redis.seconds = 60
    started = time.perf_counter()
    async with client_of(world, key=None) as client:
        answer = await client.get("/health/detailed")
    assert time.perf_counter() - started < 1
    assert answer.json()["checks"]["redis"]["error"] == "timeout"
    assert answer.json()["checks"]["postgres"]["status"] == "healthy"


async def test_many_callers_ask_a_store_once() -> None:
    """Health is public: asking it often must not burden the stores."""
    world = make_world()  # its health remembers nothing yet
    world.database.seconds = 0.05
    async with client_of(world, key=None) as client:
        await asyncio.gather(*(client.get("/health/postgres") for _ in range(20)))
    assert world.database.pings == 1


async def test_the_basic_answer_asks_nobody(world: World) -> None:
    """It is there in no time, whatever the stores do."""
    stores: list[FakeStore] = [world.database, world.redis, world.weaviate]
    for store in stores:
        store.seconds = 60
    async with client_of(world, key=None) as client:
        started = time.perf_counter()
        answer = await client.get("/health")
    assert time.perf_counter() - started < 0.1
    assert answer.json() == {"status": "healthy", "service": "assistant-api"}
    assert [store.pings for store in stores] == [0, 0, 0]


async def test_an_unknown_dependency_is_404(world: World) -> None:
    """There are exactly four."""
    async with client_of(world, key=None) as client:
        assert (await client.get("/health/mysql")).status_code == 404
