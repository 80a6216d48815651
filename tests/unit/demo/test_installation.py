"""What goes into the charts, and what is said while waiting."""

import io
import json
from typing import Any, cast

import pytest

from assistant_demo.errors import DemoError
from assistant_demo.installation import _digest, _merged, _unfinished, served, unready, values, wait_for_workloads
from assistant_demo.kubernetes import Kubernetes
from assistant_demo.settings import MULTILINGUAL, STAND_IN
from assistant_demo.terminal import Step, Terminal


def test_the_values_name_images_catalogue_and_ports() -> None:
    """Parts and embedded stores get their images; stores without one keep the chart's."""
    made = values(
        {"operator": "r/o:1", "gateway": "r/g:2", "api": "r/a:3", "demo": "r/d:4", "redis": "r/r:5"}, STAND_IN
    )
    assert made["operator"] == {"image": "r/o:1"}
    assert made["embedded"] == {"redis": {"image": "r/r:5"}}
    assert made["providers"]["demo"]["keyRef"] == "demo"
    assert made["networkPolicies"] == {"providers": {"ports": [80, 443, 8000]}}


def test_later_layers_win_without_losing_their_neighbours() -> None:
    """Values of two layers are merged as Helm merges two files."""
    assert _merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": [4]}) == {"a": {"b": 1, "c": 3}, "d": [4]}


def test_the_digest_of_a_release_changes_with_each_input(tmp_path) -> None:
    """A changed template or value means an upgrade; the same inputs mean none."""
    (tmp_path / "Chart.yaml").write_text("name: x")
    before = _digest(tmp_path, [], [{"a": 1}])
    assert before == _digest(tmp_path, [], [{"a": 1}])
    assert before != _digest(tmp_path, [], [{"a": 2}])
    (tmp_path / "Chart.yaml").write_text("name: y")
    assert before != _digest(tmp_path, [], [{"a": 1}])


def resource(*conditions: tuple[str, str, int]) -> dict:
    """Return an Assistant of generation 2 with conditions (type, status, observed generation)."""
    made = [
        {"type": kind, "status": status, "observedGeneration": seen, "reason": "Because", "message": f"{kind} it is."}
        for kind, status, seen in conditions
    ]
    meta = {"name": "support", "generation": 2}
    return {"kind": "Assistant", "metadata": meta, "status": {"conditions": made}}


def test_the_first_false_condition_is_the_reason_to_wait() -> None:
    """Of several conditions that are not True the one that comes first is told, with its message."""
    told = unready(resource(("Ready", "False", 2), ("EndpointAnswering", "False", 2), ("RefsResolved", "False", 2)))
    assert told == "Assistant support: RefsResolved is False (Because): RefsResolved it is."


def test_ready_for_an_older_generation_is_not_ready() -> None:
    """A Ready condition that speaks of the resource before its last change does not count."""
    assert "has not seen it" in (unready(resource(("Ready", "True", 1))) or "")
    assert unready(resource(("Ready", "True", 2))) is None


def test_a_workload_is_finished_when_all_its_pods_are_new_and_ready() -> None:
    """Old pods that still run, and pods that are not ready, are waited for."""
    workload = {"metadata": {"name": "gateway", "generation": 3}, "spec": {"replicas": 2}}
    done = {"observedGeneration": 3, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}
    assert _unfinished(workload | {"status": done}) is None
    assert _unfinished(workload | {"status": done | {"updatedReplicas": 1}}) == "gateway (1 of 2)"
    assert _unfinished(workload | {"status": done | {"observedGeneration": 2}}) == "gateway (0 of 2)"
    assert _unfinished(workload | {"status": done | {"replicas": 3}}) == "gateway (2 of 2)"


class Cluster:
    """Answers `kubectl exec` and `kubectl get`, and counts the questions."""

    def __init__(self, health: dict[str, str] | None = None, *turns: dict[str, list]) -> None:
        self.health = health
        self.turns = list(turns)
        self.asked: list[tuple[str, str]] = []

    def kubectl(self, *arguments: str) -> str:
        """Answer as the model server does."""
        assert arguments[:4] == ("exec", "-n", "assistant-demo-model", "deployment/assistant-model-server")
        return json.dumps({"status": "ok", **(self.health or {})})

    def list(self, kinds: str, namespace: str) -> list[dict[str, Any]]:
        """Answer with the next turn of a namespace, and the last one again and again."""
        self.asked.append((kinds, namespace))
        turn = sum(name == namespace for _, name in self.asked) - 1
        return [{"kind": "Pod", **pod(namespace, "")}, *self.turns[min(turn, len(self.turns) - 1)].get(namespace, [])]


def pod(namespace: str, reason: str) -> dict[str, Any]:
    """Return a pod whose container waits for a reason."""
    state = {"waiting": {"reason": reason, "message": "no such image"}} if reason else {"running": {}}
    return {"metadata": {"name": "p", "namespace": namespace}, "status": {"containerStatuses": [{"state": state}]}}


def workload(ready: int) -> dict[str, Any]:
    """Return a Deployment of one replica."""
    status = {"observedGeneration": 1, "replicas": 1, "readyReplicas": ready, "updatedReplicas": 1}
    return {
        "kind": "Deployment",
        "metadata": {"name": "gateway", "generation": 1},
        "spec": {"replicas": 1},
        "status": status,
    }


def step() -> Step:
    """Return a step that shows nothing."""
    return Step(Terminal(io.StringIO()), "Platform")


def test_what_is_finished_is_not_asked_about_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One question a turn and namespace that is left, for workloads and pods together."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    turns = ({"a": [workload(0)], "b": [workload(1)]}, {"a": [workload(0)]}, {"a": [workload(1)]})
    cluster = Cluster(None, *turns)
    wait_for_workloads(cast("Kubernetes", cluster), step(), ("a", "b"))
    assert [name for _, name in cluster.asked] == ["a", "b", "a", "a"]
    assert {kinds for kinds, _ in cluster.asked} == {"deployments,statefulsets,pods"}


def test_what_waiting_will_not_mend_ends_the_wait() -> None:
    """A pod whose image is not there is told at once, with where to look."""
    cluster = Cluster(None, {"a": [workload(0), {"kind": "Pod", **pod("a", "ErrImageNeverPull")}]})
    with pytest.raises(DemoError, match="ErrImageNeverPull no such image\nLook at: kubectl describe pod -n a p"):
        wait_for_workloads(cast("Kubernetes", cluster), step(), ("a",))


def test_the_server_says_which_embeddings_it_has() -> None:
    """Where the model is missing the stand-in's are taken, with the reason; other models are not asked about."""
    there = Cluster({"embedding": "multilingual-e5-small"})
    assert served(cast("Kubernetes", there), step(), MULTILINGUAL) == MULTILINGUAL
    without = Cluster({"embedding": "stand-in-embedding", "why": "this is aarch64"})
    shown = io.StringIO()
    assert served(cast("Kubernetes", without), Step(Terminal(shown), "Tenant"), MULTILINGUAL) == STAND_IN
    assert "hashed words, which know no meaning: this is aarch64" in shown.getvalue()
    assert served(cast("Kubernetes", None), step(), STAND_IN) == STAND_IN
