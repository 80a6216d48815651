"""Platform: operator, gateway, ledger and stores."""

from __future__ import annotations

from assistant_monitoring.dashboards.panels import NAMESPACE, Panel, Query, View

N = 'namespace=~"$namespace"'
NO_OPERATOR = "No operator is scraped, or none leads."
NO_GATEWAY = "No gateway is scraped."
_I = "[$__rate_interval]"


def _panel(title: str, description: str, unit: str, *said: str) -> Panel:
    """Return a panel of one query: expression, legend, why it may be empty, and the next view if it is not Fleet."""
    expr, legend, empty, leads = (*said, "fleet")[:4]
    return Panel(title, description, unit, (Query(expr, legend),), empty, leads)


VIEW = View(
    "platform",
    "Platform",
    "The operator's queue and Lease, the gateway and its limits, the ledger, and the stores.",
    (NAMESPACE,),
    {
        "Operator": (
            _panel(
                "Leaders",
                "How many operators lead; it has to be one.",
                "short",
                f"sum(assistant_operator_leader{{{N}}})",
                "leaders",
                NO_OPERATOR,
            ),
            _panel(
                "Queue",
                "Tenants that wait for a run.",
                "short",
                f"max(assistant_reconcile_queue_depth{{{N}}})",
                "waiting",
                NO_OPERATOR,
            ),
            _panel(
                "Oldest in the queue",
                "For how long the first of them has waited.",
                "s",
                f"max(assistant_reconcile_queue_oldest_seconds{{{N}}})",
                "oldest",
                NO_OPERATOR,
            ),
            _panel(
                "Runs by result",
                "Reconcile runs per second: settled, to be tried again, or failed at the API server.",
                "ops",
                f"sum by (result) (rate(assistant_reconciles_total{{{N}}}{_I}))",
                "{{result}}",
                NO_OPERATOR,
            ),
            _panel(
                "Time of a run",
                "95th percentile of the time of one run.",
                "s",
                f"histogram_quantile(0.95, sum by (le) (rate(assistant_reconcile_duration_seconds_bucket{{{N}}}{_I})))",
                "95 %",
                "No run in this time.",
            ),
            _panel(
                "Time to Ready",
                "95th percentile of the time until a resource was Ready that waited for the platform.",
                "s",
                f"histogram_quantile(0.95, sum by (le) (rate(assistant_time_to_ready_seconds_bucket{{{N}}}{_I})))",
                "95 %",
                "No resource became Ready in this time.",
            ),
            _panel(
                "Since the API server was heard",
                "Time since the operator that leads heard anything from the API server.",
                "s",
                f"max(assistant_watch_last_event_age_seconds{{{N}}})",
                "silence",
                NO_OPERATOR,
            ),
            _panel(
                "Writes to the cluster",
                "Writes to the Kubernetes API per second, by kind; none at rest.",
                "ops",
                f"sum by (kind, verb) (rate(assistant_cluster_writes_total{{{N}}}{_I}))",
                "{{verb}} {{kind}}",
                "Nothing was written since the operator started.",
            ),
            _panel(
                "Resources",
                "Custom resources by kind and readiness, as of the last resync.",
                "short",
                f"max by (kind, ready) (assistant_resources{{{N}}})",
                "{{kind}} ready={{ready}}",
                "No resync yet.",
            ),
        ),
        "Gateway": (
            _panel(
                "Requests by status",
                "Requests that the gateway answers, by status.",
                "reqps",
                f'sum by (status) (rate(assistant_http_requests_total{{part="gateway",{N}}}{_I}))',
                "{{status}}",
                NO_GATEWAY,
                "models",
            ),
            _panel(
                "Requests at once",
                "Requests that are being answered, of all gateways.",
                "short",
                f'sum(assistant_http_requests_in_flight{{part="gateway",{N}}})',
                "in flight",
                NO_GATEWAY,
                "models",
            ),
            _panel(
                "Tenants it knows",
                "Policies of tenants that each gateway has loaded; all gateways have to agree.",
                "short",
                f"max(assistant_gateway_policies{{{N}}}) or vector(0)",
                "policies",
                NO_GATEWAY,
            ),
            _panel(
                "Tokens refused",
                "Identity tokens and API keys that are refused, by part and reason.",
                "reqps",
                f"sum by (part, reason) (rate(assistant_identity_failures_total{_I}))",
                "{{part}} {{reason}}",
                "Nothing was refused since the parts started.",
            ),
            _panel(
                "Limits without Redis",
                "Requests that were decided without Redis, because it did not answer in time.",
                "reqps",
                f"sum(rate(assistant_limit_degraded_total{{{N}}}{_I}))",
                "degraded",
                NO_GATEWAY,
            ),
            _panel(
                "Errors of Redis",
                "Calls of the limits that Redis answered with an error, by cause.",
                "reqps",
                f"sum by (cause) (rate(assistant_limit_errors_total{{{N}}}{_I}))",
                "{{cause}}",
                "Redis has not answered with an error since the gateways started.",
            ),
            _panel(
                "Calls on quota leases",
                "Metered calls while Redis is away: let through or refused, by tenant.",
                "reqps",
                f"sum by (tenant, result) (rate(assistant_quota_lease_calls_total{{{N}}}{_I}))",
                "{{tenant}} {{result}}",
                "Redis has answered all the time.",
            ),
            _panel(
                "Quota leases left",
                "What all gateways together may let through while Redis is away, by tenant.",
                "short",
                f"sum by (tenant, kind) (assistant_quota_lease_remaining{{{N}}})",
                "{{tenant}} {{kind}}",
                "No tenant has `failurePolicy: Bounded`.",
            ),
            _panel(
                "Calls made without Redis",
                "Calls admitted by local limits; each is billed when Redis is back.",
                "reqps",
                f"sum by (tenant) (rate(assistant_limit_admitted_alone_total{{{N}}}{_I}))",
                "{{tenant}}",
                "Redis has answered all the time.",
            ),
        ),
        "Ledger": (
            _panel(
                "Entries that wait",
                "Entries in Redis that are not known to be in Postgres.",
                "short",
                f"max(assistant_ledger_entries_waiting{{{N}}})",
                "waiting",
                NO_GATEWAY,
            ),
            _panel(
                "Oldest entry",
                "For how long the oldest of them has waited.",
                "s",
                f"max(assistant_ledger_oldest_entry_seconds{{{N}}})",
                "oldest",
                NO_GATEWAY,
            ),
            _panel(
                "Entries by result",
                "Entries per second taken from Redis: inserted, known already, or set aside.",
                "ops",
                f"sum by (result) (rate(assistant_ledger_entries_total{{{N}}}{_I}))",
                "{{result}}",
                NO_GATEWAY,
            ),
            _panel(
                "Errors of the ledger",
                "Failed attempts at the ledger in Postgres, by operation.",
                "ops",
                f"sum by (operation) (rate(assistant_ledger_errors_total{{{N}}}{_I}))",
                "{{operation}}",
                "No attempt has failed since the gateways started.",
            ),
            _panel(
                "Drift",
                "Difference between ledger and counters, by tenant.",
                "short",
                f"max by (tenant, what) (abs(assistant_ledger_drift{{{N}}}))",
                "{{tenant}} {{what}}",
                "Ledger and counters agree.",
                "tenant",
            ),
            _panel(
                "Since the last comparison",
                "How long ago ledger and counters were compared.",
                "s",
                f"time() - (max(assistant_ledger_compared_timestamp_seconds{{{N}}}) > 0)",
                "age",
                "No gateway has compared them since it started.",
            ),
        ),
        "Stores and processes": (
            _panel(
                "Stores",
                "Whether the stores answer the operator: 1 is up.",
                "short",
                f'min by (dependency) (assistant_dependency_up{{{N},tenant=""}})',
                "{{dependency}}",
                NO_OPERATOR,
            ),
            _panel(
                "Failed operations",
                "Operations of the operator on stores that failed, by store.",
                "ops",
                f'sum by (store, operation) (rate(assistant_store_operations_total{{{N},result="error"}}{_I}))',
                "{{store}} {{operation}}",
                "No operation has failed since the operator started.",
            ),
            _panel(
                "Operator overloaded",
                "1 while all stores are late for the operator at once.",
                "short",
                f"max(assistant_operator_overloaded{{{N}}})",
                "overloaded",
                NO_OPERATOR,
            ),
            _panel(
                "Processor time",
                "Processor time of each scraped process of the platform, in cores.",
                "short",
                f"sum by (job, instance) (rate(process_cpu_seconds_total{{{N}}}{_I}))",
                "{{job}} {{instance}}",
                "No part is scraped.",
            ),
            _panel(
                "Memory",
                "Resident memory of each scraped process of the platform.",
                "bytes",
                f"sum by (job, instance) (process_resident_memory_bytes{{{N}}})",
                "{{job}} {{instance}}",
                "No part is scraped.",
            ),
            _panel(
                "Configurations that pods refuse",
                "Loads of tenants' configurations within an hour, by result.",
                "short",
                "sum by (result) (increase(assistant_config_reloads_total[1h]))",
                "{{result}}",
                "No pod of a tenant is scraped.",
                "tenant",
            ),
        ),
    },
)
