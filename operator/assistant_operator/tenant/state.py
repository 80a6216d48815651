"""One tenant as a run knows it: the single value that its statuses, metrics and Events are computed from."""

from __future__ import annotations

from dataclasses import dataclass

from assistant_operator.tenant.observation import Observation
from assistant_operator.tenant.resolve import Resolved
from assistant_operator.tenant.snapshot import Snapshot


@dataclass(frozen=True)
class Tenant:
    """The objects in the cluster, what was resolved from them, and what was observed of the running parts."""

    snapshot: Snapshot
    resolved: Resolved
    observation: Observation

    @property
    def namespace(self) -> str:
        """The tenant's namespace, which is also its name."""
        return self.snapshot.namespace
