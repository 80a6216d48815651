"""What Prometheus is told to scrape of tenants' pods cannot be used against the platform or another tenant."""

import re
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
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
