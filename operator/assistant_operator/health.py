"""Which stores answer, asked for all tenants at once: a store that is down must not cost each tenant a time-out.

A store that went down or came back, or restarted, enqueues every tenant. When no store answers in time, all at
once, the likely cause is on this side: a starved operator, or one that is cut off. Then no store is called down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from assistant_observability import logs, metrics
from assistant_operator.errors import StoreUnreachableError

_log = logs.logger(__name__)
# A single lost packet is no outage; two in a row are. Both fit into the 15 seconds after which a status says so.
FAILURES = 2
PATIENCE_SECONDS = 3.0
SUSPECT_SECONDS = 1.0
# The error of every store while none answers in time.
OVERLOADED = "no store answers the operator in time, all at once."


@dataclass
class _Store:
    up: bool = True
    failures: int = 0
    detail: str = ""
    incarnation: str = ""


class StoreHealth:
    """The state of every store. `pings` return the name of the server's present life, or raise."""

    def __init__(
        self,
        pings: Mapping[str, Callable[[], Awaitable[str]]],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pings = pings
        self._changed = changed
        self._stores = {name: _Store() for name in pings}
        self._clock = clock
        self._overloaded: float | None = None  # since when
        self._late = 0  # in a row: how often all stores were late at once

    def error(self, store: str) -> str:
        """Return why the store is down, or why nobody can say; empty while it is up."""
        if self._overloaded is not None:
            return OVERLOADED
        state = self._stores[store]
        return "" if state.up else state.detail

    @property
    def stores(self) -> set[str]:
        """The names of all stores."""
        return set(self._stores)

    @property
    def overloaded(self) -> float | None:
        """For how many seconds no store has answered in time, all at once; None while that is not so."""
        return None if self._overloaded is None else self._clock() - self._overloaded

    def incarnation(self, store: str) -> str:
        """Return the name of the store's present life; what was checked in another life has to be checked again."""
        return self._stores[store].incarnation

    async def watch(self, seconds: float) -> None:
        """Ask every store each `seconds`, and again at once while one is under suspicion, for ever."""
        while True:
            await self.check()
            suspect = self._late > 0 or any(state.up and state.failures for state in self._stores.values())
            await asyncio.sleep(SUSPECT_SECONDS if suspect else seconds)

    async def check(self) -> None:
        """Ask every store once."""
        found = dict(zip(self._pings, await asyncio.gather(*map(self._ask, self._pings)), strict=True))
        if self._note_overload({name for name, answer in found.items() if _is_late(answer)}):
            self._changed()
        if self._overloaded is None:
            changed = [self._update(name, answer) for name, answer in found.items()]  # each of them
            if any(changed):
                self._changed()

    def _note_overload(self, late: set[str]) -> bool:
        """Note whether all stores that were up are late at once, twice in a row; return whether that has changed."""
        up = {name for name, state in self._stores.items() if state.up}
        together = len(up) > 1 and up <= late
        self._late = self._late + 1 if together else 0
        if self._overloaded is None and self._late >= FAILURES:
            self._overloaded = self._clock()
            _log.error("the operator is overloaded or cut off: no store answers it in time", stores=sorted(late))
        elif self._overloaded is not None and not together:
            self._overloaded = None
            _log.info("the operator keeps up again")
        else:
            return False
        metrics.OPERATOR_OVERLOADED.set(self._overloaded is not None)
        return True

    async def _ask(self, name: str) -> str | StoreUnreachableError | TimeoutError:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._pings[name]()
        except (StoreUnreachableError, TimeoutError) as error:
            return error

    def _update(self, name: str, answer: str | StoreUnreachableError | TimeoutError) -> bool:
        """Update one store's state from its response; return whether it has changed."""
        state = self._stores[name]
        if not isinstance(answer, str):
            if self._late:
                return False  # all at once: decided by the next check
            detail = answer.detail if isinstance(answer, StoreUnreachableError) else "no answer in time."
            state.failures += 1
            if not state.up or state.failures < FAILURES:
                return False
            _log.warning("store is down", store=name, detail=detail)
            metrics.DEPENDENCY_UP.labels(name).set(0)
            state.up, state.detail = False, "it does not answer."
            return True
        incarnation = answer
        changed = not state.up or (bool(state.incarnation) and state.incarnation != incarnation)
        if not state.up:
            # A server that was away may have come back without its data, under the same incarnation.
            _log.info("store is up again", store=name)
            incarnation = incarnation or f"{state.incarnation}+"
        metrics.DEPENDENCY_UP.labels(name).set(1)
        state.up, state.failures, state.incarnation = True, 0, incarnation
        return changed


def _is_late(answer: str | StoreUnreachableError | TimeoutError) -> bool:
    return isinstance(answer, TimeoutError) or (isinstance(answer, StoreUnreachableError) and answer.late)
