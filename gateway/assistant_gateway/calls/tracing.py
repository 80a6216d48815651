"""The trace a call belongs to: taken from the caller, handed to the provider, with one span of ours in between.

Where nothing is exported, or the caller's trace is not recorded, no span is made: the caller's context then passes
through as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import trace

from assistant_crds.gateway_api import Operation
from assistant_gateway.metering.call import Call, Outcome
from assistant_gateway.wire.usage import Usage
from assistant_observability import genai, traces

_HEADERS = ("traceparent", "tracestate")
_LONGEST = 512


class CallTrace:
    """The span of one model call, or none."""

    def __init__(self, tracer: trace.Tracer | None, headers: Mapping[str, str], call: Call) -> None:
        self.headers: dict[str, str] = {}
        self._call = call
        self._span: trace.Span | None = None
        parent = headers.get("traceparent")
        if parent is not None and "tracestate" not in headers and traces.declined(parent):  # nine of ten, as it is set
            self.headers = {"traceparent": parent}
            return
        if parent is None and tracer is not None and (unkept := traces.unkept_parent(tracer)) is not None:
            self.headers = {"traceparent": unkept}
            return
        incoming = {name: value for name in _HEADERS if (value := headers.get(name)) and _is_plain(value)}
        if tracer is None or traces.declined(incoming.get("traceparent")):
            self.headers = incoming
            return
        context = traces.extract(incoming)
        operation = call.operation
        self._span = tracer.start_span(
            f"{operation} {call.model}",
            context,
            trace.SpanKind.CLIENT,
            {
                genai.OPERATION_NAME: operation,
                genai.PROVIDER_NAME: call.provider,
                genai.REQUEST_MODEL: call.model,
                genai.TENANT: call.tenant,
                genai.KNOWLEDGE_BASE if operation is Operation.EMBEDDINGS else genai.ASSISTANT: call.name,
                genai.PURPOSE: call.purpose,
            },
        )
        traces.inject(self.headers, trace.set_span_in_context(self._span, context))

    @property
    def trace_id(self) -> str | None:
        """The trace's id for log lines, where there is one."""
        parts = self.headers.get("traceparent", "").split("-")
        return parts[1] if len(parts) == 4 else None

    def end(self, outcome: Outcome, usage: Usage | None) -> None:
        """End the span."""
        span = self._span
        if span is None:
            return
        if self._call.answered:
            span.set_attribute(genai.RESPONSE_MODEL, self._call.answered)
        if usage is not None:
            span.set_attribute(genai.USAGE_INPUT_TOKENS, usage.input)
            span.set_attribute(genai.USAGE_OUTPUT_TOKENS, usage.output)
        if outcome is not Outcome.OK:
            span.set_attribute(genai.ERROR_TYPE, outcome.value)
            if outcome is not Outcome.CLIENT_GONE:
                span.set_status(trace.StatusCode.ERROR)
        span.end()


def _is_plain(value: str) -> bool:
    return len(value) <= _LONGEST and value.isascii() and value.isprintable()
