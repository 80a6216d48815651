"""Models: what providers and models do, and what they cost."""

from __future__ import annotations

from assistant_monitoring.dashboards.panels import NAMESPACE, PROVIDER, TENANT, Panel, Query, View

N, P = 'namespace=~"$namespace"', 'provider=~"$provider"'
T = 'tenant=~"$tenant"'
IDLE = "No calls of these providers in this time."
_I = "[$__rate_interval]"

VIEW = View(
    "models",
    "Models",
    "Per provider and model: rate, errors by class, breaker, fallbacks, first byte, tokens and cost.",
    (NAMESPACE, TENANT, PROVIDER),
    {
        "Errors": (
            Panel(
                "Calls by model",
                "Rate of calls by provider and model.",
                "reqps",
                (
                    Query(
                        f"sum by (provider, model) (rate(assistant_model_calls_total{{{N},{P},{T}}}{_I}))",
                        "{{provider}} {{model}}",
                    ),
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Failed calls by class",
                "Calls that did not end well, by provider and how they ended.",
                "reqps",
                (
                    Query(
                        "sum by (provider, outcome) (rate(assistant_model_calls_total"
                        f'{{{N},{P},{T},outcome!="ok"}}{_I}))',
                        "{{provider}} {{outcome}}",
                    ),
                ),
                "No call has failed in this time.",
                "tenant",
            ),
            Panel(
                "Breaker",
                "State of each provider's breaker: 0 closed, 1 half-open, 2 open.",
                "short",
                (Query(f"max by (provider) (assistant_provider_breaker_state{{{N},{P}}})", "{{provider}}"),),
                "No call of a provider of the catalogue since the gateways started.",
                "platform",
            ),
            Panel(
                "Breaker openings",
                "How often breakers opened within an hour.",
                "short",
                (
                    Query(
                        f"sum by (provider) (increase(assistant_provider_breaker_openings_total{{{N},{P}}}[1h]))",
                        "{{provider}}",
                    ),
                ),
                "No breaker has opened since the gateways started.",
                "platform",
            ),
            Panel(
                "Not asked, by reason",
                "Calls that were not made: breaker, pause, no place, no key.",
                "reqps",
                (
                    Query(
                        f"sum by (provider, reason) (rate(assistant_provider_skipped_total{{{N},{P}}}{_I}))",
                        "{{provider}} {{reason}}",
                    ),
                ),
                "Every call was made in this time.",
                "platform",
            ),
            Panel(
                "Sent again",
                "Requests that were sent a second time because that was safe, by reason.",
                "reqps",
                (
                    Query(
                        f"sum by (provider, reason) (rate(assistant_provider_retries_total{{{N},{P}}}{_I}))",
                        "{{provider}} {{reason}}",
                    ),
                ),
                "Nothing was sent again in this time.",
                "platform",
            ),
        ),
        "Latency": (
            Panel(
                "First byte",
                "95th percentile of the time to a provider's first byte, by model.",
                "s",
                (
                    Query(
                        "histogram_quantile(0.95, sum by (le, provider, model) (rate("
                        f"assistant_model_time_to_first_byte_seconds_bucket{{{N},{P}}}{_I})))",
                        "{{provider}} {{model}}",
                    ),
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Whole calls",
                "95th percentile of the time of calls that succeeded, by model.",
                "s",
                (
                    Query(
                        "histogram_quantile(0.95, sum by (le, gen_ai_provider_name, gen_ai_request_model) (rate("
                        "gen_ai_client_operation_duration_seconds_bucket"
                        f'{{{N},gen_ai_provider_name=~"$provider",error_type=""}}{_I})))',
                        "{{gen_ai_provider_name}} {{gen_ai_request_model}}",
                    ),
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Calls at once",
                "Calls that run now, by provider.",
                "short",
                (Query(f"sum by (provider) (assistant_provider_calls_in_flight{{{N},{P}}})", "{{provider}}"),),
                "No call of a provider of the catalogue since the gateways started.",
                "platform",
            ),
        ),
        "Use and cost": (
            Panel(
                "Fallbacks",
                "Requests that a fallback answered, by the model that did.",
                "reqps",
                (
                    Query(
                        f"sum by (provider, model) (rate(assistant_model_fallbacks_total{{{N},{P},{T}}}{_I}))",
                        "{{provider}} {{model}}",
                    ),
                ),
                "No fallback was needed in this time.",
                "tenant",
            ),
            Panel(
                "Tokens",
                "Tokens per second as in the ledger, by model and direction.",
                "short",
                (
                    Query(
                        f"sum by (model, direction) (rate(assistant_model_tokens_total{{{N},{P},{T}}}{_I}))",
                        "{{model}} {{direction}}",
                    ),
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Tokens of a call",
                "Median of the tokens of one call, by model and type.",
                "short",
                (
                    Query(
                        "histogram_quantile(0.5, sum by (le, gen_ai_request_model, gen_ai_token_type) (rate("
                        f'gen_ai_client_token_usage_bucket{{{N},gen_ai_provider_name=~"$provider"}}{_I})))',
                        "{{gen_ai_request_model}} {{gen_ai_token_type}}",
                    ),
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Cost per 1,000 tokens",
                "What 1,000 tokens of a model cost on average, in the currency's units.",
                "short",
                (
                    Query(
                        f"sum by (provider, model) (rate(assistant_model_cost_micros_total{{{N},{P},{T}}}{_I})) / 1e3"
                        f" / sum by (provider, model) (rate(assistant_model_tokens_total{{{N},{P},{T}}}{_I}))",
                        "{{provider}} {{model}}",
                    ),
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Calls without a price",
                "Calls within an hour whose cost is not or only partly known.",
                "short",
                (
                    Query(
                        "sum by (tenant, provider) (increase(assistant_model_calls_unpriced_total"
                        f"{{{N},{P},{T}}}[1h]))",
                        "{{tenant}} {{provider}}",
                    ),
                ),
                "Every call had a price.",
                "tenant",
            ),
            Panel(
                "Calls above what was held",
                "Calls within an hour that used more than was held for them.",
                "short",
                (
                    Query(
                        "sum by (tenant, provider) (increase(assistant_model_calls_disputed_total"
                        f"{{{N},{P},{T}}}[1h]))",
                        "{{tenant}} {{provider}}",
                    ),
                ),
                "Every call kept to what was held for it.",
                "tenant",
            ),
        ),
    },
)
