"""What every request passes first and every answer last: request id, security headers, CORS, metrics, trace, log line.

An ASGI wrapper around the whole application, because Litestar's own middleware does not see unknown paths.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from opentelemetry.trace import Span, Status, StatusCode
from prometheus_client import Counter, Histogram

from assistant_api.cors import ORIGIN, Headers, headers_for, preflight
from assistant_api.errors import SHUTTING_DOWN, ApiError, to_response
from assistant_api.i18n import Catalogs
from assistant_api.tenant_config import TenantConfigHolder
from assistant_api.tokens import Tokens
from assistant_observability import logs, metrics, traces
from assistant_observability.requests import REQUESTS, Request

PART = "api"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_UNMATCHED = "unmatched"  # one label for every unknown path
# Routes that machines ask all day: no span, so that traces hold what people did.
_UNTRACED = frozenset({"/livez", "/readyz", "/health"})

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
NO_STORE = (b"cache-control", b"no-store")


class RequestMiddleware:
    """The outermost ASGI application; `app` is the Litestar application inside, `drain` takes it out of service.

    `direct` are applications that answer one method and path without Litestar's detour. `config` knows the tenant,
    `allowed` the methods of each route.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: TenantConfigHolder,
        catalogs: Catalogs,
        drain: Callable[[], None],
        direct: Mapping[tuple[str, str], ASGIApp],
        allowed: Mapping[str, str],
    ) -> None:
        self.app = app
        self.drain = drain
        self.direct = direct
        self._allowed = allowed
        self._config = config
        self._catalogs = catalogs
        self._running: set[_Exchange] = set()
        self.tracer = traces.tracer(__name__)
        metrics.HTTP_IN_FLIGHT.labels(PART).set_function(lambda: len(self._running))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        method, path = str(scope["method"]), scope["path"]
        request_id, carrier, origin = _request_context(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        cors = headers_for(origin, self._config.allowed_origins) if origin else ()
        exchange = _Exchange(scope, send, request_id, cors)
        self._running.add(exchange)
        named = logs.request_id.set(request_id)
        started = time.perf_counter()
        trace_id = 0
        try:
            if path in _UNTRACED:
                await self._handle(exchange, receive)
            else:
                with traces.serving(self.tracer, method, carrier) as span:
                    trace_id = span.get_span_context().trace_id
                    try:
                        await self._handle(exchange, receive)
                    finally:
                        if span.is_recording():
                            _describe(span, method, _route(scope), exchange.status)
        finally:
            self._running.discard(exchange)
            took = time.perf_counter() - started
            requests, duration = _series(metrics.method_label(method), _route(scope), exchange.status)
            requests.inc()
            duration.observe(took)
            logs.request_id.reset(named)
            if path not in _UNTRACED:
                self._log(exchange, trace_id, took)

    def interrupt(self) -> None:
        """End what still runs, because the process has to: streams with an error event, other requests with 503."""
        for exchange in list(self._running):
            exchange.interrupt()

    async def _handle(self, exchange: _Exchange, receive: Receive) -> None:
        scope = exchange.scope
        app = self.direct.get((scope["method"], scope["path"]), self.app)
        if exchange.cors and scope["method"] == "OPTIONS":
            app = preflight(scope) or app
        elif scope["method"] == "OPTIONS":
            exchange.allowed = self._allowed
        try:
            await app(scope, receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.interrupted or exchange.started:
                raise
            refusal = to_response(ApiError(SHUTTING_DOWN, retry_after=1), scope, self._catalogs)
            await refusal(scope, receive, exchange.send)

    def _log(self, exchange: _Exchange, trace_id: int, seconds: float) -> None:
        if not REQUESTS.enabled:
            return
        scope = exchange.scope
        state = scope["state"]
        tokens: Tokens | None = state.get("tokens")
        REQUESTS.add(
            Request(
                request_id=state["request_id"],
                trace_id=f"{trace_id:032x}" if trace_id else "",
                tenant=self._config.namespace,
                assistant=state.get("assistant", ""),
                key=state.get("key", ""),
                method=metrics.method_label(scope["method"]),
                route=_route(scope),
                status=exchange.status,
                code=state.get("code", ""),
                ms=round(seconds * 1000, 1),
                input_tokens=tokens[0] if tokens else None,
                output_tokens=tokens[1] if tokens else None,
            )
        )


class _Exchange:
    """Adds the headers of every answer, and remembers its status."""

    __slots__ = ("_request_id", "_send", "_task", "allowed", "cors", "interrupted", "scope", "started", "status")

    def __init__(self, scope: HTTPScope, send: Send, request_id: str, cors: Headers) -> None:
        self.scope = scope
        self.cors = cors
        self.allowed: Mapping[str, str] = {}  # methods by route, for OPTIONS
        self._send = send
        self._request_id = request_id
        self._task = asyncio.current_task()
        self.status = 500  # what the caller sees when nothing was sent
        self.started = False
        self.interrupted = False

    def interrupt(self) -> None:
        """See `RequestMiddleware.interrupt`."""
        end: Callable[[], None] | None = self.scope["state"].get("interrupt")
        if end is not None:
            end()
        elif not self.started and self._task is not None:
            self.interrupted = True
            self._task.cancel()

    def send(self, message: Message) -> Awaitable[None]:
        """ASGI's `send`; no coroutine itself, because a stream sends often."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.started = True
            request_id = (b"x-request-id", self._request_id.encode())
            security = self.scope["state"].get("security_headers", SECURITY_HEADERS)
            headers = [*message["headers"], *security, *self.cors, request_id]
            if allow := self.allowed.get(_route(self.scope)):
                headers = [*(header for header in headers if header[0] != b"allow"), (b"allow", allow.encode())]
            if b"cache-control" not in [name for name, _ in headers]:
                headers.append(NO_STORE)
            message["headers"] = headers
        return self._send(message)


def _request_context(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, dict[str, str], str]:
    """Return the request id (the caller's, if it is a sane one), the trace context headers, and a web page's origin."""
    request_id = origin = ""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name == b"x-request-id":
            request_id = value.decode("latin-1")
        elif name in {b"traceparent", b"tracestate"}:
            carrier[name.decode()] = value.decode("latin-1")
        elif name == ORIGIN:
            origin = value.decode("latin-1")
    if not _REQUEST_ID.match(request_id):
        request_id = os.urandom(16).hex()
    return request_id, carrier, origin


def _describe(span: Span, method: str, route: str, status: int) -> None:
    span.update_name(f"{method} {route}")
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _route(scope: Scope) -> str:
    return str(scope.get("path_template") or _UNMATCHED)


@lru_cache(maxsize=1024)
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    requests = metrics.HTTP_REQUESTS.labels(PART, method, route, str(status))
    return requests, metrics.HTTP_DURATION.labels(PART, route)
