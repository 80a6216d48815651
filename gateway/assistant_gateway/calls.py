"""One call of a model, from admission to settlement.

Every way out of a call ends in `settle`, once: success, refusal by the provider, time-out, a client that hung up.
What is held for it, charged and written to the ledger is in `metering`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from assistant_gateway.usage import Usage
from assistant_observability import genai, metrics

CHAT_ROADS = frozenset({"chat", "stream"})  # the others are embeddings


class Outcome(StrEnum):
    """How a call ended; also a metric's label, so the set is closed."""

    OK = "ok"
    CLIENT_GONE = "client_gone"
    INVALID_REQUEST = "invalid_request"
    PROVIDER_ERROR = "provider_error"
    PROVIDER_UNREACHABLE = "provider_unreachable"
    PROVIDER_UNAUTHORIZED = "provider_unauthorized"
    PROVIDER_RATE_LIMITED = "provider_rate_limited"
    PROVIDER_QUOTA_EXHAUSTED = "provider_quota_exhausted"
    PROVIDER_TIMEOUT = "provider_timeout"
    INTERRUPTED = "interrupted"  # this process is going down


_BY_CODE = {
    "provider_unreachable": Outcome.PROVIDER_UNREACHABLE,
    "provider_unauthorized": Outcome.PROVIDER_UNAUTHORIZED,
    "provider_rate_limit_exceeded": Outcome.PROVIDER_RATE_LIMITED,
    "provider_quota_exhausted": Outcome.PROVIDER_QUOTA_EXHAUSTED,
    "provider_timeout": Outcome.PROVIDER_TIMEOUT,
    "shutting_down": Outcome.INTERRUPTED,
}


def outcome_of(status: int, code: str) -> Outcome:
    """Return the outcome that an error answer stands for."""
    return _BY_CODE.get(code) or (Outcome.INVALID_REQUEST if status < 500 else Outcome.PROVIDER_ERROR)


def operation_of(road: str) -> str:
    """Return what OpenTelemetry calls the operation of a road."""
    return genai.OPERATION_CHAT if road in CHAT_ROADS else genai.OPERATION_EMBEDDINGS


@dataclass(slots=True)
class Call:
    """Who asks which model for what. `name` is the assistant's or, for embeddings, the knowledge base's."""

    tenant: str
    name: str
    provider: str
    model: str
    road: str  # chat, stream, ingest, search, embedding
    request_id: str
    user: str | None = None
    started: float = field(default_factory=time.perf_counter)
    first_byte: float | None = None
    answered: str | None = None  # the model that says it answered
    deadline: float = math.inf  # on the loop's clock: of the request this call is made for
    settled: bool = False

    def note_first_byte(self) -> None:
        """Remember when the provider began to answer."""
        if self.first_byte is None:
            self.first_byte = time.perf_counter()

    def settle(self, outcome: Outcome, usage: Usage | None = None, cost: int = 0) -> bool:
        """Count the call; a second time does nothing and returns False."""
        if self.settled:
            return False
        self.settled = True
        series = _series(self.tenant, self.name, self.provider, self.model, self.road, outcome)
        series.calls.inc()
        series.duration.observe(time.perf_counter() - self.started)
        if self.first_byte is not None:
            series.first_byte.observe(self.first_byte - self.started)
        if usage is not None:
            series.input.inc(usage.input)
            series.input_usage.observe(usage.input)
            series.output.inc(usage.output)
            series.output_usage.observe(usage.output)
        if cost:
            series.cost.inc(cost)
        return True


class _Series(NamedTuple):
    """The time series of one kind of call; looking them up by their labels costs a tenth of a request."""

    calls: Counter
    duration: Histogram
    first_byte: Histogram
    input: Counter
    input_usage: Histogram
    output: Counter
    output_usage: Histogram
    cost: Counter


@lru_cache(maxsize=10_000)
def _series(tenant: str, name: str, provider: str, model: str, road: str, outcome: Outcome) -> _Series:
    kind = (operation_of(road), provider, model)
    error = "" if outcome is Outcome.OK else outcome.value
    return _Series(
        metrics.MODEL_CALLS.labels(tenant, name, provider, model, road, outcome.value),
        metrics.MODEL_DURATION.labels(*kind, error),
        metrics.MODEL_FIRST_BYTE.labels(provider, model),
        metrics.MODEL_TOKENS.labels(tenant, name, provider, model, "input"),
        metrics.MODEL_TOKEN_USAGE.labels(*kind, "input"),
        metrics.MODEL_TOKENS.labels(tenant, name, provider, model, "output"),
        metrics.MODEL_TOKEN_USAGE.labels(*kind, "output"),
        metrics.MODEL_COST.labels(tenant, name, provider, model),
    )


def forget_tenant(namespace: str) -> None:
    """Drop the time series of a tenant that is gone, so that a process does not grow with every one there ever was."""
    _series.cache_clear()
    for metric in (
        metrics.MODEL_CALLS,
        metrics.MODEL_TOKENS,
        metrics.MODEL_COST,
        metrics.MODEL_CALLS_DISPUTED,
        metrics.MODEL_CALLS_UNPRICED,
        metrics.LIMIT_REFUSALS,
        metrics.FALLBACKS,
        metrics.LIMIT_GRANT_CALLS,
        metrics.LIMIT_ADMITTED_ALONE,
    ):
        metric.remove_by_labels({"tenant": namespace})
