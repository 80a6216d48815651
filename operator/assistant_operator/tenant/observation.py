"""What was observed of a tenant's running parts: plain data, from which its status is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from assistant_crds.conditions import Reason
from assistant_crds.contracts import TenantProbe
from assistant_operator.tenant.generations import Generations


@dataclass(frozen=True)
class GatewayView:
    """The gateway's view of the tenant, or why there is none."""

    probe: TenantProbe | None
    error: str = ""

    @property
    def steady(self) -> GatewayView:
        """The view without what every call changes."""
        return self if self.probe is None else GatewayView(msgspec.structs.replace(self.probe, usage=None), self.error)


@dataclass(frozen=True)
class PodReadiness:
    """The response of one running pod to `/readyz`. `in_service`: the kubelet has found it ready."""

    name: str
    in_service: bool
    ready: bool
    generation: str
    detail: str = ""


@dataclass(frozen=True)
class Counts:
    """What one knowledge base holds: rows as the tenant's database counts them, vectors as the vector store does."""

    documents: int
    pending: int
    failed: int
    chunks: int
    vectors: int
    outdated: int = 0  # documents that an earlier version has read


@dataclass(frozen=True)
class StoreView:
    """The state of the stores for one tenant: what is wrong, by store.

    `overloaded`: for how many seconds no store has answered in time, all at once, which is the operator's own trouble;
    None while that is not so.
    """

    errors: Mapping[str, str] = field(default_factory=dict)
    overloaded: float | None = None


@dataclass(frozen=True)
class Observation:
    """Everything that a tenant's status is computed from, besides its resolved resources and live objects."""

    config_generation: str
    policy_generation: str
    gateway: GatewayView
    pods: list[PodReadiness]
    stores: StoreView
    counts: Mapping[str, Counts]  # by the key of the knowledge base
    reindexed: Mapping[str, str] = field(default_factory=dict)  # by the same key: the annotation that was acted on
    apply_error: str = ""
    apply_reason: Reason = Reason.APPLY_FAILED  # of `apply_error`
    service_error: str = ""  # why clients get no answer from the tenant's Service although its pods answer
    configs: Generations = field(default_factory=Generations)
    policies: Generations = field(default_factory=Generations)

    def gateway_knows(self, part: str) -> bool:
        """Return whether the gateway works with the wanted policy, as far as a resource is concerned."""
        probe = self.gateway.probe
        return probe is not None and self.policies.agree(part, probe.generation, self.policy_generation)

    def serves(self, pod: PodReadiness, part: str) -> bool:
        """Return whether a pod serves the wanted configuration, as far as a resource is concerned."""
        return self.configs.agree(part, pod.generation, self.config_generation)
