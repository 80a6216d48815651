"""The tenant's Secrets: credentials for its pods; the first API key and the first sign-in for its people."""

from __future__ import annotations

import base64

from assistant_crds import naming
from assistant_operator.desired.platform import Credentials, metadata
from assistant_operator.tenant.snapshot import Json


def stores(namespace: str, credentials: Credentials) -> Json:
    """Return the Secret that pods mount; its keys are the names of their settings."""
    return _secret(naming.STORES_SECRET, namespace, dict(credentials.stores))


def api_key(namespace: str, credentials: Credentials) -> Json:
    """Return the Secret with the first API key; deleting it makes a new key."""
    return _secret(naming.API_KEY_SECRET, namespace, {naming.API_KEY_KEY: credentials.api_key})


def admin(namespace: str, credentials: Credentials) -> Json:
    """Return the Secret with which the first owner signs in; it matters only until that owner exists."""
    values = {naming.ADMIN_EMAIL: credentials.admin_email, naming.ADMIN_PASSWORD: credentials.admin_password}
    return _secret(naming.ADMIN_SECRET, namespace, values)


def _secret(name: str, namespace: str, values: dict[str, str]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(name, namespace, namespace, naming.API),
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in sorted(values.items())},
    }
