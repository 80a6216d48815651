"""Alerts on causes, only where a person has to act: what users notice first is in the objectives."""

from __future__ import annotations

from assistant_monitoring.alerts import NUMBER, PAGE, RATE, SECONDS, SHARE, TICKET, Alert

FLEET, TENANT, MODELS = "assistant-fleet", "assistant-tenant", "assistant-models"
KNOWLEDGE, PLATFORM = "assistant-knowledge", "assistant-platform"

_CALLS = 'part="gateway",route=~"/v1/(chat/completions|embeddings)"'
_USED = "max by (tenant, assistant, limit) (assistant_tenant_limit_used / assistant_tenant_limit)"
_PODS = 'pod=~"assistant-(api|worker|operator|gateway|postgres|redis|weaviate)-.*"'
_VOLUMES = 'persistentvolumeclaim=~"data-assistant-(postgres|redis|weaviate)-.*"'


def risen(metric: str, window: str, by: str) -> str:
    """Return by how much a counter has risen, also from nothing: a series that begins at 1 has risen by 1."""
    return f"sum by ({by}) ({metric} - ({metric} offset {window} or {metric} * 0)) > 0"


def renamed(expr: str, old: str, new: str, pattern: str = "(.+)") -> str:
    """Return the expression with a label under another name."""
    return f'label_replace({expr}, "{new}", "$1", "{old}", "{pattern}")'


OPERATOR = (
    Alert(
        name="AssistantOperatorNoLeader",
        expr="(sum(assistant_operator_leader) or vector(0)) < 1",
        wait="2m",
        severity=PAGE,
        summary="No operator leads: changes of resources have no effect, and nothing is repaired.",
        value="{{ $value }} leaders",
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantWatchSilent",
        expr="max(max_over_time(assistant_watch_last_event_age_seconds[15m])) > 450",
        wait="1m",
        severity=PAGE,
        summary="The operator has heard nothing from the API server for {{ $value | humanizeDuration }}.",
        value=SECONDS,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantReconcileQueueStuck",
        expr="max(assistant_reconcile_queue_oldest_seconds) > 300",
        wait="5m",
        severity=PAGE,
        summary="A tenant has waited {{ $value | humanizeDuration }} for the operator.",
        value=SECONDS,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantOperatorOverloaded",
        expr="max(assistant_operator_overloaded) > 0",
        wait="5m",
        severity=TICKET,
        summary="No store answers the operator in time, all at once: it is starved or cut off.",
        value=NUMBER,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantReconcileErrors",
        expr='sum(rate(assistant_reconciles_total{result="error"}[10m])) / sum(rate(assistant_reconciles_total[10m]))'
        " > 0.5",
        wait="10m",
        severity=TICKET,
        summary="Of the operator's runs {{ $value | humanizePercentage }} fail at the API server.",
        value=SHARE,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantTenantNotReady",
        expr='max by (tenant) (time() - assistant_tenant_not_ready_since_timestamp_seconds{cause="platform"}) > 900',
        wait="1m",
        severity=PAGE,
        summary="A resource of tenant {{ $labels.tenant }} has not been Ready for {{ $value | humanizeDuration }}, "
        "and its author cannot mend it.",
        value=SECONDS,
        dashboard=TENANT,
    ),
)

PODS_AND_STORES = (
    Alert(
        name="AssistantGatewayDown",
        expr="absent(assistant_gateway_policies)",
        wait="2m",
        severity=PAGE,
        summary="No gateway can be scraped: if none runs, no tenant can call a model.",
        value="0 gateways",
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantStoreDown",
        expr=renamed('min by (dependency) (assistant_dependency_up{tenant=""}) < 1', "dependency", "store"),
        wait="1m",
        severity=PAGE,
        summary="The store {{ $labels.store }} does not answer the operator; all tenants are concerned.",
        value="{{ $value }}, where 1 is up",
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantTenantDependencyDown",
        expr='min by (tenant, dependency) (assistant_dependency_up{tenant!=""}) < 1\n'
        'unless on (dependency) (min by (dependency) (assistant_dependency_up{tenant=""}) < 1)',
        wait="5m",
        severity=TICKET,
        summary="A pod of tenant {{ $labels.tenant }} does not reach {{ $labels.dependency }}, which answers others.",
        value="{{ $value }}, where 1 is up",
        dashboard=TENANT,
    ),
    Alert(
        name="AssistantPodCrashLooping",
        expr=renamed(
            "max by (namespace, pod, container) "
            f'(max_over_time(kube_pod_container_status_waiting_reason{{reason="CrashLoopBackOff",{_PODS}}}[5m])) > 0',
            "namespace",
            "tenant",
        ),
        wait="5m",
        severity=PAGE,
        summary="Container {{ $labels.container }} of {{ $labels.pod }} in {{ $labels.tenant }} keeps crashing.",
        value=NUMBER,
        dashboard=TENANT,
    ),
    Alert(
        name="AssistantStoreDiskFilling",
        expr=renamed(
            "min by (namespace, persistentvolumeclaim) "
            f"(kubelet_volume_stats_available_bytes{{{_VOLUMES}}} / kubelet_volume_stats_capacity_bytes{{{_VOLUMES}}})"
            " < 0.2",
            "persistentvolumeclaim",
            "store",
            "data-assistant-([a-z]+)-.*",
        ),
        wait="10m",
        severity=TICKET,
        summary="The volume of store {{ $labels.store }} in {{ $labels.namespace }} has "
        "{{ $value | humanizePercentage }} left.",
        value=SHARE,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantConfigurationInvalid",
        expr=risen('assistant_config_reloads_total{result="invalid"}', "15m", "tenant"),
        wait="0m",
        severity=TICKET,
        summary="A pod of tenant {{ $labels.tenant }} cannot read its new configuration, and serves the one before.",
        value=NUMBER,
        dashboard=TENANT,
    ),
    Alert(
        name="AssistantIdentityRefused",
        expr='sum by (reason) (rate(assistant_identity_failures_total{part="gateway"}[10m])) > 0.1',
        wait="10m",
        severity=TICKET,
        summary="The gateway refuses tokens of tenants' pods ({{ $labels.reason }}).",
        value=RATE,
        dashboard=PLATFORM,
    ),
)

MONEY = (
    Alert(
        name="AssistantLimitsDegraded",
        expr="sum(rate(assistant_limit_degraded_total[5m])) > 0",
        wait="2m",
        severity=PAGE,
        summary="The gateway cannot count limits in Redis: most calls under such limits are refused.",
        value=RATE,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantLimitsRedisFull",
        expr='sum(rate(assistant_limit_errors_total{cause="memory"}[5m])) > 0',
        wait="1m",
        severity=PAGE,
        summary="Redis has no memory left for the gateway's limits: calls are refused.",
        value=RATE,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantLedgerNotDraining",
        expr="max(assistant_ledger_oldest_entry_seconds) > 300",
        wait="5m",
        severity=PAGE,
        summary="Entries of the ledger have waited in Redis for {{ $value | humanizeDuration }}.",
        value=SECONDS,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantLedgerNotCompared",
        expr="time() - max(assistant_ledger_compared_timestamp_seconds) > 1800",
        wait="15m",
        severity=TICKET,
        summary="Ledger and counters were last compared {{ $value | humanizeDuration }} ago.",
        value=SECONDS,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantLedgerDrift",
        expr="max by (tenant, what) (abs(assistant_ledger_drift)) > 0",
        wait="15m",
        severity=TICKET,
        summary="Ledger and counters of tenant {{ $labels.tenant }} differ by {{ $value }} ({{ $labels.what }}).",
        value=NUMBER,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantLedgerEntriesRejected",
        expr='sum(increase(assistant_ledger_entries_total{result="rejected"}[1h])) > 0',
        wait="0m",
        severity=TICKET,
        summary="The ledger has set entries aside that it cannot read: bills lack them.",
        value=NUMBER,
        dashboard=PLATFORM,
    ),
    Alert(
        name="AssistantCallsUnpriced",
        expr=risen("assistant_model_calls_unpriced_total", "1h", "tenant, provider"),
        wait="0m",
        severity=TICKET,
        summary="Calls of tenant {{ $labels.tenant }} to {{ $labels.provider }} have no price: its bill is too low.",
        value="{{ $value }} calls in an hour",
        dashboard=MODELS,
    ),
    Alert(
        name="AssistantCallsDisputed",
        expr=risen("assistant_model_calls_disputed_total", "1h", "tenant, provider"),
        wait="0m",
        severity=TICKET,
        summary="Calls of tenant {{ $labels.tenant }} to {{ $labels.provider }} used more than was held for them.",
        value="{{ $value }} calls in an hour",
        dashboard=MODELS,
    ),
    Alert(
        name="AssistantLimitNear",
        expr=f"({_USED} >= 0.8) < 1",
        wait="1m",
        severity=TICKET,
        summary="Tenant {{ $labels.tenant }} has used {{ $value | humanizePercentage }} of its limit "
        "({{ $labels.limit }}){{ with $labels.assistant }}, assistant {{ . }}{{ end }}.",
        value=SHARE,
        dashboard=TENANT,
    ),
    Alert(
        name="AssistantLimitExhausted",
        expr=f"{_USED} >= 1",
        wait="1m",
        severity=TICKET,
        summary="Tenant {{ $labels.tenant }} has used up its limit ({{ $labels.limit }})"
        "{{ with $labels.assistant }}, assistant {{ . }}{{ end }}: calls are refused.",
        value=SHARE,
        dashboard=TENANT,
    ),
)

PROVIDERS = (
    Alert(
        name="AssistantProviderDown",
        expr="max by (provider) (max_over_time(assistant_provider_breaker_state[2m])) == 2\n"
        f'and on () (sum(rate(assistant_http_requests_total{{{_CALLS},status=~"5.."}}[5m])) > 0)',
        wait="2m",
        severity=PAGE,
        summary="The breaker of provider {{ $labels.provider }} is open, and requests fail for want of a fallback.",
        value="{{ $value }}, where 2 is open",
        dashboard=MODELS,
    ),
    Alert(
        name="AssistantProviderBreakerOpen",
        expr="max by (provider) (max_over_time(assistant_provider_breaker_state[2m])) == 2",
        wait="15m",
        severity=TICKET,
        summary="The breaker of provider {{ $labels.provider }} has been open for 15 minutes.",
        value="{{ $value }}, where 2 is open",
        dashboard=MODELS,
    ),
    Alert(
        name="AssistantProviderAccount",
        expr="sum by (provider, outcome) (rate(assistant_model_calls_total"
        '{outcome=~"provider_quota_exhausted|provider_unauthorized",provider!="endpoint"}[5m])) > 0',
        wait="5m",
        severity=PAGE,
        summary="Provider {{ $labels.provider }} refuses the platform's own account ({{ $labels.outcome }}).",
        value=RATE,
        dashboard=MODELS,
    ),
    Alert(
        name="AssistantProviderAtItsLimit",
        expr='sum by (provider) (rate(assistant_provider_skipped_total{reason="provider_busy"}[5m])) > 0',
        wait="10m",
        severity=TICKET,
        summary="Calls find no place at provider {{ $labels.provider }}: as many run as the catalogue allows.",
        value=RATE,
        dashboard=MODELS,
    ),
    Alert(
        name="AssistantProviderRateLimited",
        expr='sum by (provider) (rate(assistant_model_calls_total{outcome="provider_rate_limited",provider!="endpoint"}'
        '[10m])) / sum by (provider) (rate(assistant_model_calls_total{provider!="endpoint"}[10m])) > 0.1',
        wait="10m",
        severity=TICKET,
        summary="Provider {{ $labels.provider }} turns away {{ $value | humanizePercentage }} of the calls: too many.",
        value=SHARE,
        dashboard=MODELS,
    ),
)

INGESTION = (
    Alert(
        name="AssistantIngestionStuck",
        expr='max by (tenant) (assistant_tenant_knowledge{what="pending"}) > 0\n'
        "unless on (tenant) (sum by (tenant) (increase(assistant_documents_total[15m])) > 0)\n"
        "unless on (tenant) (sum by (tenant) (increase(assistant_chunks_total[15m])) > 0)",
        wait="15m",
        severity=PAGE,
        summary="Documents of tenant {{ $labels.tenant }} wait ({{ $value }}), and its worker does nothing.",
        value="{{ $value }} documents",
        dashboard=KNOWLEDGE,
    ),
)

CAUSES = {
    "operator": OPERATOR,
    "pods-and-stores": PODS_AND_STORES,
    "money": MONEY,
    "providers": PROVIDERS,
    "ingestion": INGESTION,
}
