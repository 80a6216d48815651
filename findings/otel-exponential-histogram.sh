#!/usr/bin/env bash
# Package:  opentelemetry-exporter-prometheus==0.66b2 with opentelemetry-sdk==1.45.2
# Expected: a histogram that Prometheus' text format cannot hold is left out or converted, and the other metrics stay.
#           Source: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility": "Exponential (Native)
#           Histograms SHOULD be dropped if they are not supported, or MAY be converted to fixed-bucket histograms."
# Seen:     one exponential histogram (made by a view) and every scrape is an AttributeError: no metric of the process
#           is exported.
# Here:     observability/assistant_observability/metrics.py: metrics are prometheus_client's own, only traces are
#           OpenTelemetry's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --root-user-action ignore --no-compile --no-warn-conflicts \
    --target "$folder" \
    opentelemetry-exporter-prometheus==0.66b2 opentelemetry-sdk==1.45.2
PYTHONPATH=$folder python3 - <<'END'
import sys

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from prometheus_client import REGISTRY, generate_latest


def scrape(*views):
    """Return whether the counter beside a histogram is exported, or the name of the error."""
    provider = MeterProvider(metric_readers=[PrometheusMetricReader()], views=views)
    meter = provider.get_meter("finding")
    meter.create_counter("calls").add(1)
    meter.create_histogram("duration").record(0.2)
    try:
        return "calls_total" in generate_latest(REGISTRY).decode()
    except Exception as error:
        return type(error).__name__
    finally:
        provider.shutdown()


fixed = scrape()
exponential = scrape(View(instrument_name="duration", aggregation=ExponentialBucketHistogramAggregation()))
print(f"counter beside a histogram with fixed buckets exported: {fixed}; beside an exponential one expected True, "
      f"seen {exponential}")
sys.exit(0 if (fixed, exponential) == (True, "AttributeError") else "changed: the scrape has another result")
END
