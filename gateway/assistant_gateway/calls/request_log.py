"""One line per request, whatever became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiohttp import web

from assistant_gateway.wire.usage import Usage
from assistant_observability import logs
from assistant_observability.requests import REQUESTS, Request

LONGEST_NAME = 253  # of an assistant: a Kubernetes name
_PLAIN = re.compile(r"[a-z0-9.-]+")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(slots=True)
class Line:
    """What is known of a request so far."""

    request_id: str
    trace_id: str | None = None
    tenant: str = ""
    name: str = ""  # of the assistant or knowledge base, as it was asked for
    code: str = ""  # of an error
    tokens: tuple[int, int] | None = None  # in and out, of all calls made for it

    def add(self, used: Usage) -> None:
        """Count what a call has used."""
        before = self.tokens or (0, 0)
        self.tokens = (before[0] + used.input, before[1] + used.output)

    def write(self, request: web.Request, route: str, status: int, seconds: float) -> None:
        """Log it."""
        if not REQUESTS.enabled:
            return
        trace_id = self.trace_id
        if trace_id is None and (given := _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))):
            trace_id = given[1]
        name = self.name[:LONGEST_NAME]
        tokens = self.tokens or (None, None)
        REQUESTS.add(
            Request(
                request_id=self.request_id,
                trace_id=trace_id or "",
                tenant=self.tenant,
                assistant=name if not name or _PLAIN.fullmatch(name) else logs.redact(name),
                method=request.method[:16],
                route=route,
                status=status,
                code=self.code,
                ms=round(seconds * 1000, 1),
                input_tokens=tokens[0],
                output_tokens=tokens[1],
            )
        )


LINE = web.RequestKey("line", Line)
