"""Helm 3 and Helm 4: the oldest version that the charts promise, and the present one, see the same charts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from charts_helm import CHARTS, NAMESPACE, Cluster, Helm

from assistant_cluster.apiserver import ApiServer, apiserver
from assistant_cluster.binaries import ensure

PLATFORM = str(CHARTS / "assistant-platform")
CRDS = str(CHARTS / "assistant-crds")


@pytest.fixture(scope="module")
def helm3(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The oldest Helm that docs/operators.md promises."""
    return Helm(ensure("helm3").command(), tmp_path_factory.mktemp("helm3"))


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """An API server for these releases alone."""
    with apiserver() as found:
        yield found


def of(helm: Helm, server: ApiServer) -> Helm:
    return Helm(helm.command, helm.home, server.kubeconfig)


def objects(helm: Helm, chart: str, *values: str) -> list[dict[str, Any]]:
    """Render a chart as users do, without its random passwords."""
    done = helm.run("template", "platform", chart, "--namespace", NAMESPACE, *values)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.safe_load_all(done.stdout) if document]
    for item in found:
        if item["kind"] == "Secret":
            item["stringData"] = sorted(item.get("stringData", {}))
    return sorted(found, key=lambda item: (item["kind"], item["metadata"]["name"]))


@pytest.mark.parametrize("values", [(), ("--values", f"{PLATFORM}/values-small.yaml")], ids=["defaults", "small"])
def test_both_render_the_same(helm: Helm, helm3: Helm, values: tuple[str, ...]) -> None:
    """No function or default of one version decides what is installed, and no `--kube-version` is needed."""
    assert objects(helm, PLATFORM, *values) == objects(helm3, PLATFORM, *values)
    assert objects(helm, CRDS) == objects(helm3, CRDS)


def test_a_release_passes_from_helm_3_to_helm_4_and_back(helm: Helm, helm3: Helm, server: ApiServer) -> None:
    """Installed by Helm 3, upgraded by 4 both ways, rolled back by 4 and by 3: the objects are what the values say."""
    old, new = of(helm3, server), of(helm, server)

    def run(with_helm: Helm, *arguments: str) -> None:
        done = with_helm.run(*arguments, "--namespace", NAMESPACE)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"

    def log_format() -> str:
        deployment = Cluster(server, new).get("deployment", "assistant-gateway", "-n", NAMESPACE)
        environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        return next(item["value"] for item in environment if item["name"] == "GATEWAY_LOG_FORMAT")

    run(old, "install", "crds", CRDS, "--create-namespace")
    run(old, "install", "platform", PLATFORM)
    assert log_format() == "json"
    run(new, "upgrade", "platform", PLATFORM, "--set", "logFormat=console")
    assert log_format() == "console"
    run(new, "upgrade", "platform", PLATFORM, "--server-side=true", "--force-conflicts", "--set", "logFormat=json")
    assert log_format() == "json"
    run(new, "rollback", "platform", "2")
    assert log_format() == "console"
    run(old, "rollback", "platform", "1")
    assert log_format() == "json"
    run(new, "upgrade", "crds", CRDS)


def test_a_first_installation_by_helm_4_is_applied_by_the_server(cluster: Any) -> None:
    """Its default since 4.0: fields have one owner, so that a GitOps tool or an operator beside it is seen."""
    deployment = cluster.get("deployment", "assistant-gateway", "-n", NAMESPACE, "--show-managed-fields")
    managers = {(entry["manager"], entry["operation"]) for entry in deployment["metadata"]["managedFields"]}
    assert managers == {("helm", "Apply")}
