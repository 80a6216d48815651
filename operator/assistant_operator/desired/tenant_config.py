"""The document that a tenant's pods serve from."""

from __future__ import annotations

import hashlib

from assistant_crds import naming
from assistant_crds.conditions import Reason
from assistant_crds.contracts import ApiKeyConfig, TenantConfig, UnavailableAssistant, seal
from assistant_operator.desired.platform import Credentials, Platform
from assistant_operator.tenant.resolve import Resolved, ResolvedAssistant
from assistant_operator.tenant.snapshot import name_of

FIRST_KEY = "platform"
LONGEST_MESSAGE = 300


def build(resolved: Resolved, platform: Platform, credentials: Credentials) -> TenantConfig:
    """Return the sealed configuration; of the API key only its hash is in it, and a key that nobody can read is not."""
    key = hashlib.sha256(credentials.api_key.encode()).hexdigest()
    keys = [ApiKeyConfig(name=FIRST_KEY, sha256=key)] if credentials.stored(naming.API_KEY_SECRET) else []
    return seal(
        TenantConfig(
            tenant=resolved.identity,
            generation="",
            gateway_url=platform.gateway_url,
            collection=naming.VECTOR_COLLECTION,
            api_keys=keys,
            assistants=[assistant.config for assistant in resolved.assistants if assistant.config is not None],
            knowledge_bases=[base.config for base in resolved.knowledge_bases if base.config is not None],
            unavailable=[_unavailable(assistant) for assistant in resolved.assistants if not assistant.served],
            gateway_seconds=platform.gateway_seconds,
            allowed_origins=resolved.settings.allowed_origins,
            registration=resolved.settings.registration,
        )
    )


def _unavailable(assistant: ResolvedAssistant) -> UnavailableAssistant:
    """Return why an assistant is left out: callers are told to come back, not that there is no such assistant."""
    name = name_of(assistant.raw)
    for result in (assistant.accepted, assistant.resolved):
        if result.is_false:
            return UnavailableAssistant(name=name, reason=result.reason, message=result.message[:LONGEST_MESSAGE])
    message = f"Assistant {name} waits for its knowledge bases."
    return UnavailableAssistant(name=name, reason=Reason.KNOWLEDGE_BASE_NOT_READY, message=message)
