"""One tenant does all it can to bring the gateway down: memory stays within bounds, and another tenant is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from gateway_hostile import Attacks, hostile_server, resident_mebibytes
from gateway_processes import Started, process
from gateway_provider import Provider
from gateway_world import PLATFORM, Cluster, own_endpoint, policy

HOSTILE, HONEST = "hostile", "honest"
MOST_MEBIBYTES = 200
ATTACK_SECONDS = 12.0


@pytest.fixture
async def own() -> AsyncIterator[str]:
    """The hostile tenant's server."""
    async with hostile_server() as url:
        yield url


@pytest.fixture
async def gateway(cluster: Cluster, settings: Callable, upstream: Provider, own: str) -> AsyncIterator[Started]:
    """A gateway process, with a tenant under limits that has servers of its own, and one that only wants answers."""
    assistants = policy(HOSTILE, ["good"]).assistants
    assistants |= {name: own_endpoint(f"{own}/{name}/v1") for name in ("endless", "huge")}
    assistants |= {f"list-{number}": own_endpoint(f"{own}/list/{number}/v1", f"x{number}") for number in range(24)}
    cluster.put_policy(policy(HOSTILE, [], assistants=assistants, tokens_per_day=10**12))
    cluster.put_policy(policy(HONEST, ["good"], tokens_per_day=10**12))
    made = settings()
    text = made.catalog_file.read_text()
    text = text.replace("allowHosts: []", 'allowHosts: ["127.0.0.1"]').replace("Seconds: 0.", "Seconds: 10.")
    made.catalog_file.write_text(text)
    async with process(made) as started:
        yield started


async def test_nothing_that_one_tenant_sends_takes_the_gateway_from_another(cluster: Cluster, gateway: Started) -> None:
    """All attacks at once: the process stays below its bound, lives on, and answers every call of the other tenant."""
    probe = f"{gateway.url}/internal/v1/tenants/{HOSTILE}/probe"
    attacks = Attacks(gateway.url, cluster.token(HOSTILE), probe, cluster.token(PLATFORM, "assistant-operator"))
    async with attacks.running():
        statuses, seconds = await honest_calls(cluster, gateway)
    peak = resident_mebibytes(gateway.process.pid, "VmHWM")
    print(f"peak {peak:.0f} MiB; {len(statuses)} calls of the other tenant, slowest {max(seconds):.2f} s")
    print(f"answers to the hostile one: {dict(attacks.statuses)}")
    assert set(statuses) == {200}
    assert gateway.process.returncode is None
    assert peak <= MOST_MEBIBYTES
    assert {413, 429} <= set(attacks.statuses)


async def honest_calls(cluster: Cluster, gateway: Started) -> tuple[list[int], list[float]]:
    """Call as the other tenant for a while; return the statuses and how long each call took."""
    headers = {"Authorization": f"Bearer {cluster.token(HONEST)}"}
    loop = asyncio.get_running_loop()
    statuses: list[int] = []
    took: list[float] = []
    until = loop.time() + ATTACK_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as client:
        while loop.time() < until:
            body = {"model": "good", "messages": [{"role": "user", "content": "Hi"}], "stream": bool(len(took) % 2)}
            began = loop.time()
            async with client.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as answer:
                await answer.read()
                statuses.append(answer.status)
            took.append(loop.time() - began)
            await asyncio.sleep(0.02)
    return statuses, took
