"""What is scraped of tenants' pods is no danger to others; alerts and dashboards reach the cluster as they are."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from assistant_observability import metrics

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
ENABLED = "monitoring.serviceMonitor.enabled=true"


def endpoint(render: Callable[..., list[Json]]) -> tuple[Json, Json]:
    """Return the spec of the tenants' PodMonitor, and its endpoint."""
    (monitor,) = (found for found in render(ENABLED) if found["kind"] == "PodMonitor")
    (only,) = monitor["spec"]["podMetricsEndpoints"]
    return monitor["spec"], only


def test_what_a_pod_says_is_bounded(render: Callable[..., list[Json]]) -> None:
    """Samples, labels and bytes of one scrape have limits, and a scrape follows no redirect."""
    spec, scraped = endpoint(render)
    assert {"sampleLimit", "labelLimit", "labelNameLengthLimit", "labelValueLengthLimit", "bodySizeLimit"} <= set(spec)
    assert scraped["followRedirects"] is False


def test_a_pod_speaks_of_its_own_namespace_only(render: Callable[..., list[Json]]) -> None:
    """The tenant is the namespace that the pod is in, whatever the pod says, and what it says is dropped."""
    _, scraped = endpoint(render)
    assert scraped["honorLabels"] is False
    (tenant,) = (rule for rule in scraped["relabelings"] if rule.get("targetLabel") == "tenant")
    assert tenant["sourceLabels"] == ["__meta_kubernetes_namespace"]
    (dropped,) = (rule for rule in scraped["metricRelabelings"] if rule["action"] == "labeldrop")
    assert re.fullmatch(dropped["regex"], "exported_tenant")


def test_only_series_of_a_tenants_parts_are_kept(render: Callable[..., list[Json]]) -> None:
    """Series of the gateway and of the operator are theirs alone; those of API and worker pass."""
    _, scraped = endpoint(render)
    (kept,) = (rule for rule in scraped["metricRelabelings"] if rule["action"] == "keep")
    for name in (
        "assistant_http_requests_total",
        "assistant_documents_total",
        "assistant_retrieval_duration_seconds_sum",
    ):
        assert re.fullmatch(kept["regex"], name), name
    for name in (
        "assistant_model_cost_micros_total",
        "assistant_operator_leader",
        "up",
        "container_memory_usage_bytes",
    ):
        assert not re.fullmatch(kept["regex"], name), name


def families(part: metrics.Part) -> set[str]:
    """Return the names of a part's own metrics."""
    return {family.name for collector in part.own for family in collector.collect()}


def test_every_series_of_a_tenants_parts_is_kept(render: Callable[..., list[Json]]) -> None:
    """What API and worker say passes, what only operator and gateway say does not."""
    _, scraped = endpoint(render)
    (kept,) = (rule for rule in scraped["metricRelabelings"] if rule["action"] == "keep")
    tenants = families(metrics.API) | families(metrics.WORKER)
    assert {name for name in tenants if not re.fullmatch(kept["regex"], f"{name}_")} == set()
    others = (families(metrics.OPERATOR) | families(metrics.GATEWAY)) - tenants
    assert {name for name in others if re.fullmatch(kept["regex"], f"{name}_")} == set()


def kinds(objects: list[Json]) -> set[str]:
    return {found["kind"] for found in objects}


MONITORING = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
ALL = ("monitoring.rules.enabled=true", "monitoring.dashboards.enabled=true", ENABLED)


def dashboards(objects: list[Json]) -> list[Json]:
    return [found for found in objects if found["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]


def test_without_the_prometheus_operator_nothing_of_it_is_made(render: Callable[..., list[Json]]) -> None:
    """A cluster that does not know its kinds would refuse the whole release."""
    assert not kinds(render()) & MONITORING
    assert not dashboards(render())


def test_with_the_prometheus_operator_all_of_it_is_made(helm: Any) -> None:
    """Where its kinds are there, they are used without being asked for; each can be switched off."""
    there = ("--api-versions", "monitoring.coreos.com/v1/PrometheusRule")
    objects = helm.template("assistant-platform", *there)
    assert kinds(objects) >= MONITORING
    assert len(dashboards(objects)) == 5
    off = [f"--set=monitoring.{part}.enabled=false" for part in ("serviceMonitor", "rules", "dashboards")]
    objects = helm.template("assistant-platform", *there, *off)
    assert not kinds(objects) & MONITORING
    assert not dashboards(objects)


@pytest.mark.parametrize(
    ("grafana", "runbooks", "links"),
    [
        ("", "", ("/d/assistant-", "docs/runbooks/")),
        (
            "https://grafana.example.com/",
            "https://git.example.com/platform/blob/main",
            ("https://grafana.example.com/d/assistant-", "https://git.example.com/platform/blob/main/docs/runbooks/"),
        ),
    ],
)
def test_the_rules_are_those_of_the_file(
    render: Callable[..., list[Json]], grafana: str, runbooks: str, links: tuple[str, str]
) -> None:
    """Every expression and word arrives as it is written; links get the addresses that the values name."""
    urls = (f"monitoring.rules.grafanaUrl={grafana}", f"monitoring.rules.runbookUrl={runbooks}")
    (rule,) = (found for found in render(*ALL, *urls) if found["kind"] == "PrometheusRule")
    given = yaml.safe_load((ROOT / "observability" / "alerts" / "rules.yaml").read_text())
    for written, group in zip(given["groups"], rule["spec"]["groups"], strict=True):
        for one, other in zip(written["rules"], group["rules"], strict=True):
            for name, link in zip(("dashboard_url", "runbook_url"), links, strict=True):
                if "annotations" in one:
                    assert other["annotations"].pop(name).startswith(link)
                    del one["annotations"][name]
            assert one == other


def test_dashboards_are_those_of_the_files(render: Callable[..., list[Json]]) -> None:
    """Each ConfigMap has one view, whole, and labels of one's own beside that of the sidecar."""
    found = dashboards(render(*ALL, "monitoring.dashboards.labels.team=sre"))
    written = {path.name: json.loads(path.read_text()) for path in (ROOT / "observability" / "dashboards").iterdir()}
    given = {name: json.loads(text) for one in found for name, text in one["data"].items()}
    assert given == {f"assistant-{name}": document for name, document in written.items()}
    assert all(one["metadata"]["labels"]["team"] == "sre" for one in found)
