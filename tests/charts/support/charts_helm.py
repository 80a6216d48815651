"""Helm and a cluster with the charts, as the charts' tests use them."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from assistant_cluster.apiserver import ApiServer

CHARTS = Path(__file__).parents[3] / "charts"
NAMESPACE = "assistant-platform"
SECONDS = 90

Json = dict[str, Any]


@dataclass(frozen=True)
class Helm:
    """The helm command; `kubeconfig` only where it is to talk to a server."""

    command: list[str]
    home: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {"HOME": str(self.home), "PATH": "/usr/bin:/bin"}
        if self.kubeconfig:
            environment["KUBECONFIG"] = str(self.kubeconfig)
        return subprocess.run(
            [*self.command, *arguments], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def template(self, chart: str, *arguments: str) -> list[Json]:
        """Return the rendered objects, hooks among them."""
        done = self.run(
            "template",
            "platform",
            str(CHARTS / chart),
            "--namespace",
            NAMESPACE,
            "--kube-version",
            "1.34.0",
            *arguments,
        )
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    def refusal(self, *arguments: str) -> str:
        """Return what is said to values that the platform chart does not take."""
        done = self.run(
            "template", "platform", str(CHARTS / "assistant-platform"), "--kube-version", "1.34.0", *arguments
        )
        assert done.returncode != 0, "these values should have been refused"
        return done.stderr


@dataclass(frozen=True)
class Cluster:
    """A real API server with both charts installed."""

    server: ApiServer
    helm: Helm
    values: list[str] = field(default_factory=list)

    def kubectl(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.server.kubectl, f"--kubeconfig={self.server.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def get(self, *arguments: str) -> Json:
        done = self.kubectl("get", *arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        document: Json = json.loads(done.stdout)
        return document

    def apply(self, document: Json, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.kubectl("apply", "-f", "-", *arguments, stdin=json.dumps(document))

    def upgrade(self, *arguments: str) -> None:
        """Install the platform, or upgrade it to these values."""
        done = self.helm.run(
            *("upgrade", "--install", "platform", str(CHARTS / "assistant-platform"), "--namespace", NAMESPACE),
            *("--create-namespace", *arguments),
        )
        assert done.returncode == 0, done.stderr
