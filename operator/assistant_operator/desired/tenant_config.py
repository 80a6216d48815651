"""The document that a tenant's pods serve from."""

from __future__ import annotations

import hashlib

from assistant_crds import naming
from assistant_crds.contracts import ApiKeyConfig, TenantConfig, seal
from assistant_operator.desired.platform import Credentials, Platform
from assistant_operator.reconcile.resolve import Resolved

FIRST_KEY = "platform"


def build(resolved: Resolved, platform: Platform, credentials: Credentials) -> TenantConfig:
    """Return the sealed configuration; of the API key only its hash is in it."""
    key = hashlib.sha256(credentials.api_key.encode()).hexdigest()
    return seal(
        TenantConfig(
            tenant=resolved.identity,
            generation="",
            gateway_url=platform.gateway_url,
            collection=naming.VECTOR_COLLECTION,
            api_keys=[ApiKeyConfig(name=FIRST_KEY, sha256=key)],
            assistants=[assistant.config for assistant in resolved.assistants if assistant.config is not None],
            knowledge_bases=[base.config for base in resolved.knowledge_bases if base.config is not None],
        )
    )
