"""Traces go on from the caller to whoever is asked next, and cost little where nothing is kept."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler

from assistant_observability import traces

SAMPLED = trace.TraceFlags.SAMPLED
CALLER = "0af7651916cd43dd8448eb211c80319c"


def tracing(sampler: Sampler, whole: Sampler | None = None) -> tuple[trace.Tracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=whole or ParentBased(sampler))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test"), exporter


def sent_on(tracer: trace.Tracer, caller: dict[str, str]) -> str:
    """The `traceparent` that a call within a request carries."""
    headers: dict[str, str] = {}
    with traces.serving(tracer, "GET", caller), traces.child(tracer, "ask", {"a": "b"}):
        traces.inject(headers)
    return headers["traceparent"]


def test_a_kept_trace_has_a_span_for_the_request_and_one_for_the_call() -> None:
    """The second within the first; the one that is asked continues the second."""
    tracer, exporter = tracing(ALWAYS_ON)
    parent = sent_on(tracer, {})
    call, request = exporter.get_finished_spans()
    assert (request.name, request.kind, request.parent) == ("GET", trace.SpanKind.SERVER, None)
    assert (call.name, call.kind, call.attributes) == ("ask", trace.SpanKind.CLIENT, {"a": "b"})
    assert call.parent is not None
    assert request.context is not None
    assert call.context is not None
    assert call.parent.span_id == request.context.span_id
    assert parent.startswith(f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-")
    assert int(parent[-2:], 16) & SAMPLED


def test_a_trace_that_is_not_kept_travels_on_all_the_same() -> None:
    """Whoever is asked must not begin a trace of its own, and is told that nothing is kept."""
    tracer, exporter = tracing(ALWAYS_OFF)
    version, trace_id, span_id, flags = sent_on(tracer, {}).split("-")
    assert (version, int(flags, 16) & SAMPLED) == ("00", 0)
    assert int(trace_id, 16)
    assert int(span_id, 16)
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(("sampler", "flag"), [(ALWAYS_OFF, "01"), (ALWAYS_ON, "00")])
def test_a_caller_who_has_decided_is_followed(sampler: Sampler, flag: str) -> None:
    """Its trace goes on, kept or not, whatever would be decided here."""
    tracer, exporter = tracing(sampler)
    parent = sent_on(tracer, {"traceparent": f"00-{CALLER}-b7ad6b7169203331-{flag}"})
    _, trace_id, _, told = parent.split("-")
    assert (trace_id, int(told, 16) & SAMPLED) == (CALLER, int(flag))
    assert len(exporter.get_finished_spans()) == (2 if flag == "01" else 0)


@pytest.mark.parametrize("trace_id", [CALLER, "0" * 31 + "1", "f" * 32], ids=["any", "lowest", "highest"])
@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1000, 1000)])
def test_a_callers_wish_is_bounded_by_the_ratio(trace_id: str, ratio: float, least: int, most: int) -> None:
    """Whichever ids it chooses; its trace goes on all the same, and says what was decided here."""
    tracer, exporter = tracing(ALWAYS_ON, traces.BoundedSampler(ratio))
    parents = [sent_on(tracer, {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}) for _ in range(1000)]
    assert {parent.split("-")[1] for parent in parents} == {trace_id}
    kept = sum(int(parent[-2:], 16) & SAMPLED for parent in parents)
    assert least <= kept <= most
    assert len(exporter.get_finished_spans()) == 2 * kept


def test_a_caller_who_wants_nothing_recorded_is_followed() -> None:
    """And whoever brings no trace gets one at the ratio."""
    tracer, exporter = tracing(ALWAYS_ON, traces.BoundedSampler(1.0))
    assert sent_on(tracer, {"traceparent": f"00-{CALLER}-b7ad6b7169203331-00"}).endswith("-00")
    assert exporter.get_finished_spans() == ()
    assert int(sent_on(tracer, {})[-2:], 16) & SAMPLED


@pytest.mark.parametrize(("trusted", "kept"), [(False, False), (True, True)])
def test_the_setting_bounds_whoever_is_not_ours(monkeypatch: pytest.MonkeyPatch, *, trusted: bool, kept: bool) -> None:
    """Only a part that hears of traces from our own parts follows them."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _provider: None)
    provider = traces.configure("test", trusted_parents=trusted)
    parent = sent_on(provider.get_tracer("test"), {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01"})
    assert parent.endswith("-01") is kept


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1000, 1000)])
def test_of_a_new_trace_the_lot_is_drawn_once(ratio: float, least: int, most: int) -> None:
    """What is not kept has a context and no span; what is kept is recorded, whoever asks first: a part or the SDK."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=traces.BoundedSampler(ratio), id_generator=traces.RootIds(ratio))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    kept = 0
    for _ in range(1000):
        parent = traces.unkept_parent(tracer)
        kept += parent is None
        if parent is None:
            tracer.start_span("call").end()
        else:
            assert traces.declined(parent)
    assert least <= kept <= most
    assert len(exporter.get_finished_spans()) == kept
    told = [sent_on(tracer, {}) for _ in range(1000)]
    assert len({parent.split("-")[1] for parent in told}) == 1000
    sampled = sum(int(parent[-2:], 16) & SAMPLED for parent in told)
    assert least <= sampled <= most
    assert len(exporter.get_finished_spans()) == kept + 2 * sampled


def test_after_a_request_its_span_is_no_longer_the_present_one() -> None:
    """The next request of the task would be taken for a part of it."""
    tracer, _ = tracing(ALWAYS_ON)
    sent_on(tracer, {})
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_exception_is_told_in_the_span() -> None:
    """And goes on to whoever handles it."""
    tracer, exporter = tracing(ALWAYS_ON)
    with pytest.raises(KeyError), traces.serving(tracer, "GET", {}):
        raise KeyError("x")
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


def test_without_a_request_around_it_a_call_has_a_trace_of_its_own() -> None:
    """As in the worker."""
    tracer, exporter = tracing(ALWAYS_ON)
    with traces.child(tracer, "ask", {}):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.parent is None
