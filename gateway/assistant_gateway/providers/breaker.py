"""When to stop asking a provider that fails, and when to ask again.

Closed: calls go through and are counted. Open: after too large a share of failures nobody waits for the provider any
more. Half-open: after a while one call is let through as a trial; its end closes or opens the breaker again. Nothing
here waits, and there is no timer: the state follows from the clock when somebody looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import msgspec

LONGEST_OPEN = 8  # times `openSeconds`: each trial that fails doubles the pause up to this


class BreakerSettings(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Of one provider. With the defaults half of at least ten calls within 30 s have to fail."""

    failure_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    min_calls: Annotated[int, msgspec.Meta(ge=1)] = 10
    window_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30
    open_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10


class State(StrEnum):
    """Of a breaker."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Breaker:
    """One provider's. `enter` before a call, `leave` after it."""

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        # The window is two halves, the one that fills and the one before it: counts age without a list of calls.
        self._turn = 0.0
        self._now, self._before = [0, 0], [0, 0]  # calls, failures
        self._open_until = 0.0  # 0: closed
        self._openings = 0  # in a row, without a success in between
        self._trial = False  # whether one is under way

    @property
    def state(self) -> State:
        """Where it stands now."""
        if not self._open_until:
            return State.CLOSED
        return State.OPEN if self._clock() < self._open_until else State.HALF_OPEN

    @property
    def counted(self) -> tuple[int, int]:
        """Calls and failures within the window."""
        return self._now[0] + self._before[0], self._now[1] + self._before[1]

    def blocked(self) -> float | None:
        """Return None when a call may go through, else after how many seconds it is worth asking again."""
        if not self._open_until:
            return None
        left = self._open_until - self._clock()
        if left > 0:
            return left
        return min(1.0, self.settings.open_seconds) if self._trial else None

    def enter(self) -> bool:
        """Let a call through that is not blocked; return whether it is the trial."""
        if not self._open_until:
            return False
        self._trial = True
        return True

    def leave(self, *, failed: bool | None, trial: bool) -> bool:
        """Count a call; `failed` is None where it says nothing of the provider. Return whether this opened it."""
        if trial:
            self._trial = False
        if failed is None:
            return False
        if self._open_until:  # calls from before it opened say nothing new
            return trial and self._judge(failed=failed)
        now = self._clock()
        if now >= self._turn:
            half = self.settings.window_seconds / 2
            self._before = self._now if now < self._turn + half else [0, 0]
            self._now = [0, 0]
            self._turn = now + half
        self._now[0] += 1
        if not failed:
            return False
        self._now[1] += 1
        calls, failures = self.counted
        if calls < self.settings.min_calls or failures < calls * self.settings.failure_share:
            return False
        self._open()
        return True

    def _judge(self, *, failed: bool) -> bool:
        if failed:
            self._open()
            return True
        self._open_until, self._openings = 0.0, 0
        self._now, self._before = [0, 0], [0, 0]
        return False

    def _open(self) -> None:
        seconds = self.settings.open_seconds * min(2**self._openings, LONGEST_OPEN)
        self._openings += 1
        self._open_until = self._clock() + seconds
