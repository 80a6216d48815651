"""The garbage collector looks often at little, and at everything while little is under way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys

from assistant_gateway.capacity import garbage

SCRIPT = """
import gc
from assistant_gateway.capacity import garbage
garbage.begin()
looks = [0, 0, 0]
def look(phase, info):
    looks[info["generation"]] += phase == "start"
gc.callbacks.append(look)
kept = [[] for _ in range(200_000)]
print(*looks)
"""


def test_what_lives_is_not_looked_through_again_and_again() -> None:
    """While two hundred thousand objects come to stay there is no look at everything, and each is a small one."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    new, rest, everything = map(int, done.stdout.split())
    assert everything == 0
    assert new >= 60
    assert rest >= 10


async def looks(running: int, seconds: float) -> int:
    """Return how often everything is looked through in a while with so many requests under way."""
    found = 0

    def count(phase: str, info: dict[str, int]) -> None:
        nonlocal found
        found += phase == "start" and info["generation"] == 2

    gc.callbacks.append(count)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await garbage.run(lambda: running, (0.01, 3600.0))
    finally:
        gc.callbacks.remove(count)
    return found


async def test_everything_is_looked_through_while_little_is_under_way() -> None:
    """A look stops all that is under way: it waits for a quiet moment, unless none comes for long."""
    assert await looks(garbage.LITTLE, 0.5) >= 1
    busy = asyncio.create_task(garbage.run(lambda: garbage.LITTLE + 1, (0.01, 0.1)))
    before = gc.get_stats()[2]["collections"]
    while gc.get_stats()[2]["collections"] == before:  # noqa: ASYNC110  # nobody says when
        await asyncio.sleep(0.01)
    busy.cancel()
