"""The tenant's Secrets: store credentials for its pods, and the first API key for its people."""

from __future__ import annotations

import base64

from assistant_crds import naming
from assistant_operator.desired.platform import Credentials, metadata
from assistant_operator.snapshot import Json


def stores(namespace: str, credentials: Credentials) -> Json:
    """Return the Secret that pods mount; its keys are the names of their settings."""
    return _secret(naming.STORES_SECRET, namespace, dict(credentials.stores))


def api_key(namespace: str, credentials: Credentials) -> Json:
    """Return the Secret with the first API key; deleting it makes a new key."""
    return _secret(naming.API_KEY_SECRET, namespace, {naming.API_KEY_KEY: credentials.api_key})


def _secret(name: str, namespace: str, values: dict[str, str]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(name, namespace, namespace, naming.API),
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in sorted(values.items())},
    }
