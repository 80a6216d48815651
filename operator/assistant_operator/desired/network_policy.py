"""Default deny for a tenant's pods, with named ways in and out.

Names resolve anywhere on port 53: clusters differ in where their DNS runs (pods, a node-local cache, a host).
Model providers are not among the ways out: only the gateway reaches them.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from assistant_crds import naming
from assistant_operator.desired.deployment import API_PORT, METRICS_PORT
from assistant_operator.desired.platform import Platform, metadata, selector
from assistant_operator.tenant.snapshot import Json

DEFAULT_DENY = "assistant-default-deny"
# Labels by which other namespaces opt in: their pods may call the API, or scrape metrics.
LABEL_INGRESS = f"{naming.GROUP}/ingress"
LABEL_MONITORING = f"{naming.GROUP}/monitoring"
_NAMESPACE_NAME = "kubernetes.io/metadata.name"
_PLATFORM_PORTS = {
    "assistant-gateway": [8081],
    "assistant-postgres": [5432],
    "assistant-redis": [6379],
    "assistant-weaviate": [8080, 50051],
}


def build(namespace: str, platform: Platform, *, worker: bool) -> list[Json]:
    """Return the policies; the worker has one of its own only while there is a worker."""
    same_namespace: Json = {"podSelector": {}}
    opted_in = {"namespaceSelector": {"matchLabels": {LABEL_INGRESS: "true"}}}
    monitoring = {"namespaceSelector": {"matchLabels": {LABEL_MONITORING: "true"}}}
    platform_namespace = _namespace(platform.namespace)
    metrics = {"from": [platform_namespace, monitoring], "ports": _ports(METRICS_PORT)}
    serving = {"from": [same_namespace, platform_namespace, opted_in], "ports": _ports(API_PORT)}
    deny: Json = {
        "podSelector": {"matchLabels": {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}},
        "policyTypes": ["Ingress", "Egress"],
    }
    policies = [
        _policy(DEFAULT_DENY, namespace, naming.API, deny),
        _policy(naming.API, namespace, naming.API, _rules(naming.API, [serving, metrics], platform)),
    ]
    if worker:
        policies.append(
            _policy(naming.WORKER, namespace, naming.WORKER, _rules(naming.WORKER, [metrics], platform)),
        )
    return policies


def _policy(name: str, namespace: str, component: str, spec: Json) -> Json:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(name, namespace, namespace, component),
        "spec": spec,
    }


def _rules(component: str, ingress: list[Json], platform: Platform) -> Json:
    return {
        "podSelector": {"matchLabels": selector(component)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": _egress(platform),
    }


def _egress(platform: Platform) -> list[Json]:
    rules: list[Json] = [{"ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]}]
    for part, ports in _PLATFORM_PORTS.items():
        peer = {**_namespace(platform.namespace), "podSelector": {"matchLabels": {naming.LABEL_NAME: part}}}
        rules.append({"to": [peer], "ports": _ports(*ports)})
    rules.extend({"to": [{"ipBlock": {"cidr": out.cidr}}], "ports": _ports(*out.ports)} for out in platform.egress)
    if platform.otlp_endpoint:
        rules.append(_telemetry(platform.otlp_endpoint))
    return rules


def _telemetry(endpoint: str) -> Json:
    """Return the way to the trace collector, as the chart does: its port, in its namespace if it is a Service."""
    parts = urlsplit(endpoint)
    labels = (parts.hostname or "").split(".")
    rule: Json = {"ports": _ports(parts.port or (443 if parts.scheme == "https" else 80))}
    if len(labels) > 2 and labels[2] == "svc":
        rule["to"] = [_namespace(labels[1])]
    return rule


def _namespace(name: str) -> Json:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: name}}}


def _ports(*ports: int) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in ports]
