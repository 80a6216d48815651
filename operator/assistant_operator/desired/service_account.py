"""The identity of a tenant's pods; its only token is the projected one for the gateway."""

from __future__ import annotations

from assistant_crds import naming
from assistant_operator.desired.platform import metadata
from assistant_operator.tenant.snapshot import Json


def build(namespace: str) -> Json:
    """Return the ServiceAccount."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(naming.API, namespace, namespace, naming.API),
        "automountServiceAccountToken": False,
    }
