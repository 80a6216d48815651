"""A second node beside the one that everything else uses, and traffic from inside its pods."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

from assistant_cluster.layout import Layout
from assistant_cluster.node import NodeCluster
from assistant_cluster.progress import Progress, wait_until
from assistant_cluster.runtime import pause_reference, runtime
from assistant_cluster.sandbox import Sandbox

LAYOUT = Layout("lifecycle", 1)
PROGRAM = """
from assistant_cluster.layout import Layout
from assistant_cluster.node import NodeCluster
NodeCluster(Layout("lifecycle", 1)).up()
"""


def cluster() -> NodeCluster:
    """The second node; nothing runs until `up`."""
    return NodeCluster(LAYOUT, Progress(quiet=True))


def up_in_background() -> subprocess.Popen[bytes]:
    """`up` in a process of its own, to be killed or awaited."""
    return subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.DEVNULL)


def pod(name: str, *, namespace: str = "default", labels: dict[str, str] | None = None, **spec: Any) -> str:
    """A pod that does nothing: traffic comes from programs of this machine in the pod's network namespace."""
    container = {
        "name": "idle",
        "image": pause_reference(LAYOUT),
        "imagePullPolicy": "Never",
        **spec.pop("container", {}),
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec},
        }
    )


def run_pod(node: NodeCluster, manifest: str) -> dict[str, Any]:
    """Create a pod and wait until it is ready."""
    kubectl = node.kubectl()
    kubectl.apply(manifest)
    meta = json.loads(manifest)["metadata"]
    where = ("--namespace", meta["namespace"])
    kubectl.run("wait", *where, "--for=condition=Ready", f"pod/{meta['name']}", "--timeout=60s")
    found: dict[str, Any] = json.loads(kubectl.run("get", *where, "pod", meta["name"], "--output=json"))
    return found


def inside(running: dict[str, Any], *command: str) -> list[str]:
    """Command line, to be run in the node, that runs a program in a pod's network namespace."""
    container = running["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    tasks = subprocess.run(runtime(LAYOUT).ctr("task", "list"), capture_output=True, text=True, check=True).stdout
    pid = next(line.split()[1] for line in tasks.splitlines() if line.startswith(container))
    return ["nsenter", f"--target={pid}", "--net", "--", *command]


def python_inside(running: dict[str, Any], program: str) -> str:
    """What a Python program prints when its network is the pod's."""
    return Sandbox(LAYOUT).run(inside(running, sys.executable, "-c", textwrap.dedent(program))).strip()


def serve_inside(running: dict[str, Any], port: int) -> None:
    """An HTTP server in a pod's network, for as long as the node lives."""
    command = [sys.executable, "-m", "http.server", str(port), "--directory", str(LAYOUT.config / "cni")]
    Sandbox(LAYOUT).start("test-server", inside(running, *command))


def connects(running: dict[str, Any], address: str, port: int) -> bool:
    """Whether a TCP connection from the pod succeeds within a second."""
    program = f"""
        import socket
        try:
            socket.create_connection(("{address}", {port}), timeout=1).close()
            print("yes")
        except OSError:
            print("no")
    """
    return python_inside(running, program) == "yes"


def eventually(probe: Any, *, seconds: float = 10) -> bool:
    """Whether something becomes true."""
    return bool(wait_until(probe, seconds=seconds, every=0.2))
