"""An operator that is killed at any write leaves something that the next one finishes.

A write is refused before it happens: that is also a crash right after the write before it. Every write of a
tenant's making, of a change and of its tear-down gets its turn, in the cluster and in each store. As a rule they get it
in the life of one tenant whose operators die one after another; TEST_LONG=1 has a tenant for each crash.
"""

import asyncio
import os
import re
from dataclasses import replace

import pytest
from operator_context import connect
from operator_world import Node, all_objects

from assistant_operator.errors import NotLeaderError
from assistant_operator.reconcile.run import reconcile

LONG = os.environ.get("TEST_LONG") == "1"
SIDE_BY_SIDE = 4
SAMPLE = (0, 9)  # of the crashes with a tenant of their own, where not all are tried


class KilledError(NotLeaderError):
    """The operator is gone: of all errors this kind alone is no step's to catch, so that the run ends at once."""


class Countdown:
    """A guard that refuses the write number `at`, and every later one."""

    def __init__(self, at):
        self.left = at

    def __call__(self):
        self.left -= 1
        if self.left < 0:
            raise KilledError


async def run_until_killed(world, at):
    """Return whether the operator was killed before it had nothing more to write."""
    async with connect(world.settings, world.pod_port, guard=Countdown(at)) as context:
        context.cluster._guard = lambda: None  # a write to the cluster counts once: as it is sent
        try:
            await world.settle(context)
        except KilledError:
            return True
        return False


async def shape_of(world, context):
    """Return everything the operator makes, without what is random or named after the tenant."""
    key = await world.tenant_key()
    objects = await all_objects(world.cluster, world.namespace)
    kept = {
        name: {part: obj[part] for part in ("spec", "automountServiceAccountToken") if part in obj}
        for name, obj in objects.items()
    }
    for volatile in ("clusterIP", "clusterIPs"):
        kept["Service", "assistant-api"]["spec"].pop(volatile, None)
    text = repr(sorted(kept.items())).replace(world.namespace, "<namespace>").replace(world.settings.namespace, "<p>")
    text = re.sub(r"'assistantplatform.io/credentials': '[0-9a-f]+'", "", text)
    stores = [
        *await context.postgres.leftovers(key),
        *await context.redis.leftovers(key),
        *await context.weaviate.leftovers(key),
    ]
    return text, sorted(re.sub("_[0-9a-f]{9}$", "_<base>", name.replace(key, "<tenant>")) for name in stores)


@pytest.mark.timeout(600)
async def test_every_crash_converges(world):
    """Whatever write the operator is killed before, the next one arrives at the same tenant, and removes all of it."""
    shapes, made, removed = [], 0, 0
    for first in range(0, 1000, SIDE_BY_SIDE) if LONG else SAMPLE[:1]:
        crashes = range(first, first + SIDE_BY_SIDE) if LONG else SAMPLE
        lives = await asyncio.gather(*(life(world, at) for at in crashes))
        shapes += [shape for shape, _, _ in lives]
        made += sum(killed for _, killed, _ in lives)
        removed += sum(killed for _, _, killed in lives)
        if not any(making or removing for _, making, removing in lives):
            break
    print(f"crashes: {made} while making, {removed} while removing")
    assert made > 20 if LONG else made == len(SAMPLE)
    assert removed > 15 if LONG else removed == len(SAMPLE)
    assert all(shape == shapes[0] for shape in shapes)


@pytest.mark.timeout(300)
async def test_operators_that_die_one_after_another_arrive_in_the_end(world):
    """Each brings the tenant forward by a single write: to the same as without a crash, and to nothing in the end."""
    (whole, *_), (shape, made, removed) = await asyncio.gather(life(world, 1000), life(world, None))
    print(f"crashes: {made} while making, {removed} while removing")
    assert made > 20
    assert removed > 15
    assert shape == whole


async def life(world, at):
    """Make and remove a tenant; return its shape, and how often the operator was killed while making and removing it.

    It is killed once before write `at`; where that is None, again and again, see `die_in_turn`.
    """
    here = await another(world, "turns" if at is None else at)
    async with (
        Node(here.cluster, here.namespace, here.pod_port).run() as node,
        connect(here.settings, here.pod_port) as successor,
    ):
        here.node = node
        await here.assistant()
        await here.knowledge_base()
        killed = [await die_in_turn(here, successor) if at is None else int(await run_until_killed(here, at))]
        await here.settle(successor)
        assert await here.is_ready("Assistant", "support"), f"killed before write {at}"
        assert await here.is_ready("KnowledgeBase", "handbook"), f"killed before write {at}"
        shape, key = await shape_of(here, successor), await here.tenant_key()
        await here.delete("Assistant", "support")
        await here.delete("KnowledgeBase", "handbook")
        killed.append(await die_in_turn(here, successor) if at is None else int(await run_until_killed(here, at)))
        await here.settle(successor)
        assert await here.leftovers(successor, key) == [], f"killed before write {at}"
    return shape, *killed


async def die_in_turn(world, context):
    """Return how many operators died, each after as few writes as led to something new, before one finished."""
    died, writes, seen = 0, 1, set()
    while await run_until_killed(world, writes):
        died += 1
        state = frozenset(await world.leftovers(context, await world.tenant_key()))
        writes = writes + 1 if state in seen else 1
        seen.add(state)
    return died


async def another(world, suffix):
    """Return the world with a fresh namespace."""
    fresh = replace(world, namespace=f"{world.namespace}-{suffix}")
    await fresh.make_namespace(fresh.namespace)
    return fresh


async def test_a_run_that_is_cancelled_anywhere_is_finished_by_the_next(world, context):
    """A run that is cut off after a random while, as on a lost lease, does no harm."""
    await world.assistant()
    await world.knowledge_base()
    for milliseconds in (5, 15, 40, 80, 150, 250, 400, 600):
        task = asyncio.create_task(reconcile(world.namespace, context))
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await world.settle(context)
    assert await world.is_ready("Assistant", "support")
    assert await world.is_ready("KnowledgeBase", "handbook")
