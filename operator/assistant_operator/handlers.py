"""The index of everything that enqueues a tenant. No logic: an event names a tenant, the queue does the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import kopf

from assistant_crds import naming
from assistant_operator.adapters.watch_session import session
from assistant_operator.index import Index
from assistant_operator.liveness import Liveness

_OURS = f"{naming.LABEL_MANAGED_BY}={naming.MANAGED_BY}"
# Kinds of which only our own objects are watched: the API server leaves out all others.
_OWNED = (
    ("apps", "v1", "deployments"),
    ("", "v1", "services"),
    ("", "v1", "serviceaccounts"),
    ("", "v1", "pods"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("policy", "v1", "poddisruptionbudgets"),
)
# Types of Secrets that never hold an API key, and that are many or large.
_FOREIGN_SECRETS = (
    "helm.sh/release.v1",
    "kubernetes.io/service-account-token",
    "kubernetes.io/dockerconfigjson",
    "kubernetes.io/dockercfg",
    "bootstrap.kubernetes.io/token",
)


# The namespace of a tenant, and whether somebody changed a resource in it, whose run then goes before others.
Enqueue = Callable[[str, bool], None]


class Triggers:
    """What an event comes down to: the namespace of a tenant, handed to `enqueue`. Called from kopf's thread."""

    def __init__(self, routes_namespace: str, index: Index, liveness: Liveness, enqueue: Enqueue) -> None:
        self._routes_namespace = routes_namespace
        self._index = index
        self._liveness = liveness
        self._enqueue = enqueue
        self._seen: dict[str, tuple[Any, ...]] = {}  # by UID: what of a resource makes a run worth while

    async def resource(self, *, namespace: Any, event: Any, **_: Any) -> None:
        """An Assistant or KnowledgeBase."""
        if self._is_news(event):
            self._enqueue(namespace, _is_change(event))

    async def tenant(self, *, name: Any, event: Any, **_: Any) -> None:
        """A Tenant: it has the name of its namespace."""
        if self._is_news(event):
            self._enqueue(name, event["type"] is not None)

    async def owned(self, *, namespace: Any, labels: Any, event: Any, **_: Any) -> None:
        """One of our objects, or a Secret or ConfigMap that a tenant's resources refer to.

        Our objects in the routes namespace name their tenant.
        """
        self._liveness.heard()
        tenant = labels.get(naming.LABEL_TENANT, "") if namespace == self._routes_namespace else namespace
        self._enqueue(tenant, event["type"] is not None and not _is_ours(labels))

    def secret_matters(self, *, name: Any, namespace: Any, labels: Any, **_: Any) -> bool:
        """Whether a Secret is ours or referred to."""
        return _is_ours(labels) or self._index.secret(namespace, name)

    def config_map_matters(self, *, name: Any, namespace: Any, labels: Any, **_: Any) -> bool:
        """Whether a ConfigMap is ours or referred to."""
        return _is_ours(labels) or self._index.config_map(namespace, name)

    def _is_news(self, event: Any) -> bool:
        """Return whether the event is about more than a status, which the operator writes itself."""
        metadata = event["object"]["metadata"]
        if event["type"] == "DELETED":
            self._liveness.gone(event["object"])
            self._seen.pop(metadata["uid"], None)
            return True
        self._liveness.seen(event["object"])
        now = (
            metadata.get("generation"),
            metadata.get("deletionTimestamp"),
            metadata.get("finalizers"),
            (metadata.get("annotations") or {}).get(naming.ANNOTATION_REINDEX),
        )
        before = self._seen.get(metadata["uid"])
        self._seen[metadata["uid"]] = now
        return now != before


def _is_change(event: Any) -> bool:
    """Return whether a user changed an Assistant or KnowledgeBase, so that its run is urgent.

    The first list after a start has events without a type; what was handled before has our finalizer.
    """
    metadata = event["object"]["metadata"]
    handled = naming.FINALIZER in (metadata.get("finalizers") or ()) and not metadata.get("deletionTimestamp")
    return event["type"] is not None or not handled


def _is_ours(labels: Any) -> bool:
    return bool(labels.get(naming.LABEL_MANAGED_BY) == naming.MANAGED_BY)


def register(registry: kopf.OperatorRegistry, triggers: Triggers) -> None:
    """Register every trigger, and how kopf logs in."""
    kopf.on.login(registry=registry)(log_in)
    group, version, on = naming.GROUP, naming.VERSION, kopf.on.event
    on(group, version, "assistants", registry=registry)(triggers.resource)
    on(group, version, "knowledgebases", registry=registry)(triggers.resource)
    on(group, version, "tenants", registry=registry)(triggers.tenant)
    on("", "v1", "secrets", when=triggers.secret_matters, registry=registry)(triggers.owned)
    on("", "v1", "configmaps", when=triggers.config_map_matters, registry=registry)(triggers.owned)
    for owned in _OWNED:
        on(*owned, registry=registry)(triggers.owned)


async def log_in(**kwargs: Any) -> kopf.AiohttpSession | None:
    """Log in with a session that reads metadata only."""
    connection = login(**kwargs)
    return None if connection is None else session(connection)


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Return how to log in: with the pod's ServiceAccount or, outside of a pod, with the kubeconfig."""
    account = kopf.login_with_service_account(**kwargs)
    if account is None:
        return kopf.login_with_kubeconfig(**kwargs)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    # By its address, as our other client does: the watches must not depend on the cluster's DNS.
    return replace(account, server=f"https://{f'[{host}]' if ':' in host else host}:{port}") if host else account


def configure(settings: kopf.OperatorSettings) -> None:
    """Make kopf a reader: nothing it does by default may change an object."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # Kopf removes its own finalizer from every object it watches; this name is never set, by no operator.
    settings.persistence.finalizer = f"{naming.GROUP}/never-set"
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.connect_timeout = 5
    # So many objects are held in whole at once when everything is listed; metadata may have a quarter of a megabyte.
    settings.watching.chunk_size = 100
    # Watches restart now and then, so that a half-open connection does not last for ever.
    settings.watching.server_timeout = 290
    for resource in _OWNED:
        settings.watching.label_selectors[resource] = _OURS
    settings.watching.field_selectors["", "v1", "secrets"] = ",".join(f"type!={kind}" for kind in _FOREIGN_SECRETS)
