"""A provider's answer on its way to the client, whole or as a stream.

Bytes are passed on as they come. Whatever breaks before the first byte becomes a proper error answer; whatever
breaks after it becomes an error event and a clean end, so that a client never takes half an answer for a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, cast

from aiohttp import web

from assistant_gateway import errors
from assistant_gateway.calls.answers import checked
from assistant_gateway.calls.idle import IdleWatch
from assistant_gateway.calls.streaming import InterruptedByShutdown, Stream, StreamOptions, broken, too_much
from assistant_gateway.capacity.fairness import Pace, Turns
from assistant_gateway.capacity.memory import lease_of
from assistant_gateway.errors import GatewayError
from assistant_gateway.metering import lengths
from assistant_gateway.metering.call import Outcome, outcome_of
from assistant_gateway.metering.metered import Metered
from assistant_gateway.providers import openai_wire
from assistant_gateway.providers.catalog import Target
from assistant_gateway.wire import chunks
from assistant_gateway.wire.decoding import LARGEST_DECODED
from assistant_gateway.wire.outline import holds, outline
from assistant_gateway.wire.sse import EventRelay
from assistant_gateway.wire.usage import chunk_of
from assistant_http.errors import HttpError
from assistant_http.response import Response

# The last three are those of servers that do not say what they send.
STREAM_TYPES = frozenset({"text/event-stream", "text/plain", "application/octet-stream", ""})
ANSWER_STEP = 2**20  # bytes by which the room for an answer grows at most
# Bytes that all streams of a tenant bring in a second, and at once: four hundred times what a quick model writes.
STREAM_RATE, STREAM_AT_ONCE = 4 * 2**20, 8 * 2**20


class Result(NamedTuple):
    """An answer that went out, and how it ended."""

    answer: web.StreamResponse
    outcome: Outcome
    problem: str = ""
    code: str = ""  # of the problem


class Sizes(NamedTuple):
    """The most bytes of what a provider sends."""

    answer: int  # that is not streamed
    event: int
    stream: int


class Relay:
    """Passes answers on, and knows the streams that run, so that they can be ended in good order."""

    def __init__(self, most: Sizes, pieces: Turns) -> None:
        """Pass answers on.

        Args:
            most: how large they may be.
            pieces: in which large ones are looked at, tenant by tenant.
        """
        self._most = most
        self._pieces = pieces
        self._pace = Pace(STREAM_RATE, STREAM_AT_ONCE)
        self._streams: set[Response] = set()

    @property
    def running(self) -> int:
        """How many streams run."""
        return len(self._streams)

    def interrupt(self) -> None:
        """End every stream with an error event."""
        for response in self._streams:
            response.fail(InterruptedByShutdown())

    async def answer(
        self,
        request: web.Request,
        response: Response,
        target: Target,
        metered: Metered,
        headers: Mapping[str, str],
    ) -> Result:
        """Pass on an answer that is not streamed, after a look at whether it is one.

        Raises:
            GatewayError: 502 or 504.
        """
        try:
            raw = await self._whole(request, response, target, metered)
        except (HttpError, TimeoutError) as error:
            raise broken(target, error).paid() from None
        large, pause = len(raw) > LARGEST_DECODED, partial(self._pieces.take, metered.call.tenant)
        seen = await outline(raw, pause) if large else raw
        metered.reported = checked(seen, target, embedding=metered.embedding)
        if not (metered.embedding or large):
            raw = seen = chunks.flattened(raw, "message")
        metered.body = raw
        metered.note_answer(seen)
        if (secret := target.secret) is not None and (await holds(raw, secret, pause) if large else secret in raw):
            raw = raw.replace(secret, b"***")
        answer = web.Response(body=raw, content_type="application/json", headers=headers)
        return Result(answer, Outcome.OK)

    async def _whole(self, request: web.Request, response: Response, target: Target, metered: Metered) -> bytes:
        """Return the body of an answer.

        Raises:
            HttpError, TimeoutError: it broke off, or nothing came for too long.
            GatewayError: 502: it is too large.
        """
        watch = None
        if not response.complete:  # else it came with its head, as small answers do
            watch = IdleWatch(response, request, target.settings.idle_seconds, metered.call.deadline)
        body = b""
        grown: bytearray | None = None  # of more than one piece: nothing is there twice
        try:
            while part := await response.next():
                metered.call.note_first_byte()
                if watch is not None:
                    watch.moved()
                if not body:
                    body = part
                    continue
                if grown is None:
                    grown = bytearray(body)
                size = len(grown) + len(part)
                if size > self._most.answer:
                    raise too_much(target, f"sent more than {self._most.answer} bytes").paid()
                await _room(request, size, watch)
                grown += part
        finally:
            if watch is not None:
                watch.stop()
        if len(body) > self._most.answer:
            raise too_much(target, f"sent more than {self._most.answer} bytes").paid()
        return body if grown is None else cast("bytes", grown)

    async def stream(
        self, request: web.Request, response: Response, target: Target, metered: Metered, options: StreamOptions
    ) -> Result:
        """Pass on a stream of events. Once its head is out nothing is raised but the client's going away: whoever gets
        an error from here may still be answered by another provider.

        Raises:
            GatewayError: the provider did not answer with a stream, or broke off or failed before it said anything.
        """
        if response.headers.get("content-type", "").partition(";")[0].strip().lower() not in STREAM_TYPES:
            raise await _not_a_stream(target, response, metered)
        answers = lengths.answers(metered.fields)
        relay = EventRelay(keep_usage=options.keep_usage, secret=target.secret, limit=self._most.event, answers=answers)
        metered.stream = relay
        watch = IdleWatch(response, request, target.settings.idle_seconds, metered.call.deadline)
        self._streams.add(response)
        stream = Stream(
            request, response, relay, watch, metered, target, options, self._most.stream, self._pace, self._pieces
        )
        try:
            problem = await stream.begin() or await stream.run()
            outcome, message, code = Outcome.OK, "", ""
            if problem is not None:
                outcome, message = outcome_of(problem.status, problem.code), problem.message
                code = problem.code
                watch.writing = True
                await stream.answer.write(problem.event())
            watch.writing = True
            await stream.answer.write_eof()
        finally:
            self._streams.discard(response)
            watch.stop()
        return Result(stream.answer, outcome, message, code)


async def _room(request: web.Request, size: int, watch: IdleWatch | None) -> None:
    """Charge an answer of so many bytes.

    Raises:
        GatewayError: there is no room, so it is given up; the provider has answered all the same.
    """
    lease = lease_of(request)
    if lease is None or size <= lease.answer:
        return
    more = max(size - lease.answer, min(lease.answer, ANSWER_STEP))
    try:
        await lease.grow(more)
    except GatewayError as error:
        raise error.paid() from None
    lease.answer += more
    if watch is not None:
        watch.moved()  # it was not the provider who took its time


async def _not_a_stream(target: Target, response: Response, metered: Metered) -> GatewayError:
    body = await openai_wire.error_body(response)
    detail = openai_wire.error_detail(target, body)
    if detail is not None:
        return openai_wire.hidden(target, detail)
    chunk = chunk_of(body)  # a whole answer is not what was asked for, and will be on the bill all the same
    metered.reported = chunk.reported() if chunk is not None else None
    return errors.provider_error(target.provider, "did not answer with a stream").paid()
