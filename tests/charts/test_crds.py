"""The assistant-crds chart: it renders the definitions of crds/, upgradable, and not gone by accident."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "crds").glob("*.yaml"))
CHART = ROOT / "charts" / "assistant-crds"


def test_rendering_changes_nothing_but_labels_and_annotations(helm: Any) -> None:
    """Schemas, rules and columns reach the cluster as they are written."""
    rendered = {crd["metadata"]["name"]: crd for crd in helm.template("assistant-crds")}
    sources = [yaml.safe_load(path.read_text()) for path in SOURCES]
    assert {crd["metadata"]["name"] for crd in sources} == set(rendered)
    for source in sources:
        crd = rendered[source["metadata"]["name"]]
        assert crd["spec"] == source["spec"]
        assert source["metadata"]["labels"].items() <= crd["metadata"]["labels"].items()


@pytest.mark.parametrize(("value", "kept"), [("true", True), ("false", False)])
def test_whether_uninstalling_deletes_everything_is_a_choice(helm: Any, value: str, kept: bool) -> None:
    """By default Helm leaves the definitions, and so every resource; `keep: false` says otherwise."""
    annotations = [
        crd["metadata"].get("annotations", {}) for crd in helm.template("assistant-crds", "--set", f"keep={value}")
    ]
    assert [a.get("helm.sh/resource-policy") == "keep" for a in annotations] == [kept] * 3


def test_unknown_values_are_refused(helm: Any) -> None:
    """A misspelt value is an error, not ignored."""
    done = helm.run("template", "crds", str(CHART), "--set", "kept=false")
    assert done.returncode != 0
    assert "'kept' not allowed" in done.stderr


def test_definitions_outlive_the_release_and_can_be_taken_up_again(cluster: Any) -> None:
    """After `helm uninstall` every Assistant is still there; installing again takes the definitions over."""
    chart = str(CHART)
    removed = cluster.helm.run("uninstall", "crds", "--namespace", "default")
    assert removed.returncode == 0, removed.stderr
    assert len(cluster.get("crd")["items"]) == len(SOURCES)
    again = cluster.helm.run("install", "crds", chart, "--namespace", "default")
    assert again.returncode == 0, again.stderr
    upgraded = cluster.helm.run("upgrade", "crds", chart, "--namespace", "default", "--set", "keep=true")
    assert upgraded.returncode == 0, upgraded.stderr
