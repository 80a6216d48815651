"""What every alert is tried with: series in promtool's form, when it fires and with which words, when it is silent.

A case has a trouble that comes and goes, and quiet stretches that look like it: noise, a deploy, others' trouble.
Values are one for each `interval`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial


@dataclass(frozen=True)
class Firing:
    """One alert that fires: the labels it has beside those of its rule, and its words."""

    summary: str
    value: str
    labels: dict[str, str] = field(default_factory=dict)
    burn: str = ""  # of which rule, where two share a name


@dataclass(frozen=True)
class Case:
    """One alert. `fires` is what fires at `at`; at the times of `silent` nothing does."""

    alert: str
    series: dict[str, str]
    at: str
    fires: tuple[Firing, ...]
    silent: tuple[str, ...]  # before it may fire, and once it is over
    quiet: dict[str, dict[str, str]]  # why it is silent -> series
    quiet_at: tuple[str, ...] = ("5m", "10m", "20m")
    interval: str = "30s"
    later: dict[str, tuple[Firing, ...]] = field(default_factory=dict)  # what fires at other times


def http(tenant: str, status: int) -> str:
    labels = f'method="POST",part="api",route="/v1/chat/completions",status="{status}",tenant="{tenant}"'
    return f"assistant_http_requests_total{{{labels}}}"


def call(name: str, **labels: str) -> str:
    """Return a series as promtool reads it."""
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def gateway_answers(status: int) -> str:
    return call(
        "assistant_http_requests_total",
        method="POST",
        part="gateway",
        route="/v1/chat/completions",
        status=str(status),
        instance="gw",
    )


USED, LIMIT = "assistant_tenant_limit_used", "assistant_tenant_limit"
OF_TENANT = {"tenant": "acme", "assistant": "", "limit": "budget", "instance": "op"}
OF_ASSISTANT = {"tenant": "acme", "assistant": "support", "limit": "tokens", "instance": "op"}
CALLS = "assistant_model_calls_total"
OF_CALL = {
    "tenant": "acme",
    "assistant": "support",
    "provider": "openai",
    "model": "gpt",
    "operation": "chat",
    "purpose": "chat",
}
NOT_READY = "assistant_tenant_not_ready_since_timestamp_seconds"

objective = partial(Case, interval="2m")

OBJECTIVES = (
    objective(
        "AssistantChatErrors",
        # One request in two fails from minute 10 to minute 20.
        {
            http("acme", 200): "0+240x5 1200+120x5 1800+240x200",
            http("acme", 503): "0x5 0+120x5 600x200",
            http("beta", 200): "0+240x210",
        },
        "16m",
        (
            Firing(
                "Of tenant acme's chat requests 14.29% end with an error.",
                "14.29%",
                {"tenant": "acme"},
                "fast",
            ),
        ),
        ("10m", "7h"),
        {
            "a deploy that fails three requests": {http("acme", 200): "0+20x25", http("acme", 503): "0x5 3x20"},
            "one request in two thousand": {http("acme", 200): "0+4000x25", http("acme", 503): "0+2x25"},
            "refusals by limits and clients' mistakes": {http("acme", 200): "0+36x25", http("acme", 429): "0+360x25"},
            "a tenant without calls": {http("acme", 200): "100x25"},
        },
        # The page is over half an hour after the trouble; the ticket stays for two hours.
        later={
            "1h30m": (
                Firing(
                    "Of tenant acme's chat requests 5.814% end with an error.", "5.814%", {"tenant": "acme"}, "slow"
                ),
            ),
        },
    ),
    objective(
        "AssistantFirstTokenSlow",
        {
            call("assistant_time_to_first_token_seconds_count", tenant="acme", assistant="a"): "0+40x15 600x200",
            call("assistant_time_to_first_token_seconds_bucket", tenant="acme", assistant="a", le="5.0"): "0x215",
        },
        "10m",
        (Firing("Of tenant acme's streams 100% begin after more than 5 s.", "100%", {"tenant": "acme"}, "fast"),),
        ("1m", "7h"),
        {
            "one slow stream in fifty": {
                call("assistant_time_to_first_token_seconds_count", tenant="acme", assistant="a"): "0+200x25",
                call(
                    "assistant_time_to_first_token_seconds_bucket", tenant="acme", assistant="a", le="5.0"
                ): "0+196x25",
            },
            "five slow streams while a model is loaded": {
                call("assistant_time_to_first_token_seconds_count", tenant="acme", assistant="a"): "0+4x1 5x23",
                call("assistant_time_to_first_token_seconds_bucket", tenant="acme", assistant="a", le="5.0"): "0x25",
            },
        },
    ),
    objective(
        "AssistantHealthSlow",
        {
            call(
                "assistant_http_request_duration_seconds_count", tenant="acme", part="api", route="/health"
            ): "0+16x15 240x200",
            call(
                "assistant_http_request_duration_seconds_bucket", tenant="acme", part="api", route="/health", le="0.1"
            ): "0x215",
        },
        "10m",
        (Firing("Of tenant acme's health checks 100% take over 100 ms.", "100%", {"tenant": "acme"}, "fast"),),
        ("1m", "7h"),
        {
            "slow chats": {
                call(
                    "assistant_http_request_duration_seconds_count",
                    tenant="acme",
                    part="api",
                    route="/v1/chat/completions",
                ): "0+16x25",
                call(
                    "assistant_http_request_duration_seconds_bucket",
                    tenant="acme",
                    part="api",
                    route="/v1/chat/completions",
                    le="0.1",
                ): "0x25",
            },
        },
    ),
    objective(
        "AssistantIngestionSlow",
        {
            call("assistant_ingest_time_to_ready_seconds_count", tenant="acme"): "0+40x15 600x200",
            call("assistant_ingest_time_to_ready_seconds_bucket", tenant="acme", le="300.0"): "0x215",
        },
        "10m",
        (Firing("Of tenant acme's documents 100% took over 5 min.", "100%", {"tenant": "acme"}, "fast"),),
        ("1m", "7h"),
        {
            "a few large documents among many": {
                call("assistant_ingest_time_to_ready_seconds_count", tenant="acme"): "0+400x25",
                call("assistant_ingest_time_to_ready_seconds_bucket", tenant="acme", le="300.0"): "0+392x25",
            },
            "nine late documents after an outage": {
                call("assistant_ingest_time_to_ready_seconds_count", tenant="acme"): "0x1 9x23",
                call("assistant_ingest_time_to_ready_seconds_bucket", tenant="acme", le="300.0"): "0x25",
            },
        },
    ),
    objective(
        "AssistantReadySlow",
        {
            call("assistant_time_to_ready_seconds_count", instance="op"): "0+40x15 600x200",
            call("assistant_time_to_ready_seconds_bucket", instance="op", le="60.0"): "0x215",
        },
        "10m",
        (Firing("Of the resources that became Ready 100% took over 60 s.", "100%", {}, "fast"),),
        ("1m", "7h"),
        {
            "an operator that starts anew": {
                call("assistant_time_to_ready_seconds_count", instance="op"): "0+80x5 0+80x20",
                call("assistant_time_to_ready_seconds_bucket", instance="op", le="60.0"): "0+80x5 0+80x20",
            },
        },
    ),
)

OPERATOR = (
    Case(
        "AssistantOperatorNoLeader",
        {
            call("assistant_operator_leader", instance="a"): "1x10 0x10 1x20",
            call("assistant_operator_leader", instance="b"): "0x40",
        },
        "8m",
        (Firing("No operator leads: changes of resources have no effect, and nothing is repaired.", "0 leaders"),),
        ("5m", "6m30s", "12m"),
        {
            "a deploy: the other takes over after a minute": {
                call("assistant_operator_leader", instance="a"): "1x10 0x2 stale",
                call("assistant_operator_leader", instance="b"): "0x12 1x60",
            },
        },
    ),
    Case(
        "AssistantWatchSilent",
        {call("assistant_watch_last_event_age_seconds", instance="op"): "0+30x20 0x60"},
        "9m30s",
        (Firing("The operator has heard nothing from the API server for 9m 30s.", "9m 30s"),),
        ("7m", "30m"),
        {
            "a list every five minutes": {
                call("assistant_watch_last_event_age_seconds", instance="op"): "0+30x10 0+30x10"
            }
        },
    ),
    Case(
        "AssistantReconcileQueueStuck",
        {call("assistant_reconcile_queue_oldest_seconds", instance="op"): "0+30x40 0x20"},
        "16m",
        (Firing("A tenant has waited 16m 0s for the operator.", "16m 0s"),),
        ("9m", "22m"),
        {
            "a start with five hundred tenants": {
                call("assistant_reconcile_queue_oldest_seconds", instance="op"): "0+30x6 0x40"
            }
        },
    ),
    Case(
        "AssistantOperatorOverloaded",
        {call("assistant_operator_overloaded", instance="op"): "0x4 1x20 0x20"},
        "8m",
        (
            Firing(
                "No store answers the operator in time, all at once: it is starved or cut off.",
                "1",
            ),
        ),
        ("5m", "15m"),
        {"two minutes of a busy node": {call("assistant_operator_overloaded", instance="op"): "0x10 1x4 0x40"}},
    ),
    Case(
        "AssistantReconcileErrors",
        {
            call("assistant_reconciles_total", result="error", instance="op"): "0x4 0+10x40 400x60",
            call("assistant_reconciles_total", result="settled", instance="op"): "0x44 0+10x60",
        },
        "15m",
        (Firing("Of the operator's runs 100% fail at the API server.", "100%"),),
        ("10m", "45m"),
        {
            "one run in ten": {
                call("assistant_reconciles_total", result="error", instance="op"): "0+1x100",
                call("assistant_reconciles_total", result="settled", instance="op"): "0+9x100",
            },
            "a restart of the API server": {
                call("assistant_reconciles_total", result="error", instance="op"): "0x10 0+10x4 40x90",
                call("assistant_reconciles_total", result="settled", instance="op"): "0+10x10 100x4 110+10x90",
            },
        },
    ),
    Case(
        "AssistantTenantNotReady",
        {call(NOT_READY, tenant="acme", cause="platform", instance="op"): "0x40 stale"},
        "18m",
        (
            Firing(
                "A resource of tenant acme has not been Ready for 18m 0s, and its author cannot mend it.",
                "18m 0s",
                {"tenant": "acme"},
            ),
        ),
        ("15m", "25m"),
        {
            "a Secret that its author has to make": {
                call(NOT_READY, tenant="acme", cause="tenant", instance="op"): "0x80"
            },
            "a deploy of five minutes": {call(NOT_READY, tenant="acme", cause="platform", instance="op"): "0x10 stale"},
        },
    ),
)

PODS_AND_STORES = (
    Case(
        "AssistantGatewayDown",
        {call("assistant_gateway_policies", instance="gw"): "3x10 stale _x20 3x20"},
        "9m",
        (Firing("No gateway can be scraped: if none runs, no tenant can call a model.", "0 gateways"),),
        ("5m", "7m", "20m"),
        {
            "a deploy: one pod after the other": {
                call("assistant_gateway_policies", instance="a"): "3x10 stale",
                call("assistant_gateway_policies", instance="b"): "_x8 3x40",
            },
        },
    ),
    Case(
        "AssistantStoreDown",
        {
            call("assistant_dependency_up", dependency="redis", instance="op"): "1x10 0x10 1x20",
            call("assistant_dependency_up", dependency="postgres", instance="op"): "1x40",
        },
        "8m",
        (
            Firing(
                "The store redis does not answer the operator; all tenants are concerned.",
                "0, where 1 is up",
                {"dependency": "redis", "store": "redis"},
            ),
        ),
        ("5m", "12m"),
        {
            "one tenant's pod that cannot reach it": {
                call("assistant_dependency_up", dependency="redis", instance="op"): "1x60",
                call("assistant_dependency_up", dependency="redis", tenant="acme"): "0x60",
            },
            "a restart of half a minute": {
                call("assistant_dependency_up", dependency="redis", instance="op"): "1x10 0x1 1x40"
            },
        },
    ),
    Case(
        "AssistantTenantDependencyDown",
        {
            call("assistant_dependency_up", dependency="weaviate", tenant="acme", pod="a"): "1x10 0x20 1x20",
            call("assistant_dependency_up", dependency="weaviate", tenant="beta", pod="b"): "1x50",
            call("assistant_dependency_up", dependency="weaviate", instance="op"): "1x50",
        },
        "12m",
        (
            Firing(
                "A pod of tenant acme does not reach weaviate, which answers others.",
                "0, where 1 is up",
                {"tenant": "acme", "dependency": "weaviate"},
            ),
        ),
        ("9m", "18m"),
        {
            "the store is down for all: another alert says so": {
                call("assistant_dependency_up", dependency="redis", tenant="acme", pod="a"): "0x60",
                call("assistant_dependency_up", dependency="redis", instance="op"): "0x60",
            },
            "a deploy of the gateway": {
                call("assistant_dependency_up", dependency="gateway", tenant="acme"): "1x4 0x4 1x40"
            },
        },
    ),
    Case(
        "AssistantPodCrashLooping",
        {
            call(
                "kube_pod_container_status_waiting_reason",
                reason="CrashLoopBackOff",
                namespace="acme",
                pod="assistant-api-7d9-x2x",
                container="api",
            ): "1 0 1x30 stale",
        },
        "8m",
        (
            Firing(
                "Container api of assistant-api-7d9-x2x in acme keeps crashing.",
                "1",
                {"namespace": "acme", "tenant": "acme", "pod": "assistant-api-7d9-x2x", "container": "api"},
            ),
        ),
        ("4m", "25m"),
        {
            "another application of the namespace": {
                call(
                    "kube_pod_container_status_waiting_reason",
                    reason="CrashLoopBackOff",
                    namespace="acme",
                    pod="shop-1",
                    container="api",
                ): "1x60",
            },
            "a pod that starts": {
                call(
                    "kube_pod_container_status_waiting_reason",
                    reason="ContainerCreating",
                    namespace="acme",
                    pod="assistant-api-1",
                    container="api",
                ): "1x60",
            },
        },
    ),
    Case(
        "AssistantStoreDiskFilling",
        {
            call(
                "kubelet_volume_stats_available_bytes",
                namespace="platform",
                persistentvolumeclaim="data-assistant-postgres-0",
            ): "50x4 15x40 60x20",
            call(
                "kubelet_volume_stats_capacity_bytes",
                namespace="platform",
                persistentvolumeclaim="data-assistant-postgres-0",
            ): "100x80",
        },
        "15m",
        (
            Firing(
                "The volume of store postgres in platform has 15% left.",
                "15%",
                {
                    "namespace": "platform",
                    "persistentvolumeclaim": "data-assistant-postgres-0",
                    "store": "postgres",
                },
            ),
        ),
        ("10m", "25m"),
        {
            "somebody else's volume": {
                call(
                    "kubelet_volume_stats_available_bytes", namespace="x", persistentvolumeclaim="data-shop-0"
                ): "1x60",
                call(
                    "kubelet_volume_stats_capacity_bytes", namespace="x", persistentvolumeclaim="data-shop-0"
                ): "100x60",
            },
        },
    ),
    Case(
        "AssistantConfigurationInvalid",
        {call("assistant_config_reloads_total", result="invalid", tenant="acme", pod="a"): "_x10 1x60"},
        "6m",
        (
            Firing(
                "A pod of tenant acme cannot read its new configuration, and serves the one before.",
                "1",
                {"tenant": "acme"},
            ),
        ),
        ("4m", "25m"),
        {
            "configurations that load": {
                call("assistant_config_reloads_total", result="loaded", tenant="acme"): "0+1x60"
            }
        },
    ),
    Case(
        "AssistantIdentityRefused",
        {call("assistant_identity_failures_total", part="gateway", reason="expired", instance="gw"): "0+30x60 1800x60"},
        "15m",
        (
            Firing(
                "The gateway refuses tokens of tenants' pods (expired).",
                "1.00 per second",
                {"reason": "expired"},
            ),
        ),
        ("9m", "45m"),
        {
            "a stranger who tries a few": {
                call("assistant_identity_failures_total", part="gateway", reason="invalid", instance="gw"): "0+1x80",
            },
            "clients of a tenant with wrong API keys": {
                call("assistant_identity_failures_total", part="api", reason="unknown", tenant="acme"): "0+90x80",
            },
        },
    ),
)

MONEY = (
    Case(
        "AssistantLimitsDegraded",
        {call("assistant_limit_degraded_total", instance="gw"): "0x10 0+30x20 600x40"},
        "10m",
        (
            Firing(
                "The gateway cannot count limits in Redis: most calls under such limits are refused.",
                "0.90 per second",
            ),
        ),
        ("6m", "22m"),
        {"Redis answers": {call("assistant_limit_degraded_total", instance="gw"): "600x60"}},
    ),
    Case(
        "AssistantLimitsRedisFull",
        {call("assistant_limit_errors_total", cause="memory", instance="gw"): "0x10 0+30x20 600x40"},
        "10m",
        (Firing("Redis has no memory left for the gateway's limits: calls are refused.", "0.90 per second"),),
        ("5m", "22m"),
        {"another error": {call("assistant_limit_errors_total", cause="other", instance="gw"): "0+30x60"}},
    ),
    Case(
        "AssistantLedgerNotDraining",
        {call("assistant_ledger_oldest_entry_seconds", instance="gw"): "0+30x40 0x20"},
        "16m",
        (Firing("Entries of the ledger have waited in Redis for 16m 0s.", "16m 0s"),),
        ("9m", "22m"),
        {"a restart of Postgres": {call("assistant_ledger_oldest_entry_seconds", instance="gw"): "0+30x6 0x60"}},
    ),
    Case(
        "AssistantLedgerNotCompared",
        {call("assistant_ledger_compared_timestamp_seconds", instance="gw"): "0x100 3000x40"},
        "48m",
        (Firing("Ledger and counters were last compared 48m 0s ago.", "48m 0s"),),
        ("40m", "60m"),
        {
            "compared every five minutes": {
                call("assistant_ledger_compared_timestamp_seconds", instance="gw"): "0+30x200"
            }
        },
        ("40m", "60m", "90m"),
    ),
    Case(
        "AssistantLedgerDrift",
        {call("assistant_ledger_drift", tenant="acme", what="cost_micros", instance="gw"): "0x10 -250x50 stale"},
        "25m",
        (
            Firing(
                "Ledger and counters of tenant acme differ by 250 (cost_micros).",
                "250",
                {"tenant": "acme", "what": "cost_micros"},
            ),
        ),
        ("19m", "35m"),
        {
            "a comparison amid calls": {
                call("assistant_ledger_drift", tenant="acme", what="entries", instance="gw"): "0x4 2x10 0x60",
            },
        },
    ),
    Case(
        "AssistantLedgerEntriesRejected",
        {call("assistant_ledger_entries_total", result="rejected", instance="gw"): "0x10 2x180"},
        "8m",
        (
            Firing(
                "The ledger has set entries aside that it cannot read: bills lack them.",
                # Prometheus extrapolates what rose by 2 within the 8 minutes that it has seen.
                "2",
            ),
        ),
        ("4m", "80m"),
        {
            "entries that were there already": {
                call("assistant_ledger_entries_total", result="known", instance="gw"): "0+1x60"
            }
        },
    ),
    Case(
        "AssistantCallsUnpriced",
        {call("assistant_model_calls_unpriced_total", tenant="acme", provider="openai", instance="gw"): "_x10 1x200"},
        "6m",
        (
            Firing(
                "Calls of tenant acme to openai have no price: its bill is too low.",
                "1 calls in an hour",
                {"tenant": "acme", "provider": "openai"},
            ),
        ),
        ("4m", "80m"),
        {
            "an old one": {
                call("assistant_model_calls_unpriced_total", tenant="acme", provider="openai", instance="gw"): "7x400"
            }
        },
        ("80m", "120m"),
    ),
    Case(
        "AssistantCallsDisputed",
        {call("assistant_model_calls_disputed_total", tenant="acme", provider="openai", instance="gw"): "_x10 2x200"},
        "6m",
        (
            Firing(
                "Calls of tenant acme to openai used more than was held for them.",
                "2 calls in an hour",
                {"tenant": "acme", "provider": "openai"},
            ),
        ),
        ("4m", "80m"),
        {
            "an old one": {
                call("assistant_model_calls_disputed_total", tenant="acme", provider="openai", instance="gw"): "7x400"
            }
        },
        ("80m", "120m"),
    ),
    Case(
        "AssistantLimitNear",
        {
            call(USED, **OF_TENANT): "70x10 85x10 100x10 5x20",
            call(LIMIT, **OF_TENANT): "100x50",
        },
        "8m",
        (
            Firing(
                "Tenant acme has used 85% of its limit (budget).",
                "85%",
                {"tenant": "acme", "limit": "budget"},
            ),
        ),
        ("5m", "13m", "20m"),
        {
            "less, and a limit of nothing": {
                call(USED, **OF_TENANT): "79x60",
                call(LIMIT, **OF_TENANT): "100x60",
                call(USED, **OF_ASSISTANT): "0x60",
                call(LIMIT, **OF_ASSISTANT): "0x60",
            }
        },
    ),
    Case(
        "AssistantLimitExhausted",
        {
            call(USED, **OF_ASSISTANT): "70x10 110x10 5x20",
            call(LIMIT, **OF_ASSISTANT): "100x40",
        },
        "8m",
        (
            Firing(
                "Tenant acme has used up its limit (tokens), assistant support: calls are refused.",
                "110%",
                {"tenant": "acme", "assistant": "support", "limit": "tokens"},
            ),
        ),
        ("5m", "13m"),
        {"nearly": {call(USED, **OF_ASSISTANT): "99x60", call(LIMIT, **OF_ASSISTANT): "100x60"}},
    ),
)

PROVIDERS = (
    Case(
        "AssistantProviderDown",
        {
            call("assistant_provider_breaker_state", provider="openai", instance="gw"): "0x10 2 1 2 1 2 1 2x10 0x30",
            call("assistant_provider_breaker_state", provider="other", instance="gw"): "0x60",
            gateway_answers(503): "0x10 0+5x16 80x30",
        },
        "10m",
        (
            Firing(
                "The breaker of provider openai is open, and requests fail for want of a fallback.",
                "2, where 2 is open",
                {"provider": "openai"},
            ),
        ),
        ("6m", "22m"),
        {
            "fallbacks answer": {
                call("assistant_provider_breaker_state", provider="openai", instance="gw"): "2x60",
                gateway_answers(200): "0+10x60",
                gateway_answers(503): "7x60",
            },
            "requests fail for another reason": {
                call("assistant_provider_breaker_state", provider="openai", instance="gw"): "0x60",
                gateway_answers(503): "0+10x60",
            },
        },
    ),
    Case(
        "AssistantProviderBreakerOpen",
        {call("assistant_provider_breaker_state", provider="openai", instance="gw"): "0x10 2x50 0x20"},
        "25m",
        (
            Firing(
                "The breaker of provider openai has been open for 15 minutes.",
                "2, where 2 is open",
                {"provider": "openai"},
            ),
        ),
        ("19m", "35m"),
        {
            "half a minute": {
                call("assistant_provider_breaker_state", provider="openai", instance="gw"): "0x10 2 1 0x60"
            }
        },
        ("10m", "20m", "25m"),
    ),
    Case(
        "AssistantProviderAccount",
        {call(CALLS, **OF_CALL, outcome="provider_quota_exhausted"): "0x10 0+30x30 900x40"},
        "15m",
        (
            Firing(
                "Provider openai refuses the platform's own account (provider_quota_exhausted).",
                "1.00 per second",
                {"provider": "openai", "outcome": "provider_quota_exhausted"},
            ),
        ),
        ("9m", "30m"),
        {
            "a tenant's own endpoint": {
                call(CALLS, **(OF_CALL | {"provider": "endpoint"}), outcome="provider_unauthorized"): "0+30x60",
            },
            "other failures": {call(CALLS, **OF_CALL, outcome="provider_error"): "0+30x60"},
        },
    ),
    Case(
        "AssistantProviderAtItsLimit",
        {call("assistant_provider_skipped_total", provider="openai", reason="provider_busy"): "0x10 0+30x40 1200x40"},
        "20m",
        (
            Firing(
                "Calls find no place at provider openai: as many run as the catalogue allows.",
                "1.00 per second",
                {"provider": "openai"},
            ),
        ),
        ("14m", "35m"),
        {
            "a burst of two minutes": {
                call(
                    "assistant_provider_skipped_total", provider="openai", reason="provider_busy"
                ): "0x10 0+30x4 120x60",
            },
        },
    ),
    Case(
        "AssistantProviderRateLimited",
        {
            call(CALLS, **OF_CALL, outcome="provider_rate_limited"): "0+5x60 300x60",
            call(CALLS, **OF_CALL, outcome="ok"): "0+15x120",
        },
        "20m",
        (
            Firing(
                "Provider openai turns away 25% of the calls: too many.",
                "25%",
                {"provider": "openai"},
            ),
        ),
        ("9m", "45m"),
        {
            "one in twenty": {
                call(CALLS, **OF_CALL, outcome="provider_rate_limited"): "0+1x80",
                call(CALLS, **OF_CALL, outcome="ok"): "0+19x80",
            },
        },
    ),
)

WAITING = call("assistant_tenant_knowledge", tenant="acme", what="pending", instance="op")
INGESTION = (
    Case(
        "AssistantIngestionStuck",
        {
            WAITING: "0x10 3x60 0x20",
            call("assistant_tenant_knowledge", tenant="acme", what="documents", instance="op"): "9x90",
            call("assistant_documents_total", tenant="acme", knowledge_base="k", result="ready"): "5x90",
        },
        "25m",
        (
            Firing(
                "Documents of tenant acme wait (3), and its worker does nothing.",
                "3 documents",
                {"tenant": "acme"},
            ),
        ),
        ("19m", "40m"),
        {
            "a long queue that moves": {
                WAITING: "900x100",
                call("assistant_documents_total", tenant="acme", knowledge_base="k", result="ready"): "0+1x100",
            },
            "one huge document, chunk by chunk": {
                WAITING: "1x100",
                call("assistant_chunks_total", tenant="acme", knowledge_base="k"): "0+64x100",
            },
        },
        ("20m", "30m", "45m"),
    ),
)

CASES = (*OBJECTIVES, *OPERATOR, *PODS_AND_STORES, *MONEY, *PROVIDERS, *INGESTION)
