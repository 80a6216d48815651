"""Every object of a tenant, computed from its resolved resources. Pure: no await, clock, environment or client."""

from __future__ import annotations

from dataclasses import dataclass

from assistant_crds import naming, parts
from assistant_crds.contracts import TenantConfig, TenantPolicy
from assistant_operator.desired import (
    config_map,
    deployment,
    network_policy,
    pod_disruption_budget,
    policy,
    secrets,
    service,
    service_account,
    tenant_config,
)
from assistant_operator.desired.compare import with_digest
from assistant_operator.desired.platform import Credentials, Platform
from assistant_operator.tenant.resolve import Resolved
from assistant_operator.tenant.snapshot import Json

# (kind, name) of everything that a tenant's namespace may hold of ours.
OWN_NAMES = (
    ("ServiceAccount", naming.API),
    ("Secret", naming.STORES_SECRET),
    ("Secret", naming.API_KEY_SECRET),
    ("Secret", naming.ADMIN_SECRET),
    ("ConfigMap", naming.CONFIG_MAP),
    ("NetworkPolicy", network_policy.DEFAULT_DENY),
    ("NetworkPolicy", naming.API),
    ("NetworkPolicy", naming.WORKER),
    ("Service", naming.API),
    ("PodDisruptionBudget", naming.API),
    ("Deployment", naming.API),
    ("Deployment", naming.WORKER),
)


@dataclass(frozen=True)
class Desired:
    """What a tenant should be made of. `objects` are in the order in which they are applied."""

    config: TenantConfig
    policy: TenantPolicy
    policy_secret: Json  # in the routes namespace
    objects: list[Json]  # in the tenant's namespace

    def keys(self) -> set[tuple[str, str]]:
        """Return (kind, name) of every object in the tenant's namespace."""
        return {(obj["kind"], obj["metadata"]["name"]) for obj in self.objects}


def build(resolved: Resolved, platform: Platform, credentials: Credentials) -> Desired:
    """Return everything that should exist for the tenant."""
    config = tenant_config.build(resolved, platform, credentials)
    tenant_policy = policy.build(resolved, credentials.account)
    namespace = resolved.identity.namespace
    files = parts.split(config)
    mounted = parts.mounted(len(files) - 1)
    has_knowledge = bool(resolved.served_knowledge_bases())
    pods = deployment.Pods(platform, credentials, mounted)
    objects: list[Json | None] = [
        service_account.build(namespace),
        secrets.stores(namespace, credentials),
        secrets.api_key(namespace, credentials),
        secrets.admin(namespace, credentials),
        *config_map.build(namespace, files),
        *network_policy.build(namespace, platform, worker=has_knowledge),
        service.build(namespace),
        pod_disruption_budget.build(namespace, resolved.settings.replicas),
        deployment.api(namespace, resolved.settings, pods),
        deployment.worker(namespace, pods) if has_knowledge else None,
    ]
    return Desired(
        config=config,
        policy=tenant_policy,
        policy_secret=with_digest(policy.secret(tenant_policy, platform.routes_namespace)),
        objects=[with_digest(obj) for obj in objects if obj is not None],
    )
