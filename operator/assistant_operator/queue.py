"""The work queue: one run per key at a time, duplicates merged, failures backed off, starts rate limited.

`Schedule` holds the rules and knows no clock and no event loop; `WorkQueue` drives it. Kopf's own retries are not
used: they give up on some failures for good (docs/decisions/0005-kopf-as-watch-layer.md).
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from assistant_observability import logs, metrics

_log = logs.logger(__name__)

BACKOFF_FIRST = 0.25
# A repaired resource is Ready within 15 seconds, also without an event of the repair.
BACKOFF_CAP = 8.0
JITTER = 0.25
# From this many runs in quick succession that each changed something, all further runs are held
# back: someone else writes the same fields.
UNSTEADY_AFTER = 20
UNSTEADY_PAUSE = 10.0
UNSTEADY_CAP = 60.0
# Runs of one key: so many in a row, then so many per second. A run costs requests to the API server, the gateway and
# the stores also when it writes nothing, and tenants can trigger it by touching their objects.
KEY_BURST = 30.0
KEY_RATE = 0.5
# Of so many keys it is remembered how much they ran lately; beyond, those that may run freely are forgotten.
REMEMBERED = 1000
# For so long after somebody changed a resource, the runs of its key go before all others, which a restart or an upgrade
# of the operator asks for all at once. KEY_RATE bounds what that can cost the others.
URGENT_SECONDS = 30.0


@dataclass(frozen=True)
class Result:
    """The result of one run: whether it changed anything, and when to run again if no event comes before.

    `requeue` runs again with exponential back-off, `requeue_after` after that many seconds.
    """

    requeue: bool = False
    changed: bool = False
    requeue_after: float | None = None


@dataclass
class _Key:
    """What is known of one key. `due` is None while nothing is asked for it."""

    due: float | None = None
    running: bool = False
    failures: int = 0
    writes: int = 0
    ended: float = 0.0
    held_until: float = 0.0
    since: float = 0.0  # when the oldest unanswered request fell due


@dataclass
class Schedule:
    """Keys and the times at which they are due. All times are seconds on one monotonic clock."""

    rate: float = 50.0  # starts per second
    burst: int = 50
    jitter: Callable[[], float] = random.random
    _keys: dict[str, _Key] = field(default_factory=dict)
    _heap: list[tuple[float, int, str]] = field(default_factory=list)
    _first: list[tuple[float, int, str]] = field(default_factory=list)  # the same of keys that were changed lately
    _urgent_until: dict[str, float] = field(default_factory=dict)  # key -> until when it goes first
    _sequence: int = 0
    _spent: dict[str, tuple[float, float]] = field(default_factory=dict)  # key -> runs that are left, and as of when
    _tokens: float | None = None
    _refilled: float = 0.0

    def add(self, key: str, now: float, delay: float = 0.0, *, urgent: bool = False) -> None:
        """Ask for a run of `key` in `delay` seconds; an earlier request for the same key stands.

        `urgent`: a resource of the key was changed, which goes first for URGENT_SECONDS.
        """
        state = self._keys.setdefault(key, _Key())
        if urgent:
            self._urgent_until[key] = now + URGENT_SECONDS
        due = max(now + delay, state.held_until)
        if state.due is not None and state.due <= due:
            if urgent and not state.running:
                self._push(key, state.due, now)
            return
        if state.due is None:
            state.since = due
        state.due, state.since = due, min(state.since, due)
        if not state.running:
            self._push(key, due, now)

    def take(self, now: float) -> str | None:
        """Return a key to run now, and note that it runs; None when none is due or the rate is used up."""
        self._refill(now)
        for heap in (self._first, self._heap):
            while (due := self._next(heap)) is not None and due <= now:
                if self._tokens is not None and self._tokens < 1:
                    return None
                _, _, key = heapq.heappop(heap)
                state = self._keys[key]
                left = self._left(key, now)
                if left < 1:
                    state.due = state.since = now + (1 - left) / KEY_RATE
                    self._push(key, state.due, now)
                    continue
                self._spent[key] = (left - 1, now)
                self._tokens = (self._tokens or 0) - 1
                state.running, state.due = True, None
                return key
        return None

    def done(self, key: str, result: Result, now: float) -> None:
        """Note the end of a run."""
        state = self._keys[key]
        state.running = False
        if not result.changed or now - state.ended > max(UNSTEADY_PAUSE, 2 * self._hold(state.writes)):
            state.writes = 0
        state.writes += int(result.changed)
        state.ended = now
        state.held_until = now + self._hold(state.writes)
        if result.requeue:
            # Progress resets the back-off: what was just written is about to take effect.
            state.failures = 1 if result.changed else state.failures + 1
            self.add(key, now, self._backoff(state.failures))
        else:
            state.failures = 0
            if result.requeue_after is not None:
                self.add(key, now, result.requeue_after)
        if state.due is not None:
            state.due = max(state.due, state.held_until)
            self._push(key, state.due, now)
        elif not state.writes:
            del self._keys[key]
            self._forget(now)

    def next_due(self, now: float) -> float | None:
        """Return in how many seconds `take` may have something; None when nothing waits."""
        dues = [due for heap in (self._first, self._heap) if (due := self._next(heap)) is not None]
        if not dues:
            return None
        wait = min(dues) - now
        if self._tokens is not None and self._tokens < 1:
            wait = max(wait, (1 - self._tokens) / self.rate)
        return max(0.0, wait)

    def failures(self, key: str) -> int:
        """Return how many runs of the key in a row asked to be tried again."""
        state = self._keys.get(key)
        return 0 if state is None else state.failures

    def depth(self, now: float) -> int:
        """Return how many keys are due and wait."""
        return sum(1 for state in self._keys.values() if state.due is not None and state.due <= now)

    def oldest(self, now: float) -> float:
        """Return for how many seconds the longest-waiting due key has waited."""
        return max(
            (now - state.since for state in self._keys.values() if state.due is not None and state.due <= now),
            default=0.0,
        )

    def _left(self, key: str, now: float) -> float:
        left, then = self._spent.get(key, (KEY_BURST, now))
        return min(KEY_BURST, left + (now - then) * KEY_RATE)

    def _forget(self, now: float) -> None:
        if len(self._spent) > REMEMBERED + 2 * len(self._keys):
            self._spent = {key: spent for key, spent in self._spent.items() if self._left(key, now) < KEY_BURST}
        if len(self._urgent_until) > REMEMBERED:
            self._urgent_until = {key: until for key, until in self._urgent_until.items() if until > now}

    def _push(self, key: str, due: float, now: float) -> None:
        self._sequence += 1
        first = self._urgent_until.get(key, now) > now
        heapq.heappush(self._first if first else self._heap, (due, self._sequence, key))

    def _next(self, heap: list[tuple[float, int, str]]) -> float | None:
        """Return when the first valid entry of a heap is due, and drop those before it that stand for nothing."""
        while heap:
            due, _, key = heap[0]
            state = self._keys.get(key)
            if state is not None and not state.running and state.due == due:
                return due
            heapq.heappop(heap)
        return None

    def _refill(self, now: float) -> None:
        before = self.burst if self._tokens is None else self._tokens
        self._tokens = min(float(self.burst), before + (now - self._refilled) * self.rate)
        self._refilled = now

    def _backoff(self, failures: int) -> float:
        base = min(BACKOFF_FIRST * 2.0 ** min(failures - 1, 16), BACKOFF_CAP)
        return float(base * (1 + JITTER * (2 * self.jitter() - 1)))

    @staticmethod
    def _hold(writes: int) -> float:
        return 0.0 if writes < UNSTEADY_AFTER else min(2.0 ** min(writes - UNSTEADY_AFTER, 16), UNSTEADY_CAP)


class WorkQueue:
    """Runs a handler for the keys of a schedule, several keys at a time."""

    def __init__(self, workers: int, schedule: Schedule | None = None) -> None:
        self._workers = workers
        self._schedule = schedule or Schedule()
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False

    def add(self, key: str, delay: float = 0.0, *, urgent: bool = False) -> None:
        """Ask for a run, before others if somebody `changed` a resource; call it from the loop's own thread."""
        self._schedule.add(key, self._now(), delay, urgent=urgent)
        self._changed.set()

    async def run(self, handler: Callable[[str], Awaitable[Result]]) -> None:
        """Run the handler for due keys until `stop` is called. An exception counts as a failure to be retried."""
        while not self._stopping:
            now = self._now()
            while len(self._running) < self._workers and (key := self._schedule.take(now)) is not None:
                task = asyncio.create_task(self._one(key, handler), name=f"reconcile {key}")
                self._running.add(task)
                task.add_done_callback(self._ended)
            self._measure(now)
            wait = self._schedule.next_due(now) if len(self._running) < self._workers else None
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def stop(self, grace: float) -> None:
        """Start no more runs, give the running ones `grace` seconds, then cancel them."""
        self._stopping = True
        self._changed.set()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def oldest(self) -> float:
        """Return for how many seconds the longest-waiting due key has waited."""
        return self._schedule.oldest(self._now())

    async def _one(self, key: str, handler: Callable[[str], Awaitable[Result]]) -> None:
        result = Result(requeue=True)
        try:
            result = await handler(key)
        except Exception:  # noqa: BLE001 - this key is tried again and the others go on
            # Repeating the same traceback would add nothing.
            _log.error("run failed", namespace=key, exc_info=self._schedule.failures(key) == 0)
        finally:
            self._schedule.done(key, result, self._now())

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Only now there is room for another run.
        self._running.discard(task)
        self._changed.set()

    def _measure(self, now: float) -> None:
        metrics.QUEUE_DEPTH.set(self._schedule.depth(now))
        metrics.QUEUE_OLDEST.set(self._schedule.oldest(now))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
