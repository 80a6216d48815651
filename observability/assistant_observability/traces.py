"""Traces: W3C trace context in and out of every part, exported over OTLP where an endpoint is configured.

Without `OTEL_EXPORTER_OTLP_ENDPOINT` nothing is exported, but context still travels, so that a client's trace
reaches the provider and the log lines carry its id.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

_UNKEPT_FLAGS = trace.TraceFlags(trace.TraceFlags.RANDOM_TRACE_ID)  # as the SDK has them
_UNSAMPLED = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][02468ace]")
_propagator = TraceContextTextMapPropagator()


class BoundedSampler(Sampler):
    """Records at most `ratio` of traces, whatever callers ask for.

    A caller who does not want its trace recorded is followed. One who does gets it for `ratio` of its requests, drawn
    by lot: its trace ids are its own choice, so they cannot decide (W3C Trace Context, "Privacy and security").
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._root = TraceIdRatioBased(ratio)

    def should_sample(  # noqa: PLR0913, PLR0917  the interface's
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[trace.Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        """See `Sampler`."""
        parent = trace.get_current_span(parent_context).get_span_context()
        if not parent.is_valid:
            return self._root.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        kept = parent.trace_flags.sampled and (not parent.is_remote or random.random() < self._ratio)  # noqa: S311
        return SamplingResult(
            Decision.RECORD_AND_SAMPLE if kept else Decision.DROP, attributes if kept else None, parent.trace_state
        )

    def get_description(self) -> str:
        """See `Sampler`."""
        return f"BoundedSampler{{{self._ratio}}}"


class RootIds(RandomIdGenerator):
    """Ids of new traces, drawn by lot before a span is made: of a trace that is not kept none has to be.

    The SDK takes fifty calls to find that out. The lot is that of `TraceIdRatioBased`: a trace's id decides.
    """

    def __init__(self, ratio: float) -> None:
        self._bound = TraceIdRatioBased.get_bound_for_rate(ratio)
        self._kept = 0

    def generate_trace_id(self) -> int:
        """Return the id that `unkept` has drawn for a trace that is kept, or else a new one."""
        kept, self._kept = self._kept, 0
        return kept or super().generate_trace_id()

    def unkept(self) -> int:
        """Draw a new trace; return its id if it is not kept, else 0: then its first span is to be started."""
        trace_id = super().generate_trace_id()
        if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound:
            self._kept = trace_id
            return 0
        return trace_id


def configure(service: str, version: str = "", *, trusted_parents: bool = False) -> TracerProvider:
    """Install the process's tracer provider and return it; the caller shuts it down, which flushes it.

    The ratio of sampled traces is the standard variable `OTEL_TRACES_SAMPLER_ARG` (0 to 1, 1 when unset). It bounds
    what callers may have recorded, unless `trusted_parents` says that whoever decided was one of our own parts.
    """
    ratio = float(os.environ.get("OTEL_TRACES_SAMPLER_ARG", "1"))
    sampler: Sampler = ParentBased(TraceIdRatioBased(ratio)) if trusted_parents else BoundedSampler(ratio)
    provider = TracerProvider(
        sampler=sampler,
        resource=Resource.create({"service.name": service, "service.version": version}),
        id_generator=RootIds(ratio),
    )
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        # Imported only where needed: the exporter costs 15 MiB.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def tracer(name: str) -> trace.Tracer:
    """Return the tracer called `name`; it follows whatever provider is installed later."""
    return trace.get_tracer(name)


class serving:  # noqa: N801  reads like `use_span`, and works like it
    """`with serving(tracer, name, headers) as span:` is the server's span of a request, within the caller's trace.

    Made by hand, because a generator and the recording of exceptions would cost every request, kept or not.
    """

    __slots__ = ("_span", "_token")

    def __init__(self, tracer: trace.Tracer, name: str, headers: Mapping[str, str]) -> None:
        unkept = None if headers else _unkept(tracer)
        if unkept is not None:
            self._span: trace.Span = trace.NonRecordingSpan(unkept)
            return
        caller = extract(headers) if headers else None
        self._span = tracer.start_span(name, context=caller, kind=trace.SpanKind.SERVER)

    def __enter__(self) -> trace.Span:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        context.detach(self._token)
        if isinstance(error, Exception) and self._span.is_recording():
            self._span.record_exception(error)
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
        self._span.end()


def child(
    tracer: trace.Tracer, name: str, attributes: Mapping[str, str], kind: trace.SpanKind = trace.SpanKind.CLIENT
) -> AbstractContextManager[object]:
    """Return the span of a part of the work, to be entered.

    In a trace of which nothing is kept it is none: the present context travels on, and says so.
    """
    present = trace.get_current_span().get_span_context()
    if present.is_valid and not present.trace_flags.sampled:
        return nullcontext()
    return tracer.start_as_current_span(name, kind=kind, attributes=attributes)


def extract(headers: Mapping[str, str]) -> Context:
    """Return the caller's trace context from HTTP headers (names in lower case)."""
    return _propagator.extract(headers)


def declined(traceparent: str | None) -> bool:
    """Whether the caller has decided not to record its trace (W3C Trace Context): then no span has to be made."""
    return traceparent is not None and _UNSAMPLED.fullmatch(traceparent) is not None


def unkept_parent(tracer: trace.Tracer) -> str | None:
    """Return the `traceparent` of a new trace of which nothing is kept; None: it is kept, so its span is to be started.

    For a caller that sent no trace context, with a tracer of the provider that `configure` has installed.
    """
    found = _unkept(tracer)
    return None if found is None else _traceparent(found)


def _unkept(tracer: trace.Tracer) -> trace.SpanContext | None:
    ids = getattr(tracer, "id_generator", None)
    if not isinstance(ids, RootIds) or not (trace_id := ids.unkept()):
        return None
    return trace.SpanContext(trace_id, ids.generate_span_id(), is_remote=False, trace_flags=_UNKEPT_FLAGS)


def inject(headers: MutableMapping[str, str], context: Context | None = None) -> None:
    """Add `traceparent` and `tracestate` of the current span, or of `context`, to `headers`."""
    present = trace.get_current_span(context).get_span_context()
    if present.is_valid and not present.trace_state:  # nearly always, and then it is one header
        headers["traceparent"] = _traceparent(present)
    else:
        _propagator.inject(headers, context=context)


def _traceparent(of: trace.SpanContext) -> str:
    return f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"
