"""Whether the operator still does its work, as opposed to whether its process still runs.

Kopf's own liveness endpoint notices neither a silent watch nor a lost event. Checked here: when the API server last
responded, how long the oldest tenant has waited, and whether the watches reported the changes that a list shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from assistant_observability import metrics
from assistant_operator.tenant.snapshot import Json

# So long after a list first showed a change its event may still be on the way, on a machine under load.
MISSED_SECONDS = 60.0
# A tenant may wait while a store's time-outs are sat out in every worker, not much longer.
OLDEST_SECONDS = 300.0
# As long as runs end, an operator is slow, not stuck: a restart would only lose its progress. Longer
# than the longest run.
STUCK_SECONDS = 180.0


class Liveness:
    """Collects signs of life. `heard` and `seen` are also called from the watch thread: each sets one value."""

    def __init__(self, resync_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silence = 2 * resync_seconds + 60
        self._heard = clock()
        self._worked: float | None = None  # when the last run ended
        self._leading = False
        self._seen: dict[str, str] = {}
        self._missed: dict[str, tuple[str, float]] = {}  # version, and when a list first showed it
        self._lost: set[str] = set()

    def lead(self) -> None:
        """Note that this operator leads from now on: only then is it expected to hear anything."""
        self._leading, self._heard, self._worked = True, self._clock(), None

    def rest(self) -> None:
        """Note that this operator does not lead any more, and forget what its watches reported."""
        self._leading = False
        self._seen, self._missed, self._lost = {}, {}, set()

    def worked(self) -> None:
        """Note that a run has ended, however."""
        self._worked = self._clock()

    def heard(self) -> None:
        """Note that the API server was heard."""
        self._heard = self._clock()

    def seen(self, obj: Json) -> None:
        """Note a resource that a watch reported."""
        self._heard = self._clock()
        metadata = obj["metadata"]
        self._seen[str(metadata["uid"])] = _version(metadata)

    def gone(self, obj: Json) -> None:
        """Note a resource that a watch said was deleted."""
        self._heard = self._clock()
        self._seen.pop(str(obj["metadata"]["uid"]), None)

    def listed(self, resources: Iterable[Json]) -> None:
        """Compare a list with what the watches reported: a version that only lists have shown for long was missed."""
        for resource in resources:
            metadata = resource["metadata"]
            uid, version = str(metadata["uid"]), _version(metadata)
            known, since = self._missed.get(uid, ("", 0.0))
            if self._seen.get(uid) == version:
                self._missed.pop(uid, None)
            elif known != version:
                self._missed[uid] = (version, self._clock())
            elif self._clock() - since >= MISSED_SECONDS:
                self._lost.add(f"{metadata.get('namespace', '')}/{metadata['name']}")

    def problem(self, oldest: float) -> str:
        """Return why the operator should be restarted; empty when it works. `oldest` is the longest wait."""
        if not self._leading:
            return ""
        age = self._clock() - self._heard
        metrics.WATCH_AGE.set(age)
        if age > self._silence:
            return f"nothing was heard from the API server for {age:.0f} s"
        stuck = self._worked is None or self._clock() - self._worked > STUCK_SECONDS
        if oldest > OLDEST_SECONDS and stuck:
            return f"a tenant has waited for {oldest:.0f} s, and no run ends"
        if self._lost:
            return f"the watches do not tell of changes: {', '.join(sorted(self._lost)[:3])}"
        return ""


def _version(metadata: Json) -> str:
    """Return what of a resource matters to us: its specification, and whether it is being deleted."""
    return f"{metadata.get('generation')} {metadata.get('deletionTimestamp', '')}"
