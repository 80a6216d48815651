"""One call of a model, from admission to settlement.

Every way out of a call ends in `settle`, once: success, refusal by the provider, time-out, a client that hung up.
What is held for it, charged and written to the ledger is in `meter`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from assistant_crds.gateway_api import Operation, Purpose
from assistant_gateway.metering.model_labels import Model, ModelLabels
from assistant_gateway.wire.usage import Usage
from assistant_observability import metrics


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


@dataclass(slots=True)
class Call:
    """Who asks which model for what. `name` is the assistant's or, for embeddings, the knowledge base's."""

    tenant: str
    name: str
    provider: str
    model: str
    operation: Operation
    purpose: Purpose
    request_id: str
    streamed: bool = False
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
        to = (self.provider, self.model)
        series = _series(self.tenant, self.name, to, self.operation, self.purpose, outcome)
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


_models = ModelLabels()
_names: dict[str, set[str]] = {}  # by tenant: assistants and knowledge bases that have time series
_OF_TENANTS = (
    metrics.MODEL_CALLS,
    metrics.MODEL_TOKENS,
    metrics.MODEL_COST,
    metrics.MODEL_CALLS_DISPUTED,
    metrics.MODEL_CALLS_UNPRICED,
    metrics.LIMIT_REFUSALS,
    metrics.FALLBACKS,
    metrics.QUOTA_LEASE_CALLS,
    metrics.LIMIT_ADMITTED_ALONE,
)
_OF_MODELS = (metrics.MODEL_CALLS, metrics.MODEL_TOKENS, metrics.MODEL_COST, metrics.FALLBACKS)
_OF_NAMES = (*_OF_MODELS, metrics.LIMIT_REFUSALS)


@lru_cache(maxsize=10_000)
def _series(tenant: str, name: str, to: Model, operation: Operation, purpose: Purpose, outcome: Outcome) -> _Series:
    provider, model = to
    _names.setdefault(tenant, set()).add(name)
    label = _models.of(tenant, provider, model)
    kind = (operation, provider, label)
    error = "" if outcome is Outcome.OK else outcome.value
    return _Series(
        metrics.MODEL_CALLS.labels(tenant, name, provider, label, operation, purpose, outcome.value),
        metrics.MODEL_DURATION.labels(*kind, error),
        metrics.MODEL_FIRST_BYTE.labels(provider, label),
        metrics.MODEL_TOKENS.labels(tenant, name, provider, label, "input"),
        metrics.MODEL_TOKEN_USAGE.labels(*kind, "input"),
        metrics.MODEL_TOKENS.labels(tenant, name, provider, label, "output"),
        metrics.MODEL_TOKEN_USAGE.labels(*kind, "output"),
        metrics.MODEL_COST.labels(tenant, name, provider, label),
    )


def count_fallback(tenant: str, name: str, provider: str, model: str) -> None:
    """Count a request that was answered by a fallback."""
    _names.setdefault(tenant, set()).add(name)
    metrics.FALLBACKS.labels(tenant, name, provider, _models.of(tenant, provider, model)).inc()


def keep_series(tenant: str, names: AbstractSet[str], models: AbstractSet[Model]) -> None:
    """Drop the time series of what a tenant no longer has, so that a process does not grow with all that ever was.

    Args:
        tenant: its namespace.
        names: its assistants and knowledge bases.
        models: what they use, with the providers' names.
    """
    gone = _names.get(tenant, set()) - names
    _names[tenant] = set(names)
    forgotten, unused = _models.keep(tenant, models)
    if not (gone or forgotten):
        return
    _series.cache_clear()
    for name in gone:
        for metric in _OF_NAMES:
            metric.remove_by_labels({"tenant": tenant, "assistant": name})
    for provider, model in forgotten:
        for metric in _OF_MODELS:
            metric.remove_by_labels({"tenant": tenant, "provider": provider, "model": model})
    _forget_models(unused)


def forget_tenant(namespace: str) -> None:
    """Drop the time series of a tenant that is gone."""
    _series.cache_clear()
    _names.pop(namespace, None)
    _, unused = _models.keep(namespace, frozenset())
    _forget_models(unused)
    for metric in _OF_TENANTS:
        metric.remove_by_labels({"tenant": namespace})


def _forget_models(unused: AbstractSet[Model]) -> None:
    for provider, model in unused:
        metrics.MODEL_FIRST_BYTE.remove_by_labels({"provider": provider, "model": model})
        for metric in (metrics.MODEL_DURATION, metrics.MODEL_TOKEN_USAGE):
            metric.remove_by_labels({"gen_ai_provider_name": provider, "gen_ai_request_model": model})
