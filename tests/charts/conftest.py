"""Helm as the tests use it, and one real API server on which the charts are installed.

No controller runs beside that server: objects are admitted, stored and patched as everywhere, but no pod is made.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from assistant_cluster.apiserver import ApiServer, apiserver
from assistant_cluster.binaries import ensure

CHARTS = Path(__file__).parents[2] / "charts"
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


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm without a cluster."""
    return Helm(ensure("helm").command(), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def render(helm: Helm) -> Callable[..., list[Json]]:
    """Render the platform chart with these `--set` values; each set of values once per session."""
    rendered: dict[tuple[str, ...], list[Json]] = {}

    def render(*values: str, files: tuple[str, ...] = ()) -> list[Json]:
        key = (*files, *values)
        if key not in rendered:
            arguments = [part for file in files for part in ("--values", str(CHARTS.parent / file))]
            arguments += [part for value in values for part in ("--set", value)]
            rendered[key] = helm.template("assistant-platform", *arguments)
        return rendered[key]

    return render


@pytest.fixture(scope="session")
def empty_server() -> Iterator[ApiServer]:
    """An API server with nothing of ours on it yet."""
    with apiserver() as server:
        yield server


@pytest.fixture(scope="session")
def cluster(empty_server: ApiServer, helm: Helm) -> Cluster:
    """The server with both charts installed, its namespaces `restricted`."""
    connected = Helm(helm.command, helm.home, empty_server.kubeconfig)
    done = connected.run("upgrade", "--install", "crds", str(CHARTS / "assistant-crds"), "--namespace", "default")
    assert done.returncode == 0, done.stderr
    cluster = Cluster(empty_server, connected)
    wait = cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    assert wait.returncode == 0, wait.stderr
    cluster.upgrade()
    enforced = cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    assert enforced.returncode == 0, enforced.stderr
    return cluster
