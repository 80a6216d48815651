"""Which tenants refer to which Secrets and ConfigMaps, so that only events that matter wake the queue.

Written by the reconcile runs and read by the watch thread: each entry is replaced as a whole, never changed.
"""

from __future__ import annotations

from assistant_operator.tenant.snapshot import References


class Index:
    """References by namespace."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, References] = {}

    def put(self, namespace: str, references: References) -> None:
        """Remember what the namespace's resources refer to. Do this before reading those objects."""
        if references.secrets or references.config_maps:
            self._by_namespace[namespace] = references
        else:
            self._by_namespace.pop(namespace, None)

    def secret(self, namespace: str, name: str) -> bool:
        """Return whether a resource of the namespace refers to the Secret."""
        known = self._by_namespace.get(namespace)
        return known is not None and name in known.secrets

    def config_map(self, namespace: str, name: str) -> bool:
        """Return whether a resource of the namespace refers to the ConfigMap."""
        known = self._by_namespace.get(namespace)
        return known is not None and name in known.config_maps
