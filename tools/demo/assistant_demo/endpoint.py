"""How this machine reaches a tenant's API: directly, where Service addresses are routed, else by a port-forward."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

from assistant_demo import background
from assistant_demo.errors import DemoError
from assistant_demo.kubernetes import Kubernetes

CONNECT_SECONDS = 1.0
FORWARD_SECONDS = 20.0


def reach(cluster: Kubernetes, folder: Path, namespace: str, service: str, port: int) -> str:
    """Return the base URL of a Service as seen from here; a port-forward that this starts goes on until `close`."""
    found = cluster.get("service", service, namespace)
    if found is None:
        raise DemoError(
            f"The Service {service} is missing in namespace {namespace}. See kubectl get all -n {namespace}."
        )
    address = found["spec"]["clusterIP"]
    if _connects(address, port):
        host = f"[{address}]" if ":" in address else address
        return f"http://{host}:{port}"
    return f"http://127.0.0.1:{forward(cluster, folder, namespace, f'service/{service}', port)}"


def close(folder: Path) -> None:
    """End every port-forward that was recorded in a folder."""
    for record in folder.glob("port-forward-*.json"):
        background.stop(record)


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def forward(cluster: Kubernetes, folder: Path, namespace: str, target: str, port: int) -> int:
    """Return the local port of a port-forward that outlives this process; one that still runs is used again.

    `target` is what kubectl takes, such as `service/assistant-api`.
    """
    record = folder / f"port-forward-{namespace}-{target.replace('/', '-')}-{port}.json"
    if known := background.running(record):
        local = int(known["port"])
        if _connects("127.0.0.1", local):
            return local
    log = record.with_suffix(".log")
    command = [*cluster.kubectl_command, "port-forward", "-n", namespace, target, f":{port}", "--address", "127.0.0.1"]
    process = background.start(command, log, {"KUBECONFIG": str(cluster.kubeconfig)})
    deadline = time.monotonic() + FORWARD_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            local = int(found[1])
            background.record(record, process, port=local)
            return local
        time.sleep(0.1)
    process.terminate()
    raise DemoError(f"kubectl port-forward to {target} in {namespace} did not start: {log.read_text().strip()}")
