"""What this process has seen of a tenant's counters: by it a Redis that lost something is recognised, and helped."""

from __future__ import annotations

import time
from collections import deque

import msgspec

from assistant_gateway.limits.limit_scope import Amount, Limits

UNWRITTEN_SECONDS = 5.0  # Redis writes its log every second, after two at the latest
REMEMBERED_SECONDS = 300.0  # half of what the script does at least


class Recent(msgspec.Struct, frozen=True):
    """A settling that Redis has answered, but may not have written to its disk yet."""

    at: float
    limits: Limits
    request: str
    used: Amount
    entry: bytes


class Held(msgspec.Struct, frozen=True):
    """A call of this process that is under way."""

    until: float
    limits: Limits
    worst: Amount
    hold: int


class Watermark(msgspec.Struct):
    """The latest that this process has seen of a tenant's counters; anything older is a Redis that lost some."""

    epoch: int = 0
    entries: int = 0
    recent: deque[Recent] = msgspec.field(default_factory=deque)
    held: dict[str, Held] = msgspec.field(default_factory=dict)

    @property
    def witness(self) -> str:
        """The request that this process settled last, as long as Redis has to remember it."""
        if self.recent and time.monotonic() - self.recent[-1].at > REMEMBERED_SECONDS:
            self.recent.clear()
        return self.recent[-1].request if self.recent else ""

    def begin(self, request: str, limits: Limits, worst: Amount, hold: int) -> None:
        """Note a call under way; forget the oldest ones if nobody renewed them."""
        now = time.monotonic()
        self.held.pop(request, None)
        self.held[request] = Held(now + hold / 1e6, limits, worst, hold)
        while (oldest := next(iter(self.held.items())))[1].until < now:
            del self.held[oldest[0]]

    def keep(self, settling: Recent) -> None:
        """Keep the last one, and those that were settled shortly before it."""
        self.recent.append(settling)
        while settling.at - self.recent[0].at > UNWRITTEN_SECONDS:
            self.recent.popleft()

    def see(self, epoch: int, entries: int) -> None:
        """Take note; entries count within one epoch."""
        if epoch > self.epoch:
            self.epoch, self.entries = epoch, entries
        elif epoch == self.epoch:
            self.entries = max(self.entries, entries)
