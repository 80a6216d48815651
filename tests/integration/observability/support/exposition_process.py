"""Serves what operator, gateway, API and worker say of themselves, every metric of ours set: /operator, /gateway, ...

A process of its own, because the metrics belong to a process. Counters and histograms rise until it is ended.
"""

from __future__ import annotations

import http.server
import itertools
import sys
import threading
import time
from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram

from assistant_observability import metrics

SECONDS = 0.3  # between two steps
# What each label may be; a metric gets every combination of the first two of each, or what is in OF_METRIC.
LABELS = {
    "tenant": ("acme", "beta"),
    "assistant": ("support", ""),
    "provider": ("openai", "other"),
    "model": ("gpt-4.1-mini",),
    "purpose": ("chat", "search"),
    "outcome": ("ok", "provider_error"),
    "direction": ("input", "output"),
    "part": ("gateway", "api"),
    "method": ("POST",),
    "route": ("/v1/chat/completions", "/health"),
    "status": ("200", "503"),
    "kind": ("Assistant", "KnowledgeBase"),
    "verb": ("apply",),
    "ready": ("true", "false"),
    "cause": ("platform", "tenant"),
    "limit": ("tokens", "budget"),
    "what": ("documents", "pending"),
    "dependency": ("postgres", "redis"),
    "store": ("postgres", "weaviate"),
    "operation": ("ping", "drain"),
    "result": ("settled", "error"),
    "reason": ("provider_busy", "expired"),
    "knowledge_base": ("handbook",),
    "stage": ("parse", "embed"),
    "gen_ai_operation_name": ("chat",),
    "gen_ai_provider_name": ("openai",),
    "gen_ai_request_model": ("gpt-4.1-mini",),
    "gen_ai_token_type": ("input", "output"),
    "error_type": ("", "provider_error"),
}
OF_METRIC = {
    metrics.TENANT_KNOWLEDGE: {"what": ("documents", "pending", "failed", "chunks", "vectors")},
    metrics.RETRIEVALS: {"result": ("found", "empty", "error")},
    metrics.DOCUMENTS: {"result": ("ready", "failed", "postponed")},
    metrics.LEDGER_ENTRIES: {"result": ("inserted", "known", "rejected")},
    metrics.CONFIG_RELOADS: {"result": ("loaded", "invalid")},
    metrics.LIMIT_ERRORS: {"cause": ("memory", "other")},
    metrics.LIMIT_REFUSALS: {"limit": ("tenant_requests", "assistant_budget")},
    metrics.LEDGER_DRIFT: {"what": ("entries", "cost_micros")},
    metrics.QUOTA_LEASE_REMAINING: {"kind": ("tokens", "cost_micros")},
    metrics.MODEL_CALLS: {
        "operation": ("chat", "embeddings"),
        "outcome": ("ok", "provider_error", "provider_rate_limited", "provider_quota_exhausted"),
    },
}
# Times are in the past, or the future; other gauges are small numbers.
TIMES = {
    metrics.TENANT_NOT_READY_SINCE: -3600.0,
    metrics.LEDGER_COMPARED: -60.0,
    metrics.TENANT_LIMIT_RESETS: 86400.0,
}


def series(metric: Counter | Gauge | Histogram) -> Iterator[Counter | Gauge | Histogram]:
    """Yield every time series of a metric."""
    names = metric._labelnames
    if not names:
        yield metric
        return
    values = {**LABELS, **OF_METRIC.get(metric, {})}
    for labels in itertools.product(*(values[name] for name in names)):
        yield metric.labels(*labels)


def drive() -> None:
    """Let every metric of every part rise, for ever."""
    found = [metric for metric in vars(metrics).values() if isinstance(metric, Counter | Gauge | Histogram)]
    for step in itertools.count(1):
        for metric in found:
            for one in series(metric):
                if isinstance(one, Counter):
                    one.inc(step)
                elif isinstance(one, Histogram):
                    one.observe(0.05 * step)
                else:
                    one.set(time.time() + TIMES[metric] if metric in TIMES else step)
        time.sleep(SECONDS)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the metrics of the part that the path names."""

    def do_GET(self) -> None:
        """Send them."""
        body, kind = metrics.exposition(metrics.PARTS[self.path.strip("/")])
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    threading.Thread(target=drive, daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
