"""What the platform promises its users, as shares of good events. Recording rules and burn-rate alerts follow from it.

To change a promise, change it here and run `make monitoring`.
"""

from __future__ import annotations

from dataclasses import dataclass

CHAT = 'part="api",route="/v1/chat/completions"'
HEALTH = 'part="api",route="/health"'


@dataclass(frozen=True)
class Objective:
    """A share of events that are to be good within 30 days.

    `total` and `bad` are PromQL with `WINDOW` in place of a range; both are rates, by the labels `by`.
    `least` is how many bad events make an alert at all: with ten requests a day, one failure is no trend.
    """

    name: str  # in the names of the recorded series
    title: str
    target: float
    total: str
    bad: str
    by: tuple[str, ...]
    alert: str
    summary: str  # of its alerts; `$value` is the share of bad events in the long window
    dashboard: str
    page: bool = True  # whether a fast burn wakes somebody
    least: int = 10


def _rate(metric: str, matchers: str, by: tuple[str, ...]) -> str:
    labels = f" by ({', '.join(by)})" if by else ""
    return (
        f"sum{labels} (rate({metric}{{{matchers}}}[WINDOW]))" if matchers else f"sum{labels} (rate({metric}[WINDOW]))"
    )


def errors(metric: str, matchers: str, bad: str, by: tuple[str, ...]) -> tuple[str, str]:
    """Return the rates of all events and of those that `bad` matches; zero, not nothing, while there were none."""
    total = _rate(metric, matchers, by)
    return total, f"({_rate(metric, f'{matchers},{bad}', by)} or {total} * 0)"


def slower(histogram: str, seconds: str, matchers: str, by: tuple[str, ...]) -> tuple[str, str]:
    """Return the rates of all events and of those above a bucket's bound, written as Prometheus has it: `5.0`."""
    total = _rate(f"{histogram}_count", matchers, by)
    within = ",".join(filter(None, (matchers, f'le="{seconds}"')))
    return total, f"({total} - {_rate(f'{histogram}_bucket', within, by)})"


TENANT = ("tenant",)
_chat = errors("assistant_http_requests_total", CHAT, 'status=~"5.."', TENANT)
_first = slower("assistant_time_to_first_token_seconds", "5.0", "", TENANT)
_health = slower("assistant_http_request_duration_seconds", "0.1", HEALTH, TENANT)
_ingest = slower("assistant_ingest_time_to_ready_seconds", "300.0", "", TENANT)
_ready = slower("assistant_time_to_ready_seconds", "60.0", "", ())

OBJECTIVES = (
    Objective(
        name="chat_availability",
        title="Chat requests are answered without a server error",
        target=0.999,
        total=_chat[0],
        bad=_chat[1],
        by=TENANT,
        alert="AssistantChatErrors",
        summary="Of tenant {{ $labels.tenant }}'s chat requests {{ $value | humanizePercentage }} end with an error.",
        dashboard="assistant-tenant",
    ),
    Objective(
        name="first_token",
        title="Streamed answers begin within 5 seconds",
        target=0.95,
        total=_first[0],
        bad=_first[1],
        by=TENANT,
        alert="AssistantFirstTokenSlow",
        summary="Of tenant {{ $labels.tenant }}'s streams {{ $value | humanizePercentage }} begin after more than 5 s.",
        dashboard="assistant-tenant",
    ),
    Objective(
        name="health",
        title="The basic health check answers within 100 milliseconds",
        target=0.99,
        total=_health[0],
        bad=_health[1],
        by=TENANT,
        alert="AssistantHealthSlow",
        summary="Of tenant {{ $labels.tenant }}'s health checks {{ $value | humanizePercentage }} take over 100 ms.",
        dashboard="assistant-tenant",
    ),
    Objective(
        name="ingest",
        title="Documents are ready within 5 minutes of their upload",
        target=0.95,
        total=_ingest[0],
        bad=_ingest[1],
        by=TENANT,
        alert="AssistantIngestionSlow",
        summary="Of tenant {{ $labels.tenant }}'s documents {{ $value | humanizePercentage }} took over 5 min.",
        dashboard="assistant-knowledge",
        page=False,
    ),
    Objective(
        name="time_to_ready",
        title="Resources are Ready within 60 seconds, as far as that is for the platform to do",
        target=0.95,
        total=_ready[0],
        bad=_ready[1],
        by=(),
        alert="AssistantReadySlow",
        summary="Of the resources that became Ready {{ $value | humanizePercentage }} took over 60 s.",
        dashboard="assistant-platform",
        page=False,
    ),
)
