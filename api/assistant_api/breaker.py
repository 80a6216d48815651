"""A breaker for a store: while it is away, calls are refused at once instead of each waiting its whole time-out.

Only waits count. A store that refuses connections fails quickly by itself, and its clients connect again as soon as it
is back; a store that hangs costs every call its time-out, and its callers their patience.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from assistant_observability import logs, metrics

MIN_FAILURE_SECONDS = 1.0  # a failure that took so long is a store that does not answer
MIN_CANCELLED_SECONDS = 2.5  # a call that was given up after so long is one, too; a caller may hang up earlier
OPEN_SECONDS = (1.0, 5.0)  # until one call may try: the first pause, and the longest
_CLOSED, _HALF_OPEN, _OPEN = 0, 1, 2

_log = logs.logger(__name__)


class StoreUnavailableError(ConnectionError):
    """The store did not answer a moment ago, so it was not asked."""


class Breaker:
    """Of one store. Closed: everybody asks. Open: nobody does. Half-open: one call tries, the others are refused."""

    def __init__(self, store: str, now: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._now = now
        self._until: float | None = None  # open until then; None: closed
        self._pause = OPEN_SECONDS[0]
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether a call would be refused now."""
        return self._trying or (self._until is not None and self._now() < self._until)

    def check(self) -> None:
        """Raise StoreAwayError where a call would: before something is paid for that would be of no use."""
        if self.open:
            raise StoreUnavailableError(self.store)

    @asynccontextmanager
    async def asking(
        self, *, away: tuple[type[Exception], ...] = (OSError,), given_up: bool = True
    ) -> AsyncIterator[None]:
        """Enclose a call to the store, inside of whatever bounds its time: several at once for one caller are one call.

        Args:
            away: what is raised when the store does not answer; whatever else is raised says nothing about it.
            given_up: whether a call that is cancelled after a long wait says something about the store.

        Raises:
            StoreAwayError: the store is not asked.
        """
        self.check()
        trying = self._until is not None
        if trying:
            self._trying = True
            self._show(_HALF_OPEN)
        started = self._now()
        try:
            yield
        except asyncio.CancelledError:
            if given_up and self._now() - started >= MIN_CANCELLED_SECONDS:
                self.failed()
            raise
        except away:
            if self._now() - started >= MIN_FAILURE_SECONDS:
                self.failed()
            elif trying:
                self.succeeded()  # it fails quickly: nobody has to wait for it
            raise
        else:
            self.succeeded()
        finally:
            if trying:
                self._trying = False

    def failed(self) -> None:
        """Note that the store did not answer."""
        if self._until is None:
            self._pause = OPEN_SECONDS[0]
            _log.warning("store does not answer, calls are refused until it does", store=self.store)
        else:
            self._pause = min(self._pause * 2, OPEN_SECONDS[1])
        self._until = self._now() + self._pause
        self._show(_OPEN)

    def succeeded(self) -> None:
        """Note that it answered."""
        if self._until is not None:
            self._until = None
            self._show(_CLOSED)
            _log.info("store answers again", store=self.store)

    def _show(self, state: int) -> None:
        metrics.STORE_BREAKER.labels(self.store).set(state)
