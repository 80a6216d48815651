"""What goes into the charts, and what is said while waiting."""

from assistant_demo.installation import _digest, _merged, _unfinished, unready, values
from assistant_demo.settings import STAND_IN


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
