"""Fleet and Tenant: which tenant is worst, and what is the matter with it."""

from __future__ import annotations

from assistant_monitoring.dashboards.panels import NAMESPACE, TENANT, Panel, Query, View

N, T = 'namespace=~"$namespace"', 'tenant=~"$tenant"'
CHAT = 'part="api",route="/v1/chat/completions"'
IDLE = "No calls in this time."
NO_LIMITS = "No limit in tokens or money is set, or the operator has no usage yet."
READY = "Every resource is Ready."
_SHARE = "max by (tenant) (assistant_tenant_limit_used / assistant_tenant_limit)"

FLEET = View(
    "fleet",
    "Fleet",
    "Every tenant, worst first: what is not Ready, how much of the error budget is left, what is spent of limits.",
    (NAMESPACE,),
    {
        "Now": (
            Panel(
                "Tenants",
                "How many namespaces have resources of the platform.",
                "short",
                (Query(f"count(sum by (tenant) (assistant_tenant_resources{{{N}}}))", "tenants"),),
                "No operator leads, or there are no resources yet.",
                "platform",
                kind="number",
                width=6,
                height=4,
            ),
            Panel(
                "Tenants that wait for the platform",
                "Tenants with a resource that is not Ready for a reason that its author cannot mend.",
                "short",
                (
                    Query(
                        "count(assistant_tenant_not_ready_since_timestamp_seconds"
                        f'{{{N},cause="platform"}}) or vector(0)',
                        "tenants",
                    ),
                ),
                READY,
                "platform",
                kind="number",
                width=6,
                height=4,
            ),
            Panel(
                "Chats that fail",
                "Share of all chat requests that end with a server error, over five minutes.",
                "percentunit",
                (
                    Query(
                        "sum(assistant:chat_availability:bad:rate5m)"
                        " / (sum(assistant:chat_availability:events:rate5m) > 0)",
                        "errors",
                    ),
                ),
                IDLE,
                "models",
                kind="number",
                width=6,
                height=4,
            ),
            Panel(
                "Alerts that fire",
                "Alerts of this platform that fire now, by severity.",
                "short",
                (
                    Query(
                        'sum by (severity) (ALERTS{alertname=~"Assistant.*",alertstate="firing"}) or vector(0)',
                        "{{severity}}",
                    ),
                ),
                "Nothing fires, or the alert rules are not loaded.",
                "platform",
                kind="number",
                width=6,
                height=4,
            ),
        ),
        "Worst first": (
            Panel(
                "Tenants by their oldest problem",
                "Each tenant's oldest problem that is the platform's, its error budget, failing chats and limits.",
                "short",
                (
                    Query(
                        "max by (tenant) (time() - assistant_tenant_not_ready_since_timestamp_seconds"
                        f'{{{N},cause="platform"}}) or max by (tenant) (assistant_tenant_resources{{{N}}} * 0)',
                        "Oldest problem",
                        "s",
                    ),
                    Query("assistant:chat_availability:error_budget_left:ratio30d", "Error budget left", "percentunit"),
                    Query("assistant:chat_availability:error_ratio:rate5m", "Failing chats", "percentunit"),
                    Query(_SHARE, "Used of the nearest limit", "percentunit"),
                    Query(f'max by (tenant) (assistant_tenant_resources{{{N},ready="false"}})', "Not Ready", "short"),
                    Query(f'max by (tenant) (assistant_tenant_resources{{{N},ready="true"}})', "Ready", "short"),
                ),
                "No operator leads, or there are no resources yet.",
                "tenant",
                kind="table",
                width=24,
                height=12,
                by="tenant",
            ),
        ),
        "Who uses what": (
            Panel(
                "Calls by tenant",
                "The ten tenants with most calls of models.",
                "reqps",
                (
                    Query(
                        f"topk(10, sum by (tenant) (rate(assistant_model_calls_total{{{N}}}[$__rate_interval])))",
                        "{{tenant}}",
                    ),
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Spend by tenant",
                "The ten tenants that spend most, in the currency's units per hour.",
                "short",
                (
                    Query(
                        "topk(10, sum by (tenant) (rate(assistant_model_cost_micros_total"
                        f"{{{N}}}[$__rate_interval]))) * 3600 / 1e6",
                        "{{tenant}}",
                    ),
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Refused by limits",
                "The ten tenants that limits refuse most, by limit.",
                "reqps",
                (
                    Query(
                        "topk(10, sum by (tenant, limit) (rate(assistant_limit_refusals_total"
                        f"{{{N}}}[$__rate_interval])))",
                        "{{tenant}} {{limit}}",
                    ),
                ),
                "No limit refused a call in this time.",
                "tenant",
            ),
        ),
    },
)

VIEW = View(
    "tenant",
    "Tenant",
    "One tenant: objectives, latency, first token, errors by code, spend and forecast, dependencies, documents.",
    (NAMESPACE, TENANT),
    {
        "Objectives": (
            Panel(
                "Error budget left",
                "What is left of the error budgets of 30 days; below 0 the objective is missed.",
                "percentunit",
                tuple(
                    Query(f"assistant:{name}:error_budget_left:ratio30d{{{T}}}", f"{{{{tenant}}}} {title}")
                    for name, title in (
                        ("chat_availability", "chats"),
                        ("first_token", "first token"),
                        ("health", "health"),
                        ("ingest", "documents"),
                    )
                ),
                "No calls in 30 days, or the recording rules are not loaded.",
                "models",
            ),
            Panel(
                "Not Ready since",
                "For how long the oldest resource has not been Ready, by who has to mend it.",
                "s",
                (
                    Query(
                        "max by (tenant, cause) (time() - "
                        f"assistant_tenant_not_ready_since_timestamp_seconds{{{N},{T}}})",
                        "{{tenant}}: {{cause}}",
                    ),
                ),
                READY,
                "platform",
            ),
            Panel(
                "Dependencies",
                "Whether the tenant's pods reach what they need: 1 is up.",
                "short",
                (Query(f"min by (tenant, dependency) (assistant_dependency_up{{{T}}})", "{{tenant}} {{dependency}}"),),
                "No API pod is scraped: is one running, and does Prometheus reach it?",
                "platform",
            ),
        ),
        "Requests": (
            Panel(
                "Chats by status",
                "Rate of chat requests by HTTP status.",
                "reqps",
                (
                    Query(
                        f"sum by (status) (rate(assistant_http_requests_total{{{CHAT},{T}}}[$__rate_interval]))",
                        "{{status}}",
                    ),
                ),
                IDLE,
                "models",
            ),
            Panel(
                "Time of chats",
                "Median and 95th percentile of the time until the whole answer was sent.",
                "s",
                tuple(
                    Query(
                        f"histogram_quantile({quantile}, sum by (le) ("
                        f"rate(assistant_http_request_duration_seconds_bucket{{{CHAT},{T}}}[$__rate_interval])))",
                        title,
                    )
                    for quantile, title in ((0.5, "median"), (0.95, "95 %"))
                ),
                IDLE,
                "models",
            ),
            Panel(
                "First token",
                "95th percentile of the time to the first streamed token, by assistant.",
                "s",
                (
                    Query(
                        "histogram_quantile(0.95, sum by (le, assistant) (rate("
                        f"assistant_time_to_first_token_seconds_bucket{{{T}}}[$__rate_interval])))",
                        "{{assistant}}",
                    ),
                ),
                "No streams in this time.",
                "models",
            ),
            Panel(
                "All routes",
                "Requests per second by route and class of status.",
                "reqps",
                (
                    Query(
                        f'sum by (route) (rate(assistant_http_requests_total{{part="api",{T}}}[$__rate_interval]))',
                        "{{route}}",
                    ),
                ),
                "No API pod is scraped, or there were no requests.",
                "platform",
            ),
            Panel(
                "Health checks over 100 ms",
                "Share of basic health checks that took longer than their objective allows.",
                "percentunit",
                (Query(f"assistant:health:error_ratio:rate5m{{{T}}}", "{{tenant}}"),),
                "No health check in this time, or the recording rules are not loaded.",
                "platform",
            ),
            Panel(
                "Requests at once",
                "Requests that are being answered, by pod.",
                "short",
                (Query(f'sum by (tenant) (assistant_http_requests_in_flight{{part="api",{T}}})', "{{tenant}}"),),
                "No API pod is scraped.",
                "platform",
            ),
        ),
        "Limits and money": (
            Panel(
                "Used of limits",
                "What was used of each limit in its present window; 100 % refuses calls.",
                "percentunit",
                (
                    Query(
                        "max by (tenant, assistant, limit) "
                        f"(assistant_tenant_limit_used{{{N},{T}}} / assistant_tenant_limit{{{N},{T}}})",
                        "{{tenant}} {{assistant}} {{limit}}",
                    ),
                ),
                NO_LIMITS,
                "models",
            ),
            Panel(
                "Forecast for the period's end",
                "What will be used of each limit when its window ends, if the last hour's use goes on.",
                "percentunit",
                (
                    Query(
                        "max by (tenant, assistant, limit) ((assistant_tenant_limit_used"
                        f"{{{N},{T}}} + clamp_min(deriv(assistant_tenant_limit_used{{{N},{T}}}[1h]), 0)"
                        f" * clamp_min(assistant_tenant_limit_resets_timestamp_seconds{{{N},{T}}} - time(), 0))"
                        f" / assistant_tenant_limit{{{N},{T}}})",
                        "{{tenant}} {{assistant}} {{limit}}",
                    ),
                ),
                NO_LIMITS,
                "models",
            ),
            Panel(
                "Refused by limits",
                "Calls that limits refuse, by assistant and limit.",
                "reqps",
                (
                    Query(
                        "sum by (assistant, limit) (rate(assistant_limit_refusals_total"
                        f"{{{N},{T}}}[$__rate_interval]))",
                        "{{assistant}} {{limit}}",
                    ),
                ),
                "No limit refused a call in this time.",
                "models",
            ),
            Panel(
                "Model calls by outcome",
                "Calls of models by how they ended.",
                "reqps",
                (
                    Query(
                        f"sum by (outcome) (rate(assistant_model_calls_total{{{N},{T}}}[$__rate_interval]))",
                        "{{outcome}}",
                    ),
                ),
                IDLE,
                "models",
            ),
            Panel(
                "Spend by assistant and model",
                "What is spent, in the currency's units per hour.",
                "short",
                (
                    Query(
                        "sum by (assistant, model) (rate(assistant_model_cost_micros_total"
                        f"{{{N},{T}}}[$__rate_interval])) * 3600 / 1e6",
                        "{{assistant}} {{model}}",
                    ),
                ),
                IDLE,
                "models",
            ),
            Panel(
                "Documents",
                "What the tenant's knowledge bases hold and what waits or failed.",
                "short",
                (
                    Query(
                        f'max by (what) (assistant_tenant_knowledge{{{N},{T},what=~"documents|pending|failed"}})',
                        "{{what}}",
                    ),
                ),
                "The tenant has no knowledge base.",
                "knowledge",
            ),
        ),
    },
)
