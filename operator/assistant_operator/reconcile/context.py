"""What a reconcile run works with, and what is remembered between runs to spare the stores needless questions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from assistant_operator.adapters.cluster import Cluster
from assistant_operator.adapters.postgres import Postgres
from assistant_operator.adapters.probes import Probes
from assistant_operator.adapters.redis import Redis
from assistant_operator.catalog import Catalog
from assistant_operator.config import Settings
from assistant_operator.desired.platform import Egress, Platform, Resources
from assistant_operator.health import StoreHealth
from assistant_operator.index import Index
from assistant_operator.measures import Measured
from assistant_operator.tenant.generations import Generations
from assistant_operator.tenant.observation import Counts, GatewayView
from assistant_operator.tenant.resolve import Defaults
from assistant_operator.tenant.usage import Digest, Quotas

if TYPE_CHECKING:  # to import its client takes a second, and who only computes needs none
    from assistant_operator.adapters.weaviate import Weaviate


@dataclass
class Memory:
    """What the last runs found out. Losing it costs questions, never correctness."""

    # (tenant, store) -> (what was wanted, until when it needs no check)
    checked: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    # namespace -> what the status of its resources was computed from
    reported: dict[str, Report] = field(default_factory=dict)
    # namespace -> when (monotonic) the usage in its statuses may be written again
    usage_due: dict[str, float] = field(default_factory=dict)
    # namespaces of which one is worked on at a time, see `gather.LARGE`
    large: set[str] = field(default_factory=set)
    # (namespace, kind, name) of one of our objects -> its UID, and fields in it that the cluster itself puts there
    kept: dict[tuple[str, str, str], tuple[str, frozenset[str]]] = field(default_factory=dict)
    # tenant -> until when (monotonic) its stores need not be compared with its knowledge bases, and which these were
    swept: dict[str, float] = field(default_factory=dict)
    bases: dict[str, frozenset[str]] = field(default_factory=dict)
    # (namespace, Deployment) -> until when (monotonic) the cluster is not asked again to create its pods
    nudged: dict[tuple[str, str], float] = field(default_factory=dict)
    # namespace, step and kind of unexpected errors whose traceback is in the log
    shown: set[tuple[str, str, str]] = field(default_factory=set)
    # tenant -> since when (monotonic) its tear-down waits for pods without a deletion time
    outlived: dict[str, float] = field(default_factory=dict)
    # namespace -> the last generations of what its pods serve, and of what the gateway enforces for it
    configs: dict[str, Generations] = field(default_factory=dict)
    policies: dict[str, Generations] = field(default_factory=dict)
    # namespace -> what its metrics show
    measured: dict[str, Measured] = field(default_factory=dict)
    # resource's UID -> how many Events of transitions it has left, as of when (monotonic)
    event_tokens: dict[str, tuple[float, float]] = field(default_factory=dict)
    # tenant -> since when (monotonic) its tear-down waits for the ledger
    undrained: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What of a tenant may change without any event: polled between runs, a difference enqueues the tenant."""

    tenant: str  # key in the stores
    knowledge_bases: frozenset[str]
    gateway: GatewayView  # as of `GatewayView.steady`
    counts: dict[str, Counts]
    quotas: Quotas
    usage: Digest | None  # None while it is not known


@dataclass
class Context:
    """Everything a run needs."""

    settings: Settings
    catalog: Catalog
    cluster: Cluster
    postgres: Postgres
    redis: Redis
    weaviate: Weaviate
    probes: Probes
    health: StoreHealth
    index: Index = field(default_factory=Index)
    memory: Memory = field(default_factory=Memory)
    large: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while a large namespace is worked on
    monotonic: Callable[[], float] = time.monotonic

    @property
    def platform(self) -> Platform:
        """What the objects of every tenant have in common."""
        settings = self.settings
        return Platform(
            namespace=settings.namespace,
            routes_namespace=settings.routes_namespace,
            gateway_url=settings.gateway_url,
            api_image=settings.api_image,
            image_pull_policy=settings.image_pull_policy,
            log_format=settings.log_format,
            otlp_endpoint=settings.otlp_endpoint,
            worker_resources=Resources(
                settings.default_worker_resources.requests, settings.default_worker_resources.limits
            ),
            pull_secrets=settings.api_pull_secrets,
            egress=[Egress(out.cidr, out.ports) for out in settings.egress],
            sample_ratio=settings.sample_ratio,
            gateway_seconds=self.catalog.gateway_seconds,
        )

    @property
    def defaults(self) -> Defaults:
        """What holds where a Tenant says nothing."""
        return Defaults(
            requests_per_minute=self.settings.default_requests_per_minute,
            replicas=self.settings.default_replicas,
            requests=self.settings.default_resources.requests,
            limits=self.settings.default_resources.limits,
            tokens_per_day=self.settings.default_tokens_per_day,
            budget=self.settings.budget,
            time_zone=self.settings.default_time_zone,
            failure_policy=self.settings.default_failure_policy,
        )


def timestamp() -> str:
    """Return the present time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
