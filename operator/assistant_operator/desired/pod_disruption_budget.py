"""Keeps one API pod up while nodes are drained."""

from __future__ import annotations

from assistant_crds import naming
from assistant_operator.desired.platform import metadata, selector
from assistant_operator.tenant.snapshot import Json


def build(namespace: str, replicas: int) -> Json | None:
    """Return the budget, or None for a single pod, which it would make impossible to drain."""
    if replicas < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(naming.API, namespace, namespace, naming.API),
        "spec": {"minAvailable": 1, "selector": {"matchLabels": selector(naming.API)}},
    }
