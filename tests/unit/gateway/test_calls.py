"""Settlement: once, on every way out."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from assistant_gateway.calls import Call, Outcome, forget_tenant, outcome_of
from assistant_gateway.usage import Usage

LABELS = {"tenant": "calls-test", "assistant": "a", "provider": "p", "model": "m"}


def counted(outcome: Outcome) -> float:
    """Return how many calls were counted."""
    labels = {**LABELS, "road": "chat", "outcome": outcome.value}
    return REGISTRY.get_sample_value("assistant_model_calls_total", labels) or 0.0


def call() -> Call:
    """Return a call that has begun."""
    return Call(tenant="calls-test", name="a", provider="p", model="m", road="chat", request_id="r")


def test_call_is_settled_once() -> None:
    """The first outcome counts; a second settlement, from another way out, changes nothing."""
    begun, before = call(), counted(Outcome.OK)
    begun.settle(Outcome.OK, Usage(input=5, output=0))
    begun.settle(Outcome.PROVIDER_ERROR)
    assert counted(Outcome.OK) == before + 1
    assert counted(Outcome.PROVIDER_ERROR) == 0
    tokens = {direction: sample(direction) for direction in ("input", "output")}
    assert tokens == {"input": 5, "output": 0}


@pytest.mark.parametrize(
    ("road", "operation", "outcome", "error"),
    [("stream", "chat", Outcome.OK, ""), ("ingest", "embeddings", Outcome.PROVIDER_ERROR, "provider_error")],
)
def test_call_is_measured_under_the_conventions_names(road: str, operation: str, outcome: Outcome, error: str) -> None:
    """Duration and tokens are histograms with the names and labels of OpenTelemetry's conventions."""
    kind = {"gen_ai_operation_name": operation, "gen_ai_provider_name": "p", "gen_ai_request_model": f"m-{road}"}
    made = Call(tenant="calls-test", name="a", provider="p", model=f"m-{road}", road=road, request_id="r")
    made.settle(outcome, Usage(input=5, output=3))
    duration = "gen_ai_client_operation_duration_seconds_count"
    assert REGISTRY.get_sample_value(duration, kind | {"error_type": error}) == 1
    for direction, tokens in (("input", 5), ("output", 3)):
        labels = kind | {"gen_ai_token_type": direction}
        assert REGISTRY.get_sample_value("gen_ai_client_token_usage_sum", labels) == tokens


def sample(direction: str) -> float | None:
    """Return the tokens that were counted."""
    return REGISTRY.get_sample_value("assistant_model_tokens_total", {**LABELS, "direction": direction})


def test_series_of_a_tenant_that_is_gone_are_dropped() -> None:
    """A deleted tenant leaves no time series behind, its neighbours keep theirs."""
    call().settle(Outcome.OK)
    neighbour = Call(tenant="calls-neighbour", name="a", provider="p", model="m", road="chat", request_id="r")
    neighbour.settle(Outcome.OK)
    forget_tenant("calls-test")
    assert counted(Outcome.OK) == 0
    labels = {**LABELS, "tenant": "calls-neighbour", "road": "chat", "outcome": "ok"}
    assert REGISTRY.get_sample_value("assistant_model_calls_total", labels) == 1


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (400, "context_length_exceeded", Outcome.INVALID_REQUEST),
        (502, "provider_error", Outcome.PROVIDER_ERROR),
        (502, "provider_model_not_found", Outcome.PROVIDER_ERROR),
        (502, "provider_unauthorized", Outcome.PROVIDER_UNAUTHORIZED),
        (502, "provider_unreachable", Outcome.PROVIDER_UNREACHABLE),
        (504, "provider_timeout", Outcome.PROVIDER_TIMEOUT),
        (429, "provider_rate_limit_exceeded", Outcome.PROVIDER_RATE_LIMITED),
        (503, "shutting_down", Outcome.INTERRUPTED),
    ],
)
def test_every_error_has_an_outcome(status: int, code: str, outcome: Outcome) -> None:
    """The label of the metric follows from the error, and nothing free gets into it."""
    assert outcome_of(status, code) is outcome
