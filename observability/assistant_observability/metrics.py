"""Every Prometheus metric of the platform: name, help, labels, buckets.

One file, so that dashboards and alerts have one place to look, and so that label sets stay bounded: labels are
routes, codes, tenants, assistants and models of the catalogue, never users, ids or free text.
"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)

# --- every HTTP server -----------------------------------------------------------------------------------------
HTTP_REQUESTS = Counter("assistant_http_requests", "Answered requests.", ["part", "method", "route", "status"])
HTTP_DURATION = Histogram(
    "assistant_http_request_duration_seconds", "Time until the whole answer was sent.", ["part", "route"], buckets=_SLOW
)
HTTP_IN_FLIGHT = Gauge("assistant_http_requests_in_flight", "Requests being answered now.", ["part"])

# --- operator --------------------------------------------------------------------------------------------------
RECONCILES = Counter("assistant_reconciles", "Reconcile runs of a tenant.", ["result"])
RECONCILE_DURATION = Histogram("assistant_reconcile_duration_seconds", "Time of one reconcile run.", buckets=_SLOW)
QUEUE_DEPTH = Gauge("assistant_reconcile_queue_depth", "Tenants waiting to be reconciled.")
QUEUE_OLDEST = Gauge("assistant_reconcile_queue_oldest_seconds", "Age of the longest-waiting tenant.")
WATCH_AGE = Gauge("assistant_watch_last_event_age_seconds", "Time since anything was heard from the API server.")
CLUSTER_WRITES = Counter("assistant_cluster_writes", "Writes to the Kubernetes API.", ["kind", "verb"])
STORE_OPERATIONS = Counter("assistant_store_operations", "Operations on a store.", ["store", "operation", "result"])
RESOURCES = Gauge("assistant_resources", "Custom resources by kind and readiness.", ["kind", "ready"])
LEADER = Gauge("assistant_operator_leader", "1 on the operator that leads.")

# --- gateway ---------------------------------------------------------------------------------------------------
MODEL_CALLS = Counter(
    "assistant_model_calls",
    "Calls to a model provider.",
    ["tenant", "assistant", "provider", "model", "road", "outcome"],
)
# Names, labels and buckets of OpenTelemetry's conventions for generative AI (`gen_ai.client.operation.duration`
# and `gen_ai.client.token.usage`), as OpenTelemetry writes them for Prometheus. `error_type` is empty on success.
MODEL_DURATION = Histogram(
    "gen_ai_client_operation_duration_seconds",
    "Time of a call to a provider.",
    ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"],
    buckets=(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
MODEL_TOKEN_USAGE = Histogram(
    "gen_ai_client_token_usage",
    "Tokens of a call, as in the ledger.",
    ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"],
    buckets=tuple(4**power for power in range(14)),
)
MODEL_FIRST_BYTE = Histogram(
    "assistant_model_time_to_first_byte_seconds",
    "Time to a provider's first byte.",
    ["provider", "model"],
    buckets=_SLOW,
)
MODEL_TOKENS = Counter(
    "assistant_model_tokens",
    "Tokens as in the ledger: reported by providers, else estimated.",
    ["tenant", "assistant", "provider", "model", "direction"],
)
MODEL_COST = Counter(
    "assistant_model_cost_micros",
    "Cost of calls in micro-units of the currency, as in the ledger.",
    ["tenant", "assistant", "provider", "model"],
)
FALLBACKS = Counter(
    "assistant_model_fallbacks",
    "Requests answered by a fallback, by the model that answered.",
    ["tenant", "assistant", "provider", "model"],
)
PROVIDER_RETRIES = Counter(
    "assistant_provider_retries", "Requests sent again because that was safe.", ["provider", "reason"]
)
PROVIDER_SKIPPED = Counter(
    "assistant_provider_skipped", "Calls that were not made: breaker, pause, no place, no key.", ["provider", "reason"]
)
PROVIDER_OPENINGS = Counter("assistant_provider_breaker_openings", "Times a provider's breaker opened.", ["provider"])
PROVIDER_BREAKER = Gauge(
    "assistant_provider_breaker_state", "Of the catalogue's providers: 0 closed, 1 half-open, 2 open.", ["provider"]
)
PROVIDER_RUNNING = Gauge("assistant_provider_calls_in_flight", "Calls that run now, by provider.", ["provider"])
LIMIT_REFUSALS = Counter("assistant_limit_refusals", "Requests refused by a limit.", ["tenant", "assistant", "limit"])
LIMIT_DEGRADED = Counter("assistant_limit_degraded", "Requests admitted by local limits because Redis was away.")
LEDGER_WAITING = Gauge("assistant_ledger_entries_waiting", "Entries in Redis that are not known to be in Postgres.")
LEDGER_OLDEST = Gauge("assistant_ledger_oldest_entry_seconds", "Age of the oldest of them; 0 when there is none.")
LEDGER_ENTRIES = Counter(
    "assistant_ledger_entries",
    "Entries taken from Redis: inserted into Postgres, there already, or set aside in ledger_rejects.",
    ["result"],
)
LEDGER_ERRORS = Counter("assistant_ledger_errors", "Failed attempts at the ledger in Postgres.", ["operation"])
LEDGER_COMPARED = Gauge("assistant_ledger_compared_timestamp_seconds", "When ledger and counters were last compared.")
LEDGER_DRIFT = Gauge(
    "assistant_ledger_drift",
    "Largest difference between ledger and counters of a tenant: entries, tokens, cost_micros.",
    ["tenant", "what"],
)
LIMIT_GRANT_CALLS = Counter(
    "assistant_limit_grant_calls",
    "Calls under limits in tokens or money while Redis was away: admitted on a grant, or refused.",
    ["tenant", "result"],
)
LIMIT_GRANT_LEFT = Gauge(
    "assistant_limit_grant_left",
    "What this process may let through while Redis is away; assistant empty: of the tenant's own limits.",
    ["tenant", "assistant", "kind"],
)
POLICIES = Gauge("assistant_gateway_policies", "Tenant policies loaded.")
IDENTITY_FAILURES = Counter("assistant_identity_failures", "Refused tokens.", ["part", "reason"])

# --- tenant API ------------------------------------------------------------------------------------------------
CONFIG_RELOADS = Counter("assistant_config_reloads", "Loads of the tenant's configuration.", ["result"])
RETRIEVALS = Counter("assistant_retrievals", "Searches of a knowledge base.", ["knowledge_base", "result"])
RETRIEVAL_DURATION = Histogram("assistant_retrieval_duration_seconds", "Time of a search.", buckets=_FAST)
FIRST_TOKEN = Histogram(
    "assistant_time_to_first_token_seconds", "Time from request to first streamed token.", ["assistant"], buckets=_SLOW
)
DOCUMENTS = Counter("assistant_documents", "Ingested documents.", ["knowledge_base", "result"])
INGEST_DURATION = Histogram("assistant_ingest_duration_seconds", "Time of an ingest stage.", ["stage"], buckets=_SLOW)
CHUNKS = Counter("assistant_chunks", "Chunks written to the vector store.", ["knowledge_base"])
DEPENDENCY_UP = Gauge("assistant_dependency_up", "1 while a dependency answers.", ["dependency"])


def exposition() -> tuple[bytes, str]:
    """Return the process's metrics in Prometheus' text format, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
