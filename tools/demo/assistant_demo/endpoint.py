"""How this machine reaches a tenant's API: directly, where Service addresses are routed, else by a port-forward."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

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
        pid = _running(record)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        record.unlink(missing_ok=True)


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
    if _running(record):
        local = int(json.loads(record.read_text())["port"])
        if _connects("127.0.0.1", local):
            return local
    log = record.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                *(*cluster.kubectl_command, "port-forward", "-n", namespace, target),
                *(f":{port}", "--address", "127.0.0.1"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        )
    deadline = time.monotonic() + FORWARD_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        told = re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", log.read_text())
        if told:
            local = int(told[1])
            record.write_text(json.dumps({"pid": process.pid, "started": _started(process.pid), "port": local}))
            return local
        time.sleep(0.1)
    process.terminate()
    raise DemoError(f"kubectl port-forward to {target} in {namespace} did not start: {log.read_text().strip()}")


def _running(record: Path) -> int | None:
    """The process of a record, if it is still the one that was recorded and not another under its number."""
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        return None
    started = _started(known["pid"])
    return int(known["pid"]) if started and started == known["started"] else None


def _started(pid: int) -> str:
    """When a process started, as `ps` tells it on Linux and macOS; empty when there is none."""
    done = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    )
    return done.stdout.strip()
