"""The tenant's pods. Only what shapes a pod is here: configuration reaches running pods through the ConfigMap.

Pods fulfil the Pod Security Standard `restricted`, and carry no token but the projected one for the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass

from assistant_crds import naming
from assistant_operator.desired import config_map
from assistant_operator.desired.platform import Credentials, Platform, Resources, metadata, selector
from assistant_operator.tenant.resolve import TenantSettings
from assistant_operator.tenant.snapshot import Json

API_PORT = 8080
METRICS_PORT = 9090
ANNOTATION_CREDENTIALS = f"{naming.GROUP}/credentials"
USER = 10001
TOKEN_FOLDER = "/var/run/secrets/assistant-gateway"  # noqa: S105 - a folder
CONFIG_FOLDER = "/etc/assistant/config"
STORES_FOLDER = "/etc/assistant/stores"
ADMIN_FOLDER = "/etc/assistant/admin"


@dataclass(frozen=True)
class Pods:
    """What both kinds of pods have in common; `parts` is how many further files of configuration they mount."""

    platform: Platform
    credentials: Credentials
    parts: int = 0


def api(namespace: str, settings: TenantSettings, pods: Pods) -> Json:
    """Return the Deployment of the tenant's API."""
    resources = Resources(settings.requests, settings.limits)
    container = _container(naming.API, "assistant_api", pods.platform, resources, {"API_DRAIN_SECONDS": "0"})
    container = {
        **container,
        "volumeMounts": [*container["volumeMounts"], {"name": "admin", "mountPath": ADMIN_FOLDER, "readOnly": True}],
        "ports": [
            {"name": "http", "containerPort": API_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        # Asked every second, so that a new assistant gets its first request within seconds.
        "readinessProbe": _probe("/readyz", "http", {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 3}),
        **_alive("http"),
        # New requests go elsewhere by the time the process is told to end, so that it need not wait by itself;
        # streams that run then have 25 seconds to end.
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
    }
    volumes = [
        *_volumes(pods.parts),
        # Optional: the pod starts without it, and nobody signs in for the first time until it is there.
        {"name": "admin", "secret": {"secretName": naming.ADMIN_SECRET, "defaultMode": 0o440, "optional": True}},
    ]
    return _deployment(naming.API, namespace, settings.replicas, (container, volumes), pods)


def worker(namespace: str, pods: Pods) -> Json:
    """Return the Deployment of the tenant's ingestion worker."""
    container = {
        **_container(naming.WORKER, "assistant_api.worker", pods.platform, pods.platform.worker_resources, {}),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        **_alive("metrics"),
    }
    # It reads what strangers wrote, and signs nothing.
    files = [
        {"key": key, "path": key}
        for key in sorted(pods.credentials.stores)
        if key not in {naming.SIGNING_KEY, naming.AUDIT_KEY}
    ]
    return _deployment(naming.WORKER, namespace, 1, (container, _volumes(pods.parts, files)), pods)


def _deployment(name: str, namespace: str, replicas: int, shape: tuple[Json, list[Json]], pods: Pods) -> Json:
    container, volumes = shape
    labels = metadata(name, namespace, namespace, name)["labels"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, namespace, namespace, name),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 120,
            "selector": {"matchLabels": selector(name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels, "annotations": {ANNOTATION_CREDENTIALS: pods.credentials.digest}},
                "spec": {
                    "serviceAccountName": naming.API,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 40,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": USER,
                        "runAsGroup": USER,
                        "fsGroup": USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": selector(name)},
                        }
                    ],
                    **_pull_secrets(pods.platform),
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }


def _container(name: str, module: str, platform: Platform, resources: Resources, extra: dict[str, str]) -> Json:
    environment = {
        "API_CONFIG_FILE": f"{CONFIG_FOLDER}/{naming.CONFIG_KEY}",
        "API_SECRETS_DIR": STORES_FOLDER,
        "API_GATEWAY_TOKEN_FILE": f"{TOKEN_FOLDER}/token",
        "API_PORT": str(API_PORT),
        "API_METRICS_PORT": str(METRICS_PORT),
        "API_LOG_FORMAT": platform.log_format,
        **extra,
        **(_telemetry(platform) if platform.otlp_endpoint else {}),
    }
    return {
        "name": name,
        "image": platform.api_image,
        "imagePullPolicy": platform.image_pull_policy,
        "args": ["python", "-m", module],  # the image's entry point is an init
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"requests": dict(resources.requests), "limits": dict(resources.limits)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "stores", "mountPath": STORES_FOLDER, "readOnly": True},
            {"name": "gateway-token", "mountPath": TOKEN_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the container
        ],
    }


def _pull_secrets(platform: Platform) -> Json:
    return {"imagePullSecrets": [{"name": name} for name in platform.pull_secrets]} if platform.pull_secrets else {}


def _telemetry(platform: Platform) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": platform.otlp_endpoint,
        "OTEL_TRACES_SAMPLER_ARG": f"{platform.sample_ratio:g}",
    }


def _volumes(parts: int, files: list[Json] | None = None) -> list[Json]:
    """Return the volumes of both kinds of pods; `files` are those of the stores' Secret, all unless they are named."""
    token = {"path": "token", "audience": naming.GATEWAY_AUDIENCE, "expirationSeconds": 3600}
    return [
        config_map.volume(parts),
        {
            "name": "stores",
            "secret": {
                "secretName": naming.STORES_SECRET,
                "defaultMode": 0o440,
                **({"items": files} if files is not None else {}),
            },
        },
        {
            "name": "gateway-token",
            "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]},
        },
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]


def _alive(port: str) -> Json:
    """Return the probes by which a process that will never answer again is started anew, and no other.

    A start takes seconds of the processor. On a node that is short of it, a pod that is ended for being slow begins
    from the front, at more cost than if it had been left alone, and so does each of its neighbours, for ever.
    """
    return {
        # Five minutes; asked every second, as the readiness probe begins only then.
        "startupProbe": _probe("/livez", port, {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 300}),
        "livenessProbe": _probe("/livez", port, {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6}),
    }


def _probe(path: str, port: str, timing: Json) -> Json:
    return {"httpGet": {"path": path, "port": port}, **timing}
