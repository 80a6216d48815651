"""Spec and status of a `Tenant`, equal to `crds/tenants.yaml` (a test compares them).

A Tenant carries what a tenant must not set for itself. Its name is the name of the namespace.
"""

from __future__ import annotations

import msgspec

from assistant_crds.meta import Budget, Condition, Struct, Usage


class TenantLimits(Struct, frozen=True):
    """Hard limits over all assistants of the tenant."""

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    budget: Budget | None = None


class Resources(Struct, frozen=True):
    """Requests and limits of one API pod, as Kubernetes quantities by resource name."""

    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class ServingReplicas(Struct, frozen=True):
    """How many API pods."""

    min: int = 1


class Serving(Struct, frozen=True):
    """The shape of the tenant's API Deployment."""

    replicas: ServingReplicas = ServingReplicas()
    resources: Resources = Resources()


class Models(Struct, frozen=True):
    """Which models of the catalogue the tenant may use: shell patterns on `provider/name`."""

    allow: list[str] = msgspec.field(default_factory=lambda: ["*"])
    allow_own_endpoints: bool = True


class Access(Struct, frozen=True):
    """Who may call the endpoint, besides having a key."""

    registration: str = "Invite"  # or Open, or Closed: how people get an account
    allowed_origins: list[str] = []  # of web pages whose scripts may (CORS); "*" is all


class TenantSpec(Struct, frozen=True):
    """What the platform team declares."""

    limits: TenantLimits = TenantLimits()
    time_zone: str | None = None  # IANA name; UTC unless the chart's defaults say otherwise
    failure_policy: str | None = None  # Closed or Bounded; Closed unless the chart's defaults say otherwise
    serving: Serving = Serving()
    models: Models = Models()
    access: Access = Access()


class TenantStatus(Struct, frozen=True):
    """What the operator observed."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    assistants: int | None = None
    knowledge_bases: int | None = None
    limit: str = ""
    usage: Usage | None = None
    url: str = ""
