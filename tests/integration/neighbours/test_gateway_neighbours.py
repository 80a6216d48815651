"""A hostile tenant attacks a gateway in every way; beside it runs a twin that nobody attacks, on the same machine.

An honest tenant asks both at the same moments. What a busy machine does to its requests meets both alike; what is
slower at the attacked gateway is what the gateway lets one tenant do to another.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway_world import Cluster, own_endpoint, policy
from neighbour_attacker import ANSWERS, CALLS
from neighbour_honest import Honest
from neighbour_world import Attackers, World, peak_mebibytes, start_attackers, twins

from assistant_cluster import stores
from assistant_crds.contracts import AssistantPolicy, Budget, ModelRoute

HONEST, HOSTILE = "gateway-honest", "gateway-hostile"
GROUPS = {"calls": CALLS, "answers": ANSWERS, "all": (*CALLS, *ANSWERS)}
ROUNDS = 12 if os.environ.get("TEST_LONG") == "1" else 2  # windows of each
SPARE = 4  # more of them, for those in which the machine starves everybody
WINDOW_SECONDS = 3.0
# The promise is 1.5, which TEST_LONG=1 asserts; 1.2 to 1.5 was seen at p99, 1.1 at p90 (docs/figures.md). Two windows
# of each kind are too few for a 99th percentile on a machine that does much else: `make test` leaves room for that.
SLOWDOWN = 1.5 if os.environ.get("TEST_LONG") == "1" else 3.0
GATEWAY_MEBIBYTES = 200
SCOPES = 20
OWN = ("big-answer", "endless", "nested-usage", "silent")


def apply_policies(cluster: Cluster, own: str) -> str:
    """Write both tenants' policies; return the honest one's key."""
    limits = {"tokens_per_day": 10**9, "requests_per_minute": 60_000}
    budget = Budget(amount_micros=10**9, currency="USD", period="Month")
    routes = {
        name: ModelRoute(model=model, provider="demo")
        for name, model in (("plain", "honest-chat"), ("twin", "twin-chat"))
    }
    assistants = {name: AssistantPolicy(route=route) for name, route in routes.items()}
    honest = cluster.put_policy(policy(HONEST, [], assistants=assistants, budget=budget, **limits))
    hostile = ModelRoute(model="hostile-chat", provider="demo")
    assistants = {f"scope-{number}": AssistantPolicy(route=hostile) for number in range(SCOPES)}
    assistants["poor"] = AssistantPolicy(route=hostile, tokens_per_day=1)
    assistants |= {name: own_endpoint(own, name) for name in OWN}
    cluster.put_policy(policy(HOSTILE, [], assistants=assistants, **limits))
    return honest.tenant.key


def attacker_of(world: World) -> dict[str, Any]:
    """Return what a tenant's pods have for the gateway."""
    return {
        "gateway_url": world.gateway.url,
        "token": world.cluster.token(HOSTILE),
        "assistants": [f"scope-{number}" for number in range(SCOPES)],
        "own": {name: name for name in OWN},
        "poor": "poor",
        "knowledge_base": "handbook",
        **dict.fromkeys(("api_url", "api_key", "redis_url", "postgres_dsn"), ""),
    }


@dataclass
class Window:
    """What the honest tenant saw at both gateways at the same time, in seconds."""

    attacked: list[float]
    twin: list[float]
    refused: int  # requests at the attacked gateway, for a while or for good
    starved: bool  # the machine left too little even to the gateway that nobody attacks

    def slowdown(self, part: float) -> float:
        """Return a quantile at the attacked gateway over that at its twin."""

        def quantile(samples: list[float]) -> float:
            return sorted(samples)[math.ceil(len(samples) * part) - 1]

        return quantile(self.attacked) / quantile(self.twin)


def together(windows: list[Window]) -> Window:
    """Return several windows as one."""
    attacked, twin = ([seconds for one in windows for seconds in getattr(one, side)] for side in ("attacked", "twin"))
    return Window(attacked, twin, sum(one.refused for one in windows), starved=False)


class Pair:
    """An honest tenant's users, who ask both gateways at the same moments."""

    def __init__(self, client: aiohttp.ClientSession, token: str, attacked: World, twin: World) -> None:
        self.attacked, self.twin = (
            Honest(world.gateway.url, token, client, kinds=("chat", "stream"), plain=plain)
            for world, plain in ((attacked, "plain"), (twin, "twin"))
        )

    async def window(self) -> Window:
        """Ask for a while."""
        before = self.attacked.refusals, self.twin.refusals
        here, there = await asyncio.gather(*(one.window(WINDOW_SECONDS) for one in (self.attacked, self.twin)))
        refused, starved = self.attacked.refusals - before[0], self.twin.refusals > before[1]
        return Window([one[1] for one in here], [one[1] for one in there], refused, starved)


async def attack(pair: Pair, attackers: Attackers) -> dict[str, Window]:
    """Return what was seen under each group of attacks, all its windows together.

    A window in which the machine starves both gateways says nothing of either, and is measured again.
    """
    found: dict[str, Window] = {}
    for name, group in GROUPS.items():
        windows: list[Window] = []
        for _ in range(ROUNDS + SPARE):
            async with attackers.attacking(*group):
                windows.append(await pair.window())
            good = [window for window in windows if not window.starved]
            if len(good) == ROUNDS:
                break
        assert good, "the machine is too busy: a gateway that nobody attacks refuses calls in each window"
        found[name] = together(good)
    return found


@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_a_hostile_tenant_takes_no_gateway_from_its_neighbour(
    cluster: Cluster,
    postgres: stores.Postgres,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """No call is refused, the bill is exact, memory is bounded, and answers come as from a gateway nobody attacks."""
    async with twins(cluster, postgres, tmp_path) as (attacked, twin):
        key = apply_policies(cluster, f"http://localhost:{attacked.ports['endpoint']}/v1")
        attackers = await start_attackers(attacked, attacker_of(attacked))
        before = attacked.stores.processes
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as client:
            pair = Pair(client, cluster.token(HONEST), attacked, twin)
            await pair.window()  # connections, caches
            found = await attack(pair, attackers)
        peak = peak_mebibytes(attacked.gateway.process.pid)
        slowdowns = {name: round(window.slowdown(0.9), 2) for name, window in found.items()}
        slowest = round(together(list(found.values())).slowdown(0.99), 2)
        print(f"p99 over the twin's {slowest}, p90 {slowdowns}; peak {peak:.0f} MiB; {attackers.seen}")
        whole = together(list(found.values()))
        for side, samples in (("attacked", sorted(whole.attacked)), ("twin", sorted(whole.twin))):
            shown = {part: round(1000 * samples[math.ceil(len(samples) * part) - 1], 1) for part in (0.5, 0.9, 0.99)}
            print(f"{side}: {len(samples)} answers, ms at each part of them: {shown}")
        print(f"refused: {dict(pair.attacked.asked_again)}, at the twin {dict(pair.twin.asked_again)}")
        record_property("p99 over p99 at a gateway nobody attacks", slowest)
        record_property("gateway's peak in MiB", round(peak))
        await attacked.bill_is_exact(key, "honest-chat")
        assert attacked.gateway.process.returncode is None
        assert attacked.stores.processes == before
    assert attackers.seen.keys() >= {*CALLS, *ANSWERS}, "an attack did nothing"
    assert not attackers.seen.keys() & {"broken attacks", "late to stop"}
    assert {name: window.refused for name, window in found.items()} == dict.fromkeys(GROUPS, 0), pair.attacked.errors
    assert peak <= GATEWAY_MEBIBYTES
    assert slowest <= SLOWDOWN
    assert max(slowdowns.values()) <= SLOWDOWN, slowdowns  # an attack that hurts in its windows alone
