"""Helm as the tests use it, and one real API server on which the charts are installed.

No controller runs beside that server: objects are admitted, stored and patched as everywhere, but no pod is made.
"""

from collections.abc import Callable, Iterator

import pytest
from charts_helm import CHARTS, NAMESPACE, Cluster, Helm, Json

from assistant_cluster.apiserver import ApiServer, apiserver
from assistant_cluster.binaries import ensure


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
