"""What the gateway lets a tenant do, and the Secret that carries it there."""

from __future__ import annotations

import base64

from assistant_crds import naming
from assistant_crds.contracts import TenantIdentity, TenantPolicy, encode, seal
from assistant_operator.desired.platform import metadata
from assistant_operator.tenant.resolve import Resolved
from assistant_operator.tenant.snapshot import Json


def build(resolved: Resolved, service_account_uid: str = "") -> TenantPolicy:
    """Return the sealed policy of the tenant's usable resources; without a UID it lets nobody in."""
    return seal(
        TenantPolicy(
            tenant=resolved.identity,
            generation="",
            service_account_uid=service_account_uid,
            models_allow=resolved.settings.models_allow,
            requests_per_minute=resolved.settings.quota.requests_per_minute,
            time_zone=resolved.settings.time_zone,
            failure_policy=resolved.settings.failure_policy,
            tokens_per_day=resolved.settings.quota.tokens_per_day,
            budget=resolved.settings.quota.budget,
            assistants={
                assistant.raw["metadata"]["name"]: assistant.policy
                for assistant in resolved.assistants
                if assistant.policy is not None
            },
            knowledge_bases={
                base.raw["metadata"]["name"]: base.policy
                for base in resolved.knowledge_bases
                if base.policy is not None
            },
        )
    )


def closed(identity: TenantIdentity) -> TenantPolicy:
    """Return the policy of a tenant that is going away: nothing is let through."""
    return seal(
        TenantPolicy(
            tenant=identity,
            generation="",
            models_allow=[],
            requests_per_minute=None,
            assistants={},
            knowledge_bases={},
            service_account_uid="",
        )
    )


def secret(policy: TenantPolicy, routes_namespace: str) -> Json:
    """Return the Secret in the routes namespace. It also records that the tenant may have data in the stores."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(
            naming.policy_secret(policy.tenant.key), routes_namespace, policy.tenant.namespace, "assistant-policy"
        ),
        "type": "Opaque",
        "data": {naming.POLICY_KEY: base64.b64encode(encode(policy)).decode()},
    }
