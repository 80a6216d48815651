"""In which order a request's destinations are tried.

One destination after the other, until one answers: what the next may do better (a provider that is away, ill, busy,
out of quota or without a key) goes on to it, what is the request's own fault does not. Each destination that is really
asked is a call of its own, with its own hold and its own entry in the ledger. Nothing is tried again or elsewhere once
a byte has gone out to the client: by then nobody raises an error any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from assistant_gateway import errors
from assistant_gateway.calls.relay import Result
from assistant_gateway.errors import GatewayError
from assistant_gateway.metering.call import count_fallback
from assistant_gateway.providers.bulkhead import Bulkheads, Permit
from assistant_gateway.providers.catalog import Target
from assistant_gateway.tenants.routing import Destination, resolve
from assistant_observability import metrics

# Of the gateway itself: another provider would not help.
_OURS = frozenset({"shutting_down", "internal_error", "limits_unavailable", "not_ready"})
_ELSEWHERE = frozenset({"provider_rate_limit_exceeded"})
_UNTRANSLATED = "unsupported_parameter"  # known only once the call is admitted, on its way to the translation
# What refuses one model and may let another through, before anyone is asked: its price, its bound, its fields.
_OF_ONE_MODEL = frozenset(
    {
        "price_unknown",
        "not_limitable",
        "tokens_exhausted",
        "budget_exhausted",
        "field_not_allowed",
        "model_not_allowed",
        _UNTRANSLATED,
    }
)


@dataclass(slots=True)
class Attempt:
    """One destination that is asked."""

    to: Destination
    target: Target
    permit: Permit
    deadline: float  # of the whole request, on the loop's clock
    first: bool  # whether nothing of this request was admitted before
    headers: Mapping[str, str]  # what admissions have said of limits
    admitted: bool = False
    code: str | None = None  # how it ended: see `Permit.leave`


@dataclass(slots=True)
class _Course:
    """What became of the destinations before."""

    failure: GatewayError | None = None  # of the last that was asked
    skipped: GatewayError | None = None  # of the first that was not
    reasons: list[str] = field(default_factory=list)  # why fallbacks were not asked
    headers: Mapping[str, str] = field(default_factory=dict)
    first: bool = True

    def error(self) -> GatewayError:
        """Return what to tell the client when nobody has answered."""
        found = self.failure or self.skipped
        if found is None:
            raise AssertionError("a route has at least one destination")
        if self.reasons:
            found.message = " ".join([found.message, *self.reasons])
        return found


class Fallback:
    """Goes through destinations."""

    def __init__(self, bulkheads: Bulkheads, targets: Callable[[], Mapping[str, Target]]) -> None:
        self._bulkheads = bulkheads
        self._targets = targets

    async def run(self, destinations: Sequence[Destination], attempt: Callable[[Attempt], Awaitable[Result]]) -> Result:
        """Return the answer of the first destination that gives one.

        Args:
            destinations: in the order in which they are asked.
            attempt: admits, asks and passes on; it says in `Attempt.admitted` how far it came.

        Raises:
            GatewayError: of the last that was asked; where none was, why the first was not.
        """
        course, deadline = _Course(), 0.0
        for index, to in enumerate(destinations):
            if index:  # what has failed is settled first: its hold must not stand in the way of the next
                await asyncio.sleep(0)
            try:
                target = resolve(to, self._targets())
                deadline = deadline or asyncio.get_running_loop().time() + target.settings.total_seconds
                permit = await self._bulkheads.bulkhead(to.tenant, target).enter(to.model, deadline, to.tenant)
            except GatewayError as error:
                _skip(course, to, error, index)
                continue
            made = Attempt(to, target, permit, deadline, course.first, course.headers)
            try:
                result = await attempt(made)
            except GatewayError as error:
                made.code = error.code if made.admitted and not error.local else None
                self._failed(course, made, error, index)
            else:
                made.code = result.code
                if index:
                    count_fallback(to.tenant, to.name, to.provider, to.model)
                return result
            finally:
                permit.leave(made.code)
        raise course.error()

    @staticmethod
    def _failed(course: _Course, made: Attempt, error: GatewayError, index: int) -> None:
        """Note a failure.

        Raises:
            GatewayError: the request ends here.
        """
        if not made.admitted or error.code == _UNTRANSLATED:
            if index == 0 or error.code not in _OF_ONE_MODEL:
                raise course.failure or error
            course.first = course.first and not made.admitted
            _skip(course, made.to, error, index)
            return
        errors.let_go(error)  # it is kept, and the request's body must not be with it
        course.failure, course.first, course.headers = error, False, made.headers
        elsewhere = (error.status >= 500 and error.code not in _OURS) or error.code in _ELSEWHERE
        if not elsewhere or asyncio.get_running_loop().time() >= made.deadline:
            raise error


def _skip(course: _Course, to: Destination, error: GatewayError, index: int) -> None:
    """Note a destination that is not asked.

    Raises:
        GatewayError: it is the request's own, and what the tenant may not do.
    """
    if index == 0 and error.status == 403:
        raise error
    errors.let_go(error)
    metrics.PROVIDER_SKIPPED.labels(to.provider, error.code).inc()
    error.headers["x-assistant-model"] = to.label
    course.skipped = course.skipped or error
    if index:
        course.reasons.append(f"Fallback {to.label} was not asked: {error.message}")
