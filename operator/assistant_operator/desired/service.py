"""The address of a tenant's API inside the cluster."""

from __future__ import annotations

from assistant_crds import naming
from assistant_operator.desired.deployment import API_PORT
from assistant_operator.desired.platform import metadata, selector
from assistant_operator.tenant.snapshot import Json


def build(namespace: str) -> Json:
    """Return the Service. Metrics are scraped from pods, not through it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(naming.API, namespace, namespace, naming.API),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(naming.API),
            "ports": [
                {"name": "http", "port": API_PORT, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}
            ],
        },
    }


def url(namespace: str) -> str:
    """Return the base URL for OpenAI clients inside the cluster."""
    return f"http://{naming.API}.{namespace}.svc:{API_PORT}/v1"
