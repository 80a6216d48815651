"""A hostile tenant does everything that it can, at full rate, and its neighbour notices nothing.

The platform's processes are real: gateway, operator, two tenants' APIs and workers, Postgres, Redis, Weaviate and an
API server. Quiet and attacked windows alternate in one run, so that whatever else the machine does meets both alike.
It takes ten minutes; `test_gateway_neighbours.py` and `tests/e2e/test_neighbours.py` are what each commit is held to.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from gateway_world import Cluster
from neighbour_attacker import ATTACKS, GROUPS
from neighbour_honest import Honest, Samples, slowdown
from neighbour_world import ATTACKER_NICE, TenantPods, World, peak_mebibytes, platform, start_attackers

from assistant_cluster.server import free_ports

PAIRS = 30  # of windows
WINDOW_SECONDS = 5.0
SLOWDOWN = 1.5
GATEWAY_MEBIBYTES = 200
SCOPES = 20
VALUES = Path(__file__).parents[3] / "charts" / "assistant-platform" / "values.yaml"
HONEST, HOSTILE = "honest", "hostile"
OWN = ("big-answer", "endless", "nested-usage", "silent")  # what the hostile tenant's own server can do


@pytest.fixture
async def world(cluster: Cluster, kube: Any, tmp_path: Path) -> AsyncIterator[World]:
    """The platform without tenants."""
    async with platform(cluster, kube.kubeconfig, tmp_path) as world:
        yield world


def memory_limit(*path: str) -> float:
    """Return the memory limit of a container of the chart in MiB."""
    values = yaml.safe_load(VALUES.read_text())
    for name in path:
        values = values[name]
    number, unit = re.fullmatch(r"(\d+)([MG])i", values["resources"]["limits"]["memory"]).groups()
    return int(number) * {"M": 1, "G": 1024}[unit]


def apply_tenants(world: World) -> None:
    """Make both tenants: the honest one with limits that are counted, the hostile one with whatever it may have."""
    embedding = {"provider": "demo", "dimensions": 16}
    limits = {"tokensPerDay": 50_000_000, "requestsPerMinute": 6000}
    budget = {"amount": "100.00", "currency": "USD", "period": "Month"}
    make = world.resource
    own = {"url": f"http://localhost:{world.ports['endpoint']}/v1"}
    hostile = {"provider": "demo", "name": "hostile-chat"}
    for name in (HONEST, HOSTILE):
        world.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    chat = {"provider": "demo", "name": "honest-chat"}
    resources = [
        make(HONEST, "Tenant", HONEST, {"limits": {**limits, "budget": budget}}),
        make(HONEST, "KnowledgeBase", "handbook", {"embedding": {**embedding, "name": "honest-embed"}}),
        make(HONEST, "Assistant", "plain", {"model": chat}),
        make(HONEST, "Assistant", "support", {"model": chat, "knowledgeBases": [{"name": "handbook"}]}),
        make(HOSTILE, "Tenant", HOSTILE, {"limits": {"requestsPerMinute": 60_000, "tokensPerDay": 10**9}}),
        make(HOSTILE, "KnowledgeBase", "notes", {"embedding": {**embedding, "name": "hostile-embed"}}),
        *(make(HOSTILE, "Assistant", f"scope-{number}", {"model": hostile}) for number in range(SCOPES)),
        make(HOSTILE, "Assistant", "poor", {"model": hostile, "limits": {"tokensPerDay": 1}}),
        *(make(HOSTILE, "Assistant", name, {"model": {"endpoint": own, "name": name}}) for name in OWN),
    ]
    for begin in range(0, len(resources), 8):  # a busy machine takes its time over each
        world.cluster.apply(*resources[begin : begin + 8])


def attacker_of(world: World, pods: TenantPods) -> dict[str, Any]:
    """Return what the hostile tenant's pods are given."""
    return {
        "gateway_url": world.gateway.url,
        "token": world.cluster.token(HOSTILE),
        "api_url": pods.api.url,
        "api_key": pods.api_key,
        "redis_url": pods.secret["redis_url"],
        "postgres_dsn": pods.secret["postgres_dsn"],
        "assistants": [f"scope-{number}" for number in range(SCOPES)],
        "own": {name: name for name in OWN},
        "poor": "poor",
        "knowledge_base": "notes",
    }


def peaks(world: World) -> dict[str, float]:
    """Return the most memory in MiB that each shared part ever held."""
    pids = {"gateway": world.gateway.process.pid, "operator": world.children["operator"].process.pid}
    return {name: peak_mebibytes(pid) for name, pid in {**pids, **world.stores.processes}.items() if name != "postgres"}


def nothing_ended(world: World, before: dict[str, int], *tenants: TenantPods) -> None:
    """Every process is the one that was started."""
    for child in (world.gateway.process, world.children["operator"].process):
        assert child.returncode is None
    assert world.stores.processes == before
    assert "terminated by signal" not in world.stores.postgres.server.log.read_text(errors="replace")
    assert all(process.poll() is None for pods in tenants for process in (pods.api.process, pods.worker.process))


@pytest.mark.long
@pytest.mark.timeout(600 + PAIRS * 40)
async def test_a_hostile_tenant_costs_its_neighbour_nothing(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    """No error, an exact bill, the usual latency; nothing restarts, and memory stays within its limits."""
    (port,) = free_ports(1)
    await world.start_gateway(port)
    apply_tenants(world)
    await world.start_operator(port, [HONEST, HOSTILE])
    pods = await world.start_pods(HONEST, 2)
    hostile = await world.start_pods(HOSTILE, SCOPES + len(OWN) + 1, nice=ATTACKER_NICE)
    attackers = await start_attackers(world, attacker_of(world, hostile))
    before = world.stores.processes
    quiet: Samples = []
    attacked: Samples = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as client:
        honest = Honest(pods.api.url, pods.api_key, client, f"http://127.0.0.1:{world.ports['provider']}")
        await honest.upload()
        await honest.wait_ingested()
        await honest.window(3)
        assert not honest.errors
        async with honest.ingesting():
            for number in range(PAIRS):
                quiet += await honest.window(WINDOW_SECONDS)
                async with attackers.attacking(*GROUPS[number % len(GROUPS)]):
                    attacked += await honest.window(WINDOW_SECONDS)
        await honest.wait_ingested()
        await world.bill_is_exact(pods.key, "honest-chat", "honest-embed")
    ratio, held = slowdown(quiet, attacked), peaks(world)
    machine = slowdown(quiet, attacked, machine=True)
    record_property("p99 under attack / p99", f"{ratio:.2f}")
    record_property("peaks in MiB", ", ".join(f"{name} {value:.0f}" for name, value in held.items()))
    print(f"slowdown {ratio:.2f}, past the platform {machine:.2f}, asked again {dict(honest.asked_again)}")
    print(f"peaks {held}, attacks {attackers.seen}")
    assert not honest.errors
    assert len(honest.documents) > PAIRS
    nothing_ended(world, before, pods, hostile)
    assert attackers.seen.keys() >= {attack.__name__ for attack in ATTACKS}, "an attack did nothing"
    assert not attackers.seen.keys() & {"broken attacks", "late to stop"}
    assert held["gateway"] <= GATEWAY_MEBIBYTES
    assert held["operator"] <= memory_limit("operator")
    assert held["redis"] <= memory_limit("embedded", "redis")
    assert held["weaviate"] <= memory_limit("embedded", "weaviate")
    assert ratio <= SLOWDOWN * max(1.0, machine)
