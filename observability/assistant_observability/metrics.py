"""Every Prometheus metric of the platform: name, help, labels, buckets, and the parts that export it.

One file, so that dashboards and alerts have one place to look, and so that label sets stay bounded: labels are
routes, codes, tenants, assistants and models of the catalogue, never users, ids or free text.

A metric names its part with `registry=`; a part exports its own metrics only, because a gauge that it never sets
would read as a true 0.
"""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.registry import Collector


class Part(CollectorRegistry):
    """What one part exports: its own metrics, and those of its process."""

    def __init__(self) -> None:
        super().__init__()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            super().register(collector)
        self.own: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """Export a metric; the library's own registry keeps knowing it, so that it can be looked up by name."""
        if not any(collector in part.own for part in PARTS.values()):
            REGISTRY.register(collector)
        super().register(collector)
        self.own.append(collector)


class Parts(CollectorRegistry):
    """Several parts that export the same metric, each its own values."""

    def __init__(self, *parts: Part) -> None:
        super().__init__()
        self._parts = parts

    def register(self, collector: Collector) -> None:
        """Export a metric from each of them."""
        for part in self._parts:
            part.register(collector)


PARTS: dict[str, Part] = {name: Part() for name in ("operator", "gateway", "api", "worker")}
OPERATOR, GATEWAY, API, WORKER = PARTS.values()

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

# --- every HTTP server -----------------------------------------------------------------------------------------
HTTP_REQUESTS = Counter(
    "assistant_http_requests", "Answered requests.", ["part", "method", "route", "status"], registry=Parts(GATEWAY, API)
)
HTTP_DURATION = Histogram(
    "assistant_http_request_duration_seconds",
    "Time until the whole answer was sent.",
    ["part", "route"],
    buckets=_SLOW,
    registry=Parts(GATEWAY, API),
)
HTTP_IN_FLIGHT = Gauge(
    "assistant_http_requests_in_flight", "Requests being answered now.", ["part"], registry=Parts(GATEWAY, API)
)

# --- operator --------------------------------------------------------------------------------------------------
RECONCILES = Counter("assistant_reconciles", "Reconcile runs of a tenant.", ["result"], registry=OPERATOR)
RECONCILE_DURATION = Histogram(
    "assistant_reconcile_duration_seconds", "Time of one reconcile run.", buckets=_SLOW, registry=OPERATOR
)
QUEUE_DEPTH = Gauge("assistant_reconcile_queue_depth", "Tenants waiting to be reconciled.", registry=OPERATOR)
QUEUE_OLDEST = Gauge(
    "assistant_reconcile_queue_oldest_seconds", "Age of the longest-waiting tenant.", registry=OPERATOR
)
WATCH_AGE = Gauge(
    "assistant_watch_last_event_age_seconds", "Time since anything was heard from the API server.", registry=OPERATOR
)
CLUSTER_WRITES = Counter(
    "assistant_cluster_writes", "Writes to the Kubernetes API.", ["kind", "verb"], registry=OPERATOR
)
STORE_OPERATIONS = Counter(
    "assistant_store_operations", "Operations on a store.", ["store", "operation", "result"], registry=OPERATOR
)
RESOURCES = Gauge(
    "assistant_resources", "Custom resources by kind and readiness.", ["kind", "ready"], registry=OPERATOR
)
LEADER = Gauge("assistant_operator_leader", "1 on the operator that leads.", registry=OPERATOR)
OPERATOR_OVERLOADED = Gauge(
    "assistant_operator_overloaded", "1 while no store answers the operator in time, all at once.", registry=OPERATOR
)
# Of tenants, by the operator that leads; `measures.py` of the operator sets them and takes them away.
TENANT_RESOURCES = Gauge(
    "assistant_tenant_resources", "A tenant's custom resources by readiness.", ["tenant", "ready"], registry=OPERATOR
)
TENANT_NOT_READY_SINCE = Gauge(
    "assistant_tenant_not_ready_since_timestamp_seconds",
    "Since when a tenant's longest not-Ready resource is so, by whose part it is to mend it: tenant or platform.",
    ["tenant", "cause"],
    registry=OPERATOR,
)
TENANT_LIMIT = Gauge(
    "assistant_tenant_limit",
    "Limits in tokens of a day and in micro-units of a budget; assistant empty: of the tenant as a whole.",
    ["tenant", "assistant", "limit"],
    registry=OPERATOR,
)
TENANT_LIMIT_USED = Gauge(
    "assistant_tenant_limit_used",
    "What was used of a limit in its present window, at most a minute old.",
    ["tenant", "assistant", "limit"],
    registry=OPERATOR,
)
TENANT_LIMIT_RESETS = Gauge(
    "assistant_tenant_limit_resets_timestamp_seconds",
    "When a limit's present window ends.",
    ["tenant", "assistant", "limit"],
    registry=OPERATOR,
)
TENANT_KNOWLEDGE = Gauge(
    "assistant_tenant_knowledge",
    "What a tenant's knowledge bases hold: documents, pending, failed, chunks, vectors.",
    ["tenant", "what"],
    registry=OPERATOR,
)
TIME_TO_READY = Histogram(
    "assistant_time_to_ready_seconds",
    "Time until a resource was Ready that waited for the platform, not for its author.",
    buckets=_SLOW,
    registry=OPERATOR,
)

# --- gateway ---------------------------------------------------------------------------------------------------
MODEL_CALLS = Counter(
    "assistant_model_calls",
    "Calls to a model provider.",
    ["tenant", "assistant", "provider", "model", "operation", "purpose", "outcome"],
    registry=GATEWAY,
)
# Names, labels and buckets of OpenTelemetry's conventions for generative AI (`gen_ai.client.operation.duration`
# and `gen_ai.client.token.usage`), as OpenTelemetry writes them for Prometheus. `error_type` is empty on success.
MODEL_DURATION = Histogram(
    "gen_ai_client_operation_duration_seconds",
    "Time of a call to a provider.",
    ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"],
    buckets=(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    registry=GATEWAY,
)
MODEL_TOKEN_USAGE = Histogram(
    "gen_ai_client_token_usage",
    "Tokens of a call, as in the ledger.",
    ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"],
    buckets=tuple(4**power for power in range(14)),
    registry=GATEWAY,
)
MODEL_FIRST_BYTE = Histogram(
    "assistant_model_time_to_first_byte_seconds",
    "Time to a provider's first byte.",
    ["provider", "model"],
    buckets=_SLOW,
    registry=GATEWAY,
)
MODEL_TOKENS = Counter(
    "assistant_model_tokens",
    "Tokens as in the ledger: reported by providers, else estimated.",
    ["tenant", "assistant", "provider", "model", "direction"],
    registry=GATEWAY,
)
MODEL_COST = Counter(
    "assistant_model_cost_micros",
    "Cost of calls in micro-units of the currency, as in the ledger.",
    ["tenant", "assistant", "provider", "model"],
    registry=GATEWAY,
)
MODEL_CALLS_DISPUTED = Counter(
    "assistant_model_calls_disputed",
    "Calls that used more than was held for them: a bound is wrong, or a provider does not keep to limits.",
    ["tenant", "provider"],
    registry=GATEWAY,
)
MODEL_CALLS_UNPRICED = Counter(
    "assistant_model_calls_unpriced",
    "Calls of which all or a part has no known price, so that their cost in the ledger is null or too low.",
    ["tenant", "provider"],
    registry=GATEWAY,
)
FALLBACKS = Counter(
    "assistant_model_fallbacks",
    "Requests answered by a fallback, by the model that answered.",
    ["tenant", "assistant", "provider", "model"],
    registry=GATEWAY,
)
PROVIDER_RETRIES = Counter(
    "assistant_provider_retries",
    "Requests sent again because that was safe.",
    ["provider", "reason"],
    registry=GATEWAY,
)
PROVIDER_SKIPPED = Counter(
    "assistant_provider_skipped",
    "Calls that were not made: breaker, pause, no place, no key.",
    ["provider", "reason"],
    registry=GATEWAY,
)
PROVIDER_OPENINGS = Counter(
    "assistant_provider_breaker_openings", "Times a provider's breaker opened.", ["provider"], registry=GATEWAY
)
PROVIDER_BREAKER = Gauge(
    "assistant_provider_breaker_state",
    "Of the catalogue's providers: 0 closed, 1 half-open, 2 open.",
    ["provider"],
    registry=GATEWAY,
)
PROVIDER_RUNNING = Gauge(
    "assistant_provider_calls_in_flight", "Calls that run now, by provider.", ["provider"], registry=GATEWAY
)
LIMIT_REFUSALS = Counter(
    "assistant_limit_refusals", "Requests refused by a limit.", ["tenant", "assistant", "limit"], registry=GATEWAY
)
LIMIT_DEGRADED = Counter(
    "assistant_limit_degraded", "Requests admitted by local limits because Redis was away.", registry=GATEWAY
)
LIMIT_ADMITTED_ALONE = Counter(
    "assistant_limit_admitted_alone",
    "Calls admitted while Redis was away, by local rates or from a quota lease; each is billed when it is back.",
    ["tenant"],
    registry=GATEWAY,
)
LIMIT_ERRORS = Counter(
    "assistant_limit_errors",
    "Calls of the limits that Redis answered with an error: its memory is full, or another cause (see the log).",
    ["cause"],
    registry=GATEWAY,
)
LEDGER_WAITING = Gauge(
    "assistant_ledger_entries_waiting", "Entries in Redis that are not known to be in Postgres.", registry=GATEWAY
)
LEDGER_OLDEST = Gauge(
    "assistant_ledger_oldest_entry_seconds", "Age of the oldest of them; 0 when there is none.", registry=GATEWAY
)
LEDGER_ENTRIES = Counter(
    "assistant_ledger_entries",
    "Entries taken from Redis: inserted into Postgres, there already, or set aside in ledger_rejects.",
    ["result"],
    registry=GATEWAY,
)
LEDGER_ERRORS = Counter(
    "assistant_ledger_errors", "Failed attempts at the ledger in Postgres.", ["operation"], registry=GATEWAY
)
LEDGER_COMPARED = Gauge(
    "assistant_ledger_compared_timestamp_seconds", "When ledger and counters were last compared.", registry=GATEWAY
)
LEDGER_DRIFT = Gauge(
    "assistant_ledger_drift",
    "Largest difference between ledger and counters of a tenant: entries, tokens, cost_micros.",
    ["tenant", "what"],
    registry=GATEWAY,
)
QUOTA_LEASE_CALLS = Counter(
    "assistant_quota_lease_calls",
    "Calls under limits in tokens or money while Redis was away: admitted from a quota lease, or refused.",
    ["tenant", "result"],
    registry=GATEWAY,
)
QUOTA_LEASE_REMAINING = Gauge(
    "assistant_quota_lease_remaining",
    "What is left of this process's quota leases; assistant empty: of the tenant's own limits.",
    ["tenant", "assistant", "kind"],
    registry=GATEWAY,
)
POLICIES = Gauge("assistant_gateway_policies", "Tenant policies loaded.", registry=GATEWAY)
IDENTITY_FAILURES = Counter(
    "assistant_identity_failures", "Refused tokens.", ["part", "reason"], registry=Parts(GATEWAY, API)
)

# --- tenant API ------------------------------------------------------------------------------------------------
CONFIG_RELOADS = Counter(
    "assistant_config_reloads", "Loads of the tenant's configuration.", ["result"], registry=Parts(API, WORKER)
)
RETRIEVALS = Counter(
    "assistant_retrievals", "Searches of a knowledge base.", ["knowledge_base", "result"], registry=API
)
RETRIEVAL_DURATION = Histogram("assistant_retrieval_duration_seconds", "Time of a search.", buckets=_FAST, registry=API)
FIRST_TOKEN = Histogram(
    "assistant_time_to_first_token_seconds",
    "Time from request to first streamed token.",
    ["assistant"],
    buckets=_SLOW,
    registry=API,
)
DOCUMENTS = Counter("assistant_documents", "Ingested documents.", ["knowledge_base", "result"], registry=WORKER)
INGEST_DURATION = Histogram(
    "assistant_ingest_duration_seconds", "Time of an ingest stage.", ["stage"], buckets=_SLOW, registry=WORKER
)
INGEST_TIME_TO_READY = Histogram(
    "assistant_ingest_time_to_ready_seconds",
    "Time from a document's upload until it was ready.",
    buckets=(1, 5, 15, 60, 300, 900, 3600),
    registry=WORKER,
)
STORE_BREAKER = Gauge(
    "assistant_store_breaker_state",
    "Whether a store is asked: 0 closed, 1 half-open, 2 open.",
    ["store"],
    registry=Parts(API, WORKER),
)
CHUNKS = Counter("assistant_chunks", "Chunks written to the vector store.", ["knowledge_base"], registry=WORKER)
DEPENDENCY_UP = Gauge(
    "assistant_dependency_up", "1 while a dependency answers.", ["dependency"], registry=Parts(OPERATOR, API)
)


def method_label(method: str) -> str:
    """Return a request's method as a label; what is none of HTTP's is `_OTHER`, as in OpenTelemetry's conventions."""
    return method if method in METHODS else "_OTHER"


def exposition(part: Part) -> tuple[bytes, str]:
    """Return the metrics of a process that is `part`, in Prometheus' text format, and its content type."""
    return generate_latest(part), CONTENT_TYPE_LATEST
