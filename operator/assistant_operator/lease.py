"""Leader election: one operator at a time holds a Lease; one that cannot renew it stops writing before another starts.

Times as in client-go: a Lease that was not renewed for as long as it says, by the watcher's own clock, may be taken;
its holder gives up when two thirds of that have passed since the last renewal: it refuses further writes and cancels
those under way.
Source: https://pkg.go.dev/k8s.io/client-go/tools/leaderelection
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from assistant_observability import logs
from assistant_operator.adapters.cluster import Cluster
from assistant_operator.errors import ClusterError, ClusterUnreachableError, NotLeaderError
from assistant_operator.tenant.snapshot import Json

DURATION = 15.0
_log = logs.logger(__name__)


class Lease:
    """The Lease `name`, as seen by the operator called `identity`, which holds it for `duration` seconds at a time.

    One thread takes and renews it; `held`, `term`, `left` and `guard` may be asked from any.
    """

    def __init__(
        self,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        duration: float = DURATION,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.term = 0  # grows each time the Lease is acquired: work of an earlier term is aborted
        self._identity = identity
        self._clock = clock
        self._duration = duration
        self.deadline = duration * 2 / 3  # after a renewal: then we do not lead any more
        self.period = duration * 2 / 15  # between two renewals, or two looks at another's Lease
        self._renewed: float | None = None  # when we last asked for what was then granted
        self._observed: tuple[object, float] | None = None  # the holder's last sign, and when we first saw it
        self._cluster: Cluster | None = None

    def attach(self, cluster: Cluster) -> None:
        """Use this cluster; its writes in turn ask this Lease."""
        self._cluster = cluster

    @property
    def held(self) -> bool:
        """Whether we lead, for certain, at this moment."""
        renewed = self._renewed  # once: another thread sets it
        return renewed is not None and self._clock() - renewed < self.deadline

    @property
    def left(self) -> float:
        """For how many seconds we lead without a further renewal; 0 or less when we do not lead."""
        renewed = self._renewed
        return 0.0 if renewed is None else renewed + self.deadline - self._clock()

    def guard(self) -> None:
        """Raise NotLeaderError unless we lead; asked before every write."""
        if not self.held:
            raise NotLeaderError("another operator may lead by now")

    async def release(self) -> None:
        """Give the Lease up, so that another operator need not wait."""
        if not self.held:
            return
        self._renewed = None
        try:
            async with asyncio.timeout(self.period):
                lease = await self._read()
                if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._require().replace(lease)
        except (ClusterError, ClusterUnreachableError, TimeoutError) as error:
            _log.warning("the lease could not be released", error=str(error))

    async def attempt(self) -> bool:
        """Try once to take or renew the Lease; return whether we lead."""
        asked = self._clock()
        try:
            async with asyncio.timeout(self.deadline / 3):
                granted = await self._attempt()
        except (ClusterError, ClusterUnreachableError, TimeoutError) as error:
            _log.warning("the lease could not be renewed", error=str(error) or "no answer in time")
            return self.held
        if granted:
            self._renewed = asked
        elif self._renewed is not None:
            self._renewed = None  # someone else took it
        return granted

    async def _attempt(self) -> bool:
        lease = await self._read()
        if lease is None:
            return self._taken(await self._require().create(self._wanted({})), new_term=True)
        spec = lease["spec"]
        if spec.get("holderIdentity") not in {self._identity, "", None} and not self._is_stale(spec):
            return False
        is_ours = spec.get("holderIdentity") == self._identity and self.term > 0
        return self._taken(await self._require().replace(self._wanted(lease)), new_term=not is_ours)

    def _taken(self, written: Json | None, *, new_term: bool) -> bool:
        self.term += int(written is not None and new_term)
        return written is not None

    def _is_stale(self, spec: Json) -> bool:
        sign = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if self._observed is None or self._observed[0] != sign:
            self._observed = (sign, self._clock())
        return self._clock() - self._observed[1] > float(spec.get("leaseDurationSeconds") or DURATION)

    def _wanted(self, lease: Json) -> Json:
        spec = lease.get("spec") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_ours = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": lease.get("metadata") or {"name": self.name, "namespace": self.namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(self._duration),
                "acquireTime": spec.get("acquireTime") or now if is_ours else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if is_ours else 1),
            },
        }

    async def _read(self) -> Json | None:
        return await self._require().get("Lease", self.name, self.namespace)

    def _require(self) -> Cluster:
        if self._cluster is None:
            raise RuntimeError("the lease has no cluster yet")
        return self._cluster
