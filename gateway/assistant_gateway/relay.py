"""A provider's answer on its way to the client, whole or as a stream.

Bytes are passed on as they come. Whatever breaks before the first byte becomes a proper error answer; whatever
breaks after it becomes an error event and a clean end, so that a client never takes half an answer for a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import msgspec
from aiohttp import HttpVersion11, web

from assistant_gateway import errors
from assistant_gateway.answers import checked
from assistant_gateway.calls import Outcome, outcome_of
from assistant_gateway.catalog import Target
from assistant_gateway.errors import GatewayError
from assistant_gateway.events import DONE, EventRelay, TooLargeError
from assistant_gateway.idle import DeadlineError, IdleWatch
from assistant_gateway.memory import lease_of
from assistant_gateway.metered import Metered
from assistant_gateway.providers import openai_wire
from assistant_gateway.usage import chunk_of
from assistant_http.answers import Answer
from assistant_http.errors import HttpError

MAX_UNSENT = 32 * 1024  # bytes that the client has not taken yet; beyond that the provider has to wait
STREAM_BYTES = 64 * 1024  # of events on their way, before a stream is charged for more than every request is
ANSWER_STEP = 2**20  # bytes by which the room for an answer grows at most
STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


class Result(NamedTuple):
    """An answer that went out, and how it ended."""

    answer: web.StreamResponse
    outcome: Outcome
    problem: str = ""
    code: str = ""  # of the problem


class InterruptedByShutdown(Exception):  # noqa: N818  # set on a stream from outside
    """The process has to end before the stream does."""


class Sizes(NamedTuple):
    """The most bytes of what a provider sends."""

    answer: int  # that is not streamed
    event: int
    stream: int


class Relay:
    """Passes answers on, and knows the streams that run, so that they can be ended in good order."""

    def __init__(self, most: Sizes) -> None:
        self._most = most
        self._streams: set[Answer] = set()

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
        response: Answer,
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
            raise _broken(target, error).paid() from None
        metered.reported = checked(raw, target, embedding=metered.embedding)
        metered.body = raw
        metered.note_answer(raw)
        if target.secret is not None and target.secret in raw:
            raw = raw.replace(target.secret, b"***")
        answer = web.Response(body=raw, content_type="application/json", headers=headers)
        return Result(answer, Outcome.OK)

    async def _whole(self, request: web.Request, response: Answer, target: Target, metered: Metered) -> bytes:
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
                    raise _too_much(target, f"sent more than {self._most.answer} bytes").paid()
                await _room(request, size, watch)
                grown += part
        finally:
            if watch is not None:
                watch.stop()
        if len(body) > self._most.answer:
            raise _too_much(target, f"sent more than {self._most.answer} bytes").paid()
        return body if grown is None else cast("bytes", grown)

    async def stream(
        self, request: web.Request, response: Answer, target: Target, metered: Metered, options: StreamOptions
    ) -> Result:
        """Pass on a stream of events. The head goes out with the first of them, and from then on nothing is raised but
        the client's going away: whoever gets an error from here may still be answered by another provider.

        Raises:
            GatewayError: the provider did not answer with a stream, or broke off before its first byte.
        """
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            raise await _not_a_stream(target, response, metered)
        relay = EventRelay(keep_usage=options.keep_usage, secret=target.secret, limit=self._most.event)
        metered.stream = relay
        watch = IdleWatch(response, request, target.settings.idle_seconds, metered.call.deadline)
        self._streams.add(response)
        try:
            first = await _first(response, target)
            answer = web.StreamResponse(headers={**options.headers, **STREAM_HEADERS})
            if request.version >= HttpVersion11:
                answer.enable_chunked_encoding()
            await answer.prepare(request)
            stream = _Stream(request, response, answer, relay, watch, metered, target, self._most.stream)
            problem = await stream.run(first)
            outcome, message, code = Outcome.OK, "", ""
            if problem is not None:
                outcome, message = outcome_of(problem.status, problem.code), problem.message
                code = problem.code
                watch.writing = True
                await answer.write(problem.event())
            elif relay.failed:
                outcome, message = Outcome.PROVIDER_ERROR, f"Provider {target.provider} sent an error event."
                code = "provider_error"
            watch.writing = True
            await answer.write_eof()
        finally:
            self._streams.discard(response)
            watch.stop()
        return Result(answer, outcome, message, code)


class StreamOptions(msgspec.Struct, frozen=True):
    """How a stream is passed on."""

    keep_usage: bool
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Stream:
    """One stream, from the provider's head to its end."""

    request: web.Request
    response: Answer
    answer: web.StreamResponse
    relay: EventRelay
    watch: IdleWatch
    metered: Metered
    target: Target
    left: int  # bytes that may still come
    _charged: int = 0  # bytes, beyond what every request is charged

    async def run(self, data: bytes) -> GatewayError | None:
        """Pass on `data` and what follows until the provider ends; return what went wrong on the provider's side.

        Raises:
            ConnectionError: the client is gone.
        """
        read, feed, moved, watch, write = (
            self.response.next,
            self._feed,
            self.watch.moved,
            self.watch,
            self.answer.write,
        )
        call = self.metered.call
        straight = None
        while data:
            try:
                block = feed(data)
            except TooLargeError as error:
                return None if self.relay.done else _too_much(self.target, str(error))
            if (lack := self._room(block)) is not None:
                return lack
            if call.first_byte is None:
                call.note_first_byte()
            if block:
                if call.answered is None:
                    self.metered.note_answer(block)
                watch.writing = True
                await write(block)
                watch.writing = False
                straight = self._straight if self.answer.chunked else None  # the head is out
                if block.endswith(DONE):
                    watch.hurry()
            moved()
            try:
                data = await read(straight)
            except _BROKEN as error:
                return None if self.relay.done else _problem(self.target, error)
        return await self._end()

    def _straight(self, data: bytes) -> bool:
        """Pass whole events on at once, without waking the task; False when there is more to it, and nothing is done.

        After the first event has gone out with the head, and before the end, chunks are all there is to write.
        """
        transport = self.request.transport
        if (
            transport is None
            or transport.is_closing()
            or transport.get_write_buffer_size() > MAX_UNSENT
            or len(data) > MAX_UNSENT
            or len(data) > self.left
            or not self.relay.whole(data)
            or data.endswith(DONE)
        ):
            return False
        if block := self._feed(data):
            transport.write(b"%x\r\n%b\r\n" % (len(block), block))
        self.watch.moved()
        return True

    def _feed(self, data: bytes) -> bytes:
        """Return the whole events that `data` completes.

        Raises:
            TooLargeError: an event, or the stream, does not end.
        """
        self.left -= len(data)
        if self.left < 0:
            raise TooLargeError("sent a stream that does not end")
        return self.relay.feed(data)

    def _room(self, block: bytes) -> GatewayError | None:
        """Charge what this stream keeps in memory beyond the usual; return why it has to end when there is no room.

        It is not waited for: what is here already takes memory while it waits.
        """
        lease, transport = lease_of(self.request), self.request.transport
        if lease is None or transport is None:
            return None
        kept = self.relay.kept + 2 * len(block) + transport.get_write_buffer_size()
        beyond = max(0, kept - STREAM_BYTES)
        if beyond == self._charged:
            return None
        if beyond < self._charged:
            lease.shrink(self._charged - beyond)
        elif not lease.grow_now(beyond - self._charged):
            return errors.memory_used_up(own=True)
        self._charged = beyond
        return None

    async def _end(self) -> GatewayError | None:
        """Deal with a stream that the provider ended without breaking off."""
        if block := self.relay.finish():
            await self.answer.write(block)
        if self.relay.done or self.relay.failed:
            return None
        if self.relay.finished:
            await self.answer.write(DONE)
            return None
        return errors.provider_error(self.target.provider, "ended the stream in the middle of the answer")


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


def _too_much(target: Target, why: str) -> GatewayError:
    return errors.provider_error(target.provider, why, code="provider_answer_too_large")


_BROKEN = (HttpError, TimeoutError, InterruptedByShutdown)


async def _first(response: Answer, target: Target) -> bytes:
    """Return the first bytes of a stream.

    Raises:
        GatewayError: there are none. The provider may have read the prompt, so it may send a bill.
    """
    try:
        if first := await response.next():
            return first
    except _BROKEN as error:
        raise _problem(target, error).paid() from None
    raise errors.provider_error(target.provider, "ended the stream before it began").paid()


def _problem(target: Target, error: BaseException) -> GatewayError:
    if isinstance(error, InterruptedByShutdown):
        return errors.shutting_down()
    return _broken(target, error)


def _broken(target: Target, error: BaseException) -> GatewayError:
    if isinstance(error, DeadlineError):
        return deadline_passed(target)
    if isinstance(error, TimeoutError):
        what = f"sent nothing for {target.settings.idle_seconds:g} s"
        return errors.provider_timeout(target.provider, what)
    return errors.provider_error(target.provider, "broke off in the middle of the answer")


def deadline_passed(target: Target) -> GatewayError:
    """Return the 504 for a request that has taken as long as it may in all."""
    return errors.provider_timeout(target.provider, f"was not done within {target.settings.total_seconds:g} s")


async def _not_a_stream(target: Target, response: Answer, metered: Metered) -> GatewayError:
    body = await openai_wire.error_body(response)
    detail = openai_wire.error_detail(target, body)
    if detail is not None:
        return openai_wire.hidden(target, detail)
    chunk = chunk_of(body)  # a whole answer is not what was asked for, and will be on the bill all the same
    metered.reported = chunk.reported() if chunk is not None else None
    return errors.provider_error(target.provider, "did not answer with a stream").paid()
