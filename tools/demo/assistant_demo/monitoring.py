"""The configuration of the Prometheus and Alertmanager that `make observe` starts on this machine, and their targets.

Debian's Prometheus is built without Kubernetes service discovery (findings/debian-prometheus-finds-no-pods.sh), so a
program of ours lists the pods and writes them into a file that Prometheus watches.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from assistant_demo.errors import DemoError
from assistant_demo.kubernetes import Kubernetes, Object

SCRAPE_SECONDS = 5
DISCOVER_SECONDS = 10
PORT_NAME = "metrics"
PLATFORM_PARTS = frozenset({"assistant-operator", "assistant-gateway"})
TENANT_PARTS = frozenset({"assistant-api", "assistant-worker"})
LABEL = "app.kubernetes.io/name"
SELECTOR = f"{LABEL} in ({', '.join(sorted(PLATFORM_PARTS | TENANT_PARTS))})"

Group = dict[str, Any]  # targets with their labels, as `file_sd_configs` reads them


def prometheus(rules: Path, targets: Path, alertmanager: str) -> dict[str, Any]:
    """Return Prometheus's configuration; `targets` is the file of `write_targets`, `alertmanager` host:port."""
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(rules)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {
                "job_name": "assistant",
                "file_sd_configs": [{"files": [str(targets)], "refresh_interval": f"{DISCOVER_SECONDS}s"}],
                "metric_relabel_configs": [{"regex": "exported_.*", "action": "labeldrop"}],
            }
        ],
    }


def alertmanager() -> dict[str, Any]:
    """Return a configuration that groups alerts by name and tenant, and sends them nowhere: `amtool` shows them."""
    route = {"receiver": "nowhere", "group_by": ["alertname", "tenant"], "group_wait": "5s", "group_interval": "30s"}
    return {"route": route, "receivers": [{"name": "nowhere"}]}


def targets(pods: list[Object], namespace: str) -> list[Group]:
    """Return the running pods' addresses with the labels that the chart's monitors give them.

    Those of the platform's `namespace` get no `tenant`: operator and gateway say of whom they speak themselves.
    """
    found = []
    for pod in pods:
        part, home = pod["metadata"]["labels"][LABEL], pod["metadata"]["namespace"]
        ports = [
            port["containerPort"]
            for container in pod["spec"]["containers"]
            for port in container.get("ports", [])
            if port.get("name") == PORT_NAME
        ]
        address = pod["status"].get("podIP")
        expected = PLATFORM_PARTS if home == namespace else TENANT_PARTS
        if part not in expected or not ports or not address or pod["status"].get("phase") != "Running":
            continue
        labels = {"job": part, "namespace": home, "pod": pod["metadata"]["name"]}
        if home != namespace:
            labels["tenant"] = home
        found.append({"targets": [f"{address}:{ports[0]}"], "labels": labels})
    return found


def write_targets(cluster: Kubernetes, namespace: str, file: Path) -> None:
    """Write where the pods are now; a reader sees the file before or after, never in between."""
    text = json.dumps(targets(cluster.list("pods", selector=SELECTOR), namespace), indent=2)
    if not file.exists() or file.read_text() != text:
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(file)


def keep_writing_targets(cluster: Kubernetes, namespace: str, file: Path) -> None:
    """Do so every ten seconds, until the process is ended; a cluster that does not answer leaves the file as it is."""
    while True:
        with contextlib.suppress(DemoError):
            write_targets(cluster, namespace, file)
        time.sleep(DISCOVER_SECONDS)
