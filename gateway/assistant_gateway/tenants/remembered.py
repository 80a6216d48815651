"""Answers that are asked for once and shared: by everyone who asks meanwhile, and for a time after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

MOST = 10_000  # answers; beyond that the oldest are asked for again

Key = tuple[str, ...]
_Answer = TypeVar("_Answer")


class Remembered(Generic[_Answer]):
    """Answers by key; good ones are kept for `seconds`, others for `failure_seconds`, so that a mend is seen soon."""

    def __init__(
        self,
        good: Callable[[_Answer], bool],
        seconds: float,
        failure_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._good = good
        self._seconds = seconds
        self._failure_seconds = failure_seconds
        self._clock = clock
        self._kept: dict[Key, tuple[float, asyncio.Task[_Answer]]] = {}  # until when, in order of age

    async def get(self, key: Key, ask: Callable[[], Coroutine[Any, Any, _Answer]]) -> _Answer:
        """Return the answer to `key`; `ask` is called where there is none, or none any more."""
        now = self._clock()
        kept = self._kept.get(key)
        if kept is None or now >= kept[0]:
            self._kept = {known: value for known, value in self._kept.items() if now < value[0]}
            task = asyncio.create_task(ask())
            task.add_done_callback(lambda done: self._shorten(key, done))
            kept = self._kept[key] = (now + self._seconds, task)
            while len(self._kept) > MOST:
                self._kept.pop(next(iter(self._kept)))
        # One that asks and goes away must not end the answer for the others.
        return await asyncio.shield(kept[1])

    def _shorten(self, key: Key, task: asyncio.Task[_Answer]) -> None:
        good = not task.cancelled() and task.exception() is None and self._good(task.result())
        if not good and (kept := self._kept.get(key)) is not None and kept[1] is task:
            self._kept[key] = (self._clock() + self._failure_seconds, task)
