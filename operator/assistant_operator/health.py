"""Which stores answer, asked for all tenants at once: a store that is down must not cost each tenant a time-out.

A store that went down or came back, or was started anew, wakes every tenant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from assistant_observability import logs, metrics
from assistant_operator.errors import StoreUnreachableError

_log = logs.logger(__name__)
# A single lost packet is no outage; two in a row are. Both fit into the 15 seconds after which people are told.
FAILURES = 2
PATIENCE_SECONDS = 3.0
SUSPECT_SECONDS = 1.0


@dataclass
class _Store:
    up: bool = True
    failures: int = 0
    detail: str = ""
    incarnation: str = ""


class StoreHealth:
    """The state of every store. `pings` return the name of the server's present life, or raise."""

    def __init__(self, pings: Mapping[str, Callable[[], Awaitable[str]]], changed: Callable[[], None]) -> None:
        self._pings = pings
        self._changed = changed
        self._stores = {name: _Store() for name in pings}

    def error(self, store: str) -> str:
        """Return why the store is down; empty while it is up."""
        state = self._stores[store]
        return "" if state.up else state.detail

    def incarnation(self, store: str) -> str:
        """Return the name of the store's present life; what was checked in another life has to be checked again."""
        return self._stores[store].incarnation

    async def watch(self, seconds: float) -> None:
        """Ask every store each `seconds`, and again at once while one is under suspicion, for ever."""
        while True:
            await self.check()
            suspect = any(state.up and state.failures for state in self._stores.values())
            await asyncio.sleep(SUSPECT_SECONDS if suspect else seconds)

    async def check(self) -> None:
        """Ask every store once."""
        results = await asyncio.gather(*(self._check(name) for name in self._pings))
        if any(results):
            self._changed()

    async def _check(self, name: str) -> bool:
        state = self._stores[name]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                incarnation = await self._pings[name]()
        except (StoreUnreachableError, TimeoutError) as error:
            detail = error.detail if isinstance(error, StoreUnreachableError) else "no answer in time."
            state.failures += 1
            if not state.up or state.failures < FAILURES:
                return False
            _log.warning("store is down", store=name, detail=detail)
            metrics.DEPENDENCY_UP.labels(name).set(0)
            state.up, state.detail = False, "it does not answer."
            return True
        changed = not state.up or (bool(state.incarnation) and state.incarnation != incarnation)
        if not state.up:
            # A server that was away may have come back without what it knew, whatever it calls its life.
            _log.info("store is up again", store=name)
            incarnation = incarnation or f"{state.incarnation}+"
        metrics.DEPENDENCY_UP.labels(name).set(1)
        state.up, state.failures, state.incarnation = True, 0, incarnation
        return changed
