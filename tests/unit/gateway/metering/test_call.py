"""Settlement: once, on every way out."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from assistant_crds.gateway_api import Operation, Purpose
from assistant_gateway.metering import model_labels
from assistant_gateway.metering.call import Call, Outcome, forget_tenant, keep_series, outcome_of
from assistant_gateway.wire.usage import Usage

LABELS = {"tenant": "calls-test", "assistant": "a", "provider": "p", "model": "m"}


def counted(outcome: Outcome) -> float:
    """Return how many calls were counted."""
    labels = {**LABELS, "operation": "chat", "purpose": "chat", "outcome": outcome.value}
    return REGISTRY.get_sample_value("assistant_model_calls_total", labels) or 0.0


def call() -> Call:
    """Return a call that has begun."""
    return Call(
        tenant="calls-test",
        name="a",
        provider="p",
        model="m",
        operation=Operation.CHAT,
        purpose=Purpose.CHAT,
        request_id="r",
    )


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
    ("operation", "purpose", "outcome", "error"),
    [
        (Operation.CHAT, Purpose.CHAT, Outcome.OK, ""),
        (Operation.EMBEDDINGS, Purpose.INGEST, Outcome.PROVIDER_ERROR, "provider_error"),
    ],
)
def test_call_is_measured_under_the_conventions_names(
    operation: Operation, purpose: Purpose, outcome: Outcome, error: str
) -> None:
    """Duration and tokens are histograms with the names and labels of OpenTelemetry's conventions."""
    kind = {"gen_ai_operation_name": operation, "gen_ai_provider_name": "p", "gen_ai_request_model": f"m-{purpose}"}
    model = f"m-{purpose}"
    made = Call(
        tenant="calls-test", name="a", provider="p", model=model, operation=operation, purpose=purpose, request_id="r"
    )
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
    neighbour = Call(
        tenant="calls-neighbour",
        name="a",
        provider="p",
        model="m",
        operation=Operation.CHAT,
        purpose=Purpose.CHAT,
        request_id="r",
    )
    neighbour.settle(Outcome.OK)
    forget_tenant("calls-test")
    assert counted(Outcome.OK) == 0
    labels = {**LABELS, "tenant": "calls-neighbour", "operation": "chat", "purpose": "chat", "outcome": "ok"}
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


def series_of(tenant: str) -> int:
    """Return how many samples have a label of this value."""
    return sum(tenant in sample.labels.values() for metric in REGISTRY.collect() for sample in metric.samples)


def samples() -> int:
    """Return how many samples there are in all."""
    return sum(len(metric.samples) for metric in REGISTRY.collect())


def make(model: str, provider: str = "p", name: str = "a", tenant: str = "many") -> None:
    """Make a call that is over."""
    made = Call(
        tenant=tenant,
        name=name,
        provider=provider,
        model=model,
        operation=Operation.CHAT,
        purpose=Purpose.CHAT,
        request_id="r",
    )
    made.note_first_byte()
    made.settle(Outcome.OK, Usage(input=5, output=5), 3)


def test_names_that_a_tenant_makes_up_are_no_labels() -> None:
    """A thousand models of an own endpoint are one; of a platform's provider a bound holds."""
    for number in range(1000):
        make(f"made-up-{number}", "endpoint")
    before = samples()
    for number in range(1000, 1100):
        make(f"made-up-{number}", "endpoint")
    assert samples() == before
    for number in range(model_labels.MOST_OF_TENANT + 1):
        make(f"allowed-by-a-pattern-{number}")
    before = samples()
    for number in range(100):
        make(f"one-more-{number}")
    assert samples() == before
    forget_tenant("many")
    assert series_of("many") == 0
    assert (
        sum(any("allowed-by" in str(v) for v in s.labels.values()) for m in REGISTRY.collect() for s in m.samples) == 0
    )


def test_series_of_what_a_tenant_no_longer_has_go() -> None:
    """An assistant that is deleted and a model that is changed leave nothing; what others use stays."""
    make("shared", tenant="many")
    make("shared", tenant="few")
    make("former", name="deleted")
    keep_series("many", {"a"}, {("p", "shared")})
    assert series_of("former") == series_of("deleted") == 0
    assert series_of("many") > 0
    forget_tenant("many")
    assert series_of("shared") > 0
    forget_tenant("few")
    assert series_of("shared") == 0
