"""Metrics follow Prometheus' naming rules and keep their label sets bounded."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from assistant_observability import metrics

FREE_TEXT = {"user", "request_id", "document", "path", "url", "message", "pod"}


def ours() -> list[Counter | Gauge | Histogram]:
    return [m for m in vars(metrics).values() if isinstance(m, Counter | Gauge | Histogram)]


def test_every_metric_has_our_prefix_a_help_and_base_units() -> None:
    """Names start with assistant_ or are OpenTelemetry's; times are in seconds; every metric explains itself."""
    assert len(ours()) > 20
    for metric in ours():
        family = next(iter(metric.collect()))
        assert family.name.startswith(("assistant_", "gen_ai_")), family.name
        assert family.documentation.endswith("."), family.name
        assert not family.name.endswith(("_ms", "_millis", "_kb")), family.name


def test_no_label_can_grow_without_bound() -> None:
    """No metric is labelled with a user, an id or free text."""
    for metric in ours():
        assert not FREE_TEXT & set(metric._labelnames), metric._name


def test_the_exposition_is_prometheus_text() -> None:
    """The exposition holds our metrics in the text format."""
    metrics.HTTP_REQUESTS.labels("api", "GET", "/x", "200").inc()
    body, content_type = metrics.exposition(metrics.API)
    assert content_type.startswith("text/plain")
    assert b'assistant_http_requests_total{method="GET",part="api",route="/x",status="200"}' in body


def test_every_metric_names_the_parts_that_export_it() -> None:
    """A metric without `registry=` would be exported by nobody."""
    exported = [collector for part in metrics.PARTS.values() for collector in part.own]
    assert not [metric._name for metric in ours() if metric not in exported]


def test_a_part_exports_its_own_metrics_and_those_of_its_process() -> None:
    """Metrics of one part are absent from another's exposition; those of the process are in each."""
    metrics.LEADER.set(1)
    assert b"assistant_operator_leader 1.0" in metrics.exposition(metrics.OPERATOR)[0]
    for part in (metrics.GATEWAY, metrics.API, metrics.WORKER):
        text = metrics.exposition(part)[0]
        assert b"assistant_operator_leader" not in text
        assert b"process_cpu_seconds_total" in text
