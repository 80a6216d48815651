"""A pod of an attacker: Python and the clients of the stores, in a namespace of its own, under chosen labels."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from typing import Any

from e2e_platform import Tenant, eventually

from assistant_demo.kubernetes import Object

AUDIENCE_PATH = "/var/run/secrets/probe"


@dataclass
class Probe:
    """A running pod in which Python can be run."""

    tenant: Tenant
    name: str

    def python(self, code: str, *arguments: str, seconds: float = 60) -> Any:
        """Run a program in the pod; returns what it printed, decoded from JSON."""
        out = self.tenant.cluster.kubectl(
            *(
                "exec",
                "-n",
                self.tenant.namespace,
                self.name,
                "--",
                "/opt/venv/bin/python",
                "-c",
                textwrap.dedent(code),
            ),
            *arguments,
            seconds=seconds,
        )
        return json.loads(out)

    def connects(self, host: str, port: int) -> bool:
        """Whether a TCP connection from the pod is accepted within three seconds."""
        connected: bool = self.python(
            """
            import json, socket, sys
            try:
                socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
                print(json.dumps(True))
            except OSError:
                print(json.dumps(False))
            """,
            host,
            str(port),
        )
        return connected

    def request(self, url: str, token: str = "", body: Object | None = None) -> tuple[int, str]:
        """Send an HTTP request from the pod; returns status and body."""
        status, text = self.python(
            """
            import json, sys, urllib.error, urllib.request
            url, token, body = sys.argv[1:]
            request = urllib.request.Request(url, data=body.encode() or None)
            request.add_header("Content-Type", "application/json")
            if token:
                request.add_header("Authorization", f"Bearer {token}")
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    print(json.dumps([answer.status, answer.read().decode()]))
            except urllib.error.HTTPError as error:
                print(json.dumps([error.code, error.read().decode()]))
            """,
            url,
            token,
            json.dumps(body) if body else "",
        )
        return status, text


def start(tenant: Tenant, name: str = "probe", labels: dict[str, str] | None = None) -> Probe:
    """Start a pod in the tenant's namespace, as whoever may run pods there could; wait until it runs."""
    container = {
        "name": "probe",
        "image": tenant.platform.images["api"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/venv/bin/python", "-c", "import signal; signal.pause()"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    tenant.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": tenant.namespace, "labels": {"app": name, **(labels or {})}},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
            },
        }
    )

    def running() -> None:
        pod = tenant.get("pod", name)
        assert pod["status"].get("phase") == "Running", pod["status"]

    eventually(running, seconds=60)
    return Probe(tenant, name)


def token(tenant: Tenant, account: str, audience: str) -> str:
    """A token of a ServiceAccount of the tenant, as its pods could get it."""
    return tenant.cluster.kubectl(
        "create", "token", account, "-n", tenant.namespace, f"--audience={audience}", "--duration=10m"
    ).strip()
