"""Structured logs: one JSON object per line in a pod, readable lines on a terminal.

Records of libraries that use the standard `logging` go through the same pipeline, so that every line of a
process has the same shape and carries the trace it belongs to.
"""

from __future__ import annotations

import logging
import re
import sys
from contextvars import ContextVar
from typing import Any, Literal

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor

from assistant_observability.requests import REQUESTS

# Words that mark a field as a secret wherever it turns up; the value is replaced, the field stays visible.
_SECRET_FIELD = re.compile(r"(?i)(api[_-]?key|authorization|cookie|dsn|password|secret|token)$")
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.IGNORECASE)
_BEARER = re.compile(r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]+")
REDACTED = "***"
# Libraries that write a line for each request they send.
_CHATTY = ("httpx", "httpx2", "httpcore", "httpcore2")

Format = Literal["json", "console"]
# Of the request that is being answered, "" outside of one: every line carries it, and every call made for it.
request_id: ContextVar[str] = ContextVar("request_id", default="")


def redact(text: str) -> str:
    """Return `text` without passwords in URLs and without bearer tokens."""
    return _BEARER.sub(f"Bearer {REDACTED}", _URL_PASSWORD.sub(rf"\g<head>:{REDACTED}@", text))


def _redact_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = REDACTED if value and _SECRET_FIELD.search(key) else redact(value)
    return event


def _add_trace(_logger: Any, _method: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _add_request(_logger: Any, _method: str, event: EventDict) -> EventDict:
    if found := request_id.get():
        event.setdefault("request_id", found)
    return event


def configure(service: str, output: Format = "json", level: str = "INFO") -> None:
    """Send every log record of the process to standard error in one shape.

    `service` is added to each line. Calling it again replaces the former set-up.
    """

    def add_service(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    shared: list[Processor] = [
        _add_request,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        add_service,
        _add_trace,
    ]
    if output == "json":
        # The exception has to be text before secrets are looked for in it.
        rendering: list[Processor] = [
            structlog.processors.format_exc_info,
            _redact_secrets,
            structlog.processors.JSONRenderer(),
        ]
    else:
        rendering = [
            structlog.processors.format_exc_info,
            _redact_secrets,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)  # Python's own warnings would be lines of another shape
    REQUESTS.configure(service, level, json=output == "json")
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger called `name` (by custom the module's name)."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound
