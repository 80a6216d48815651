"""A namespace with many assistants of the longest instructions works as any other does.

Shortened as a rule; TEST_LONG=1 has 200 of them.
"""

import asyncio
import os

import pytest
from operator_world import all_objects, condition

from assistant_crds import naming, parts

LONG = os.environ.get("TEST_LONG") == "1"
ASSISTANTS = 200 if LONG else 20
LONGEST = "\U0001f600" * 32_768  # four bytes each


@pytest.mark.timeout(900 if LONG else 300)
async def test_many_assistants_of_the_longest_instructions_work(world, context):
    """All become Ready, no object passes a mebibyte, pods can put the whole together, and it all goes again."""
    for first in range(0, ASSISTANTS, 10):
        names = [f"a{number:03}" for number in range(first, min(first + 10, ASSISTANTS))]
        await asyncio.gather(*(world.assistant(name, instructions=LONGEST) for name in names))
    await world.settle(context)
    assert (world.namespace in context.memory.large) is (ASSISTANTS * 32_768 >= 4_000_000)

    objects = await all_objects(world.cluster, world.namespace)
    maps = {name: obj["data"] for (kind, name), obj in objects.items() if kind == "ConfigMap"}
    assert len(maps) > 1
    assert all(sum(len(key) + len(value.encode()) for key, value in data.items()) < 2**20 for data in maps.values())
    files = {key: value.encode() for data in maps.values() for key, value in data.items()}
    config = parts.join(files[naming.CONFIG_KEY], files.__getitem__)
    assert len(config.assistants) == ASSISTANTS
    for name in ("a000", f"a{ASSISTANTS - 1:03}"):
        assert condition(await world.get("Assistant", name), "Ready")["status"] == "True"

    # Fewer of them leave no ConfigMap behind.
    for number in range(1, ASSISTANTS):
        await world.delete("Assistant", f"a{number:03}")
    await world.settle(context)
    left = await all_objects(world.cluster, world.namespace)
    assert [name for kind, name in left if kind == "ConfigMap"] == [naming.CONFIG_MAP]
    assert await world.is_ready("Assistant", "a000")
