"""When the garbage collector looks, so that nobody waits long for it.

A look stops everything, for as long as there are objects to look through. What calls leave behind is mostly freed at
once, without the collector. The rest is looked for often and a little at a time; everything is looked through seldom,
and by preference while little is under way: by its own count the collector would do so while a thousand streams begin.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

YOUNG = 2_000  # objects between two looks at those that are new: a millisecond; a call makes some 200
LOOKS = 5  # at new ones between two looks at what was left of them
EVERYTHING_SECONDS = (30.0, 600.0)  # between two looks at everything: while little is under way, and at most
LITTLE = 50  # requests


def begin() -> None:
    """Set the collector when everything is imported: that lives as long as the process, and is never looked through."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, LOOKS, sys.maxsize >> 32)


async def run(running: Callable[[], int], every: tuple[float, float] = EVERYTHING_SECONDS) -> None:
    """Look through everything now and then, for ever; `running` says how many requests are under way."""
    loop = asyncio.get_running_loop()
    soon, latest = every
    looked = loop.time()
    while True:
        await asyncio.sleep(soon)
        if running() <= LITTLE or loop.time() - looked >= latest:
            gc.collect()
            looked = loop.time()
