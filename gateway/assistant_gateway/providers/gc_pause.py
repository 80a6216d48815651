"""The garbage collector while a large library is loaded."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Keep the garbage collector from going through all of a library's objects, now and later.

    Each time it does it holds every thread up, the event loop's too: for half a second with LiteLLM's.
    Young objects are collected all the while.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, 10**9)
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(young, middle, old)
