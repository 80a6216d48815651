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
MODEL_DURATION = Histogram(
    "assistant_model_call_duration_seconds",
    "Time of a call to a provider.",
    ["provider", "model", "road"],
    buckets=_SLOW,
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
LIMIT_REFUSALS = Counter("assistant_limit_refusals", "Requests refused by a limit.", ["tenant", "assistant", "limit"])
LIMIT_DEGRADED = Counter("assistant_limit_degraded", "Requests admitted by local limits because Redis was away.")
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
