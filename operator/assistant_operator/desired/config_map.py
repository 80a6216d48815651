"""The ConfigMap through which a tenant's pods get their configuration while they run."""

from __future__ import annotations

from assistant_crds import naming
from assistant_crds.contracts import TenantConfig, encode
from assistant_operator.desired.platform import metadata
from assistant_operator.snapshot import Json


def build(namespace: str, config: TenantConfig) -> Json:
    """Return the ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(naming.CONFIG_MAP, namespace, namespace, naming.API),
        "data": {naming.CONFIG_KEY: encode(config).decode()},
    }
