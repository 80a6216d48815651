"""Trace context through the gateway, with and without an exporter."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from assistant_crds.gateway_api import Operation, Purpose
from assistant_gateway.calls.tracing import CallTrace
from assistant_gateway.metering.call import Call, Outcome
from assistant_gateway.wire.usage import Usage
from assistant_observability import genai, traces

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CONTEXT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "vendor=1"}


def call() -> Call:
    """Return a call that has begun."""
    return Call(
        tenant="acme",
        name="support",
        provider="openai",
        model="gpt",
        operation=Operation.CHAT,
        purpose=Purpose.CHAT,
        request_id="r",
    )


def test_without_an_exporter_the_context_passes_through() -> None:
    """The provider gets the caller's context as it was; nothing is recorded."""
    trace = CallTrace(None, CONTEXT, call())
    assert trace.headers == CONTEXT
    assert trace.trace_id == TRACE
    trace.end(Outcome.OK, None)


@pytest.mark.parametrize("value", ["", "x" * 600, "a\nb", "é"])
def test_context_that_is_no_header_is_dropped(value: str) -> None:
    """What cannot be a context goes no further."""
    assert CallTrace(None, {"traceparent": value}, call()).headers == {}


def test_with_an_exporter_there_is_one_span_per_call() -> None:
    """The span belongs to the caller's trace, is the provider's parent, and speaks the conventions' names."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace = CallTrace(provider.get_tracer("test"), CONTEXT, call())
    trace.end(Outcome.PROVIDER_ERROR, Usage(input=3, output=4))
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert trace.headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert span.name == "chat gpt"
    expected = {
        genai.PROVIDER_NAME: "openai",
        genai.REQUEST_MODEL: "gpt",
        genai.TENANT: "acme",
        genai.ASSISTANT: "support",
        genai.USAGE_INPUT_TOKENS: 3,
        genai.USAGE_OUTPUT_TOKENS: 4,
        genai.ERROR_TYPE: "provider_error",
    }
    assert {name: span.attributes[name] for name in expected} == expected
    assert not span.status.is_ok


def test_a_trace_that_nobody_records_costs_no_span() -> None:
    """The caller has decided; its context goes on to the provider as it is."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    context = {"traceparent": CONTEXT["traceparent"][:-2] + "00"}
    trace = CallTrace(provider.get_tracer("test"), context, call())
    trace.end(Outcome.OK, None)
    assert trace.headers == context
    assert exporter.get_finished_spans() == ()


def test_a_new_trace_that_is_not_kept_costs_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider hears of it all the same, and that nobody records it."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    monkeypatch.setattr("opentelemetry.trace.set_tracer_provider", lambda _provider: None)
    tracer = traces.configure("test").get_tracer("test")
    monkeypatch.setattr(tracer, "start_span", None)  # to call it would fail
    trace = CallTrace(tracer, {}, call())
    trace.end(Outcome.OK, None)
    assert traces.declined(trace.headers["traceparent"])
    assert trace.trace_id == trace.headers["traceparent"].split("-")[1]
