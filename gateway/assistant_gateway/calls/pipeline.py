"""A request on its way to a provider: admitted, sent, passed back, and settled on every way out.

`fallback` says who is asked, `retry` when again, `metering` what is held and charged, `relay` how an
answer goes out; this is where they meet, once for each destination that is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web
from opentelemetry import trace

from assistant_crds.gateway_api import Operation, Purpose
from assistant_gateway.calls import system_messages
from assistant_gateway.calls.fallback import Attempt, Fallback
from assistant_gateway.calls.relay import Result
from assistant_gateway.calls.request_log import LINE, Line
from assistant_gateway.calls.retry import retrying
from assistant_gateway.calls.tracing import CallTrace
from assistant_gateway.capacity.fairness import Pause, next_round
from assistant_gateway.errors import GatewayError
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.metering.call import Call, Outcome, outcome_of
from assistant_gateway.metering.meter import Meter
from assistant_gateway.metering.metered import Metered
from assistant_gateway.providers import openai_wire
from assistant_gateway.providers.catalog import Target
from assistant_gateway.providers.client import ProviderClient
from assistant_gateway.providers.egress import asking
from assistant_gateway.tenants.routing import Destination
from assistant_gateway.wire.fields import Fields
from assistant_http.response import Response
from assistant_observability import logs

LONGEST_USER = 256
GAVE_UP = frozenset({504, 524})  # statuses of proxies that waited long enough
REQUEST_ID = web.RequestKey("request_id", str)

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks of whichever destination answers it."""

    operation: Operation
    purpose: Purpose
    terms: LimitSet
    fields: Callable[[Attempt], Fields]  # as they go to that destination
    relay: Callable[[Attempt, Metered, Response], Awaitable[Result]]
    streamed: bool = False
    turn: Pause = next_round  # before each step of it that others may be at, too: waits for a turn
    pause: Pause = next_round  # between two pieces of work on a large request: lets others have their turn


class Pipeline:
    """Asks destinations for answers."""

    def __init__(
        self, attempts: Fallback, meter: Meter, dispatcher: ProviderClient, tracer: trace.Tracer | None
    ) -> None:
        self._attempts = attempts
        self._meter = meter
        self._dispatcher = dispatcher
        self._tracer = tracer
        self._logged: dict[tuple[str, str, str, str], float] = {}

    async def answer(self, request: web.Request, to: Sequence[Destination], ask: Ask) -> web.StreamResponse:
        """Ask one destination after the other until one answers.

        Raises:
            GatewayError: none does, or the request may not be made.
        """
        result = await self._attempts.run(to, lambda made: self._attempt(request, ask, made))
        return result.answer

    async def _attempt(self, request: web.Request, ask: Ask, made: Attempt) -> Result:
        """Admit one call, make it, pass the answer on, and settle on every way out."""
        call = _call(request, made, ask)
        terms = ask.terms if made.first else ask.terms.without_rates()
        admit = self._meter.admit
        metered = await admit(
            terms, call, made.target, ask.fields(made), embedding=ask.operation is Operation.EMBEDDINGS, pause=ask.pause
        )
        made.admitted, made.headers = True, {**made.headers, **metered.headers}
        outcome, response, free, span = Outcome.CLIENT_GONE, None, False, None
        try:
            span = CallTrace(self._tracer, request.headers, call)
            request[LINE].trace_id = span.trace_id
            await ask.turn()  # those of a crowd are admitted together,
            response = await retrying(made, lambda: self._send(made.target, metered, span.headers))
            await ask.turn()  # and answered,
            result = await ask.relay(made, metered, response)
            made.permit.answered()
        except GatewayError as error:
            outcome, free = outcome_of(error.status, error.code), not error.billed
            error.headers = {**made.headers, **error.headers}
            message = f"{error.message} {error.said}".strip()
            self._note_failure(call, outcome, message, span.trace_id if span is not None else None)
            error.headers["x-assistant-model"] = f"{call.provider}/{call.model}"
            raise
        except (ConnectionError, asyncio.CancelledError):
            await ask.turn()  # and go away; the call is settled whatever becomes of this
            raise
        except Exception:
            outcome = Outcome.PROVIDER_ERROR  # a fault of the gateway's own, whatever caused it
            raise
        else:
            outcome = result.outcome
            request[LINE].code = result.code
            if outcome is not Outcome.OK:
                self._note_failure(call, outcome, result.problem, span.trace_id)
            return result
        finally:
            if response is not None:
                response.close()  # puts a connection that was read to its end back, ends any other
            self._settle(metered, outcome, free, request[LINE], span)

    def _settle(self, metered: Metered, outcome: Outcome, free: bool, line: Line, span: CallTrace | None) -> None:
        """Settle a call; note what it used."""
        used = self._meter.settle(metered, outcome, free=free)
        line.add(used)
        if span is not None:
            span.end(outcome, used)

    async def _send(self, target: Target, metered: Metered, headers: Mapping[str, str]) -> Response:
        """Send one request, the only place that does; return the head of its answer.

        Raises:
            GatewayError: there is no answer, or it is a refusal.
        """
        send = self._dispatcher.send
        asking.set(metered.call.tenant)  # in the request's own task
        metered.sent = True  # from here on the provider may be at work
        try:
            response = await send(target, embedding=metered.embedding, fields=metered.fields, trace=headers)
        except GatewayError as error:
            metered.sent = error.billed
            raise
        if response.status == 200:
            return response
        # Whoever refuses sends no bill. A proxy that stopped waiting for the provider has not refused for it.
        metered.sent = response.status in GAVE_UP
        try:
            refusal = await openai_wire.refusal(target, response)
        finally:
            response.close()
        if not metered.embedding and system_messages.is_refusal(refusal.said):
            messages = metered.fields["messages"]
            metered.fields["messages"] = system_messages.merged(messages, everywhere=True)
            if metered.fields["messages"] is not messages:  # else it says so of what it was sent
                return await self._send(target, metered, headers)
        raise refusal.paid() if metered.sent else refusal

    def _note_failure(self, call: Call, outcome: Outcome, message: str, trace_id: str | None) -> None:
        """Log the first failure of a kind in ten seconds; the metric counts all."""
        key, now = (call.tenant, call.name, call.provider, outcome.value), time.monotonic()
        if now - self._logged.get(key, float("-inf")) < 10 or outcome is Outcome.INVALID_REQUEST:
            return
        if len(self._logged) > 1000:
            self._logged.clear()
        self._logged[key] = now
        _log.warning(
            "model call failed",
            tenant=call.tenant,
            route=call.name,
            provider=call.provider,
            model=call.model,
            outcome=outcome.value,
            error=message,
            request_id=call.request_id,
            **({"trace_id": trace_id} if trace_id else {}),
        )


def _call(request: web.Request, made: Attempt, ask: Ask) -> Call:
    # Bytes that are no text arrive as halves of surrogate pairs, which no ledger takes.
    to, user = made.to, request.headers.get("x-assistant-user", "").encode(errors="replace").decode()
    return Call(
        tenant=to.tenant,
        name=to.name,
        provider=to.provider,
        model=to.model,
        operation=ask.operation,
        purpose=ask.purpose,
        request_id=request[REQUEST_ID],
        streamed=ask.streamed,
        user=user[:LONGEST_USER] if user else None,
        deadline=made.deadline,
    )
