"""Two operators: one leads, whatever becomes of the other, and who led once writes nothing afterwards."""

import asyncio
import itertools
import json
import os
import signal

import pytest
from operator_process import operator_process
from operator_world import eventually

REPEATS = 100 if os.environ.get("TEST_LONG") == "1" else 2
# Two interpreters import the operator, which takes each several seconds of the processor.
START_SECONDS = 120
_numbers = itertools.count()


@pytest.fixture
async def two(world, kube, tmp_path):
    """Run two operators, the leading one first."""
    async with (
        operator_process(world, kube, "operator-a", tmp_path) as first,
        operator_process(world, kube, "operator-b", tmp_path) as second,
    ):

        async def leader():
            for one in (first, second):
                if await one.leads():
                    return one
            return None

        leads = await eventually(leader, START_SECONDS)
        yield [leads, second if leads is first else first]


async def holder(world):
    lease = await world.cluster.get("Lease", world.settings.lease_name, world.settings.namespace)
    return lease["spec"]


async def writes(kube, user, since):
    """Return what the user wrote from `since` on (as the API server writes times), but to Leases."""
    lines = (await asyncio.to_thread(kube.audit_log.read_bytes)).splitlines()
    events = [json.loads(line) for line in lines if user.encode() in line]
    return [
        (event["verb"], event["objectRef"])
        for event in events
        if event["user"]["username"] == user
        and event["verb"] not in {"get", "list", "watch"}
        and event["objectRef"]["resource"] != "leases"
        and event["requestReceivedTimestamp"] >= since
    ]


async def some_work(world):
    """Give the leader something to do for a while."""
    for _ in range(4):
        await world.assistant(f"a{next(_numbers)}", instructions="Be brief.")


@pytest.mark.timeout(START_SECONDS + 120 * REPEATS)
async def test_a_stopped_leader_writes_nothing_once_another_leads(world, kube, two):
    """Stopped in the midst of its work for longer than its Lease and let go again, it finds another and stands by."""
    for _ in range(REPEATS):
        zombie, other = two
        await some_work(world)
        zombie.send(signal.SIGSTOP)
        try:
            await eventually(other.leads)
            taken = (await holder(world))["acquireTime"]
            await some_work(world)
        finally:
            zombie.send(signal.SIGCONT)

        async def stands_by(zombie=zombie):
            return zombie.process.returncode is None and not await zombie.leads()

        await eventually(stands_by)
        newest = f"a{next(_numbers)}"
        await world.assistant(newest)
        await eventually(lambda newest=newest: world.is_ready("Assistant", newest))
        assert await other.leads()
        assert await writes(kube, zombie.user, taken) == []
        assert await writes(kube, other.user, taken)
        two.reverse()


@pytest.mark.timeout(START_SECONDS + 120)
async def test_a_killed_leader_is_followed(world, two):
    """Nothing is left of it but a Lease that runs out; the other goes on with its work."""
    leader, other = two
    await some_work(world)
    leader.send(signal.SIGKILL)
    await eventually(other.leads)
    newest = f"a{next(_numbers)}"
    await world.assistant(newest)
    await eventually(lambda: world.is_ready("Assistant", newest))
