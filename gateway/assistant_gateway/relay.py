"""A provider's answer on its way to the client, whole or as a stream.

Bytes are passed on as they come. Whatever breaks before the first byte becomes a proper error answer; whatever
breaks after it becomes an error event and a clean end, so that a client never takes half an answer for a whole one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from aiohttp import HttpVersion11, web

from assistant_gateway import errors
from assistant_gateway.calls import Outcome, outcome_of
from assistant_gateway.catalog import Target
from assistant_gateway.decoding import UNREADABLE, is_array
from assistant_gateway.errors import GatewayError
from assistant_gateway.events import DONE, EventRelay, TooLargeError
from assistant_gateway.metering import Metered, answered_by
from assistant_gateway.providers import openai_wire
from assistant_gateway.usage import Usage, chunk_of
from assistant_http.answers import Answer
from assistant_http.errors import HttpError

END_SECONDS = 1.0
MAX_UNSENT = 64 * 1024  # bytes that the client has not taken yet; beyond that the provider has to wait
STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


class Result(NamedTuple):
    """An answer that went out, and how it ended."""

    answer: web.StreamResponse
    outcome: Outcome
    problem: str = ""
    code: str = ""  # of the problem


class _Chat(msgspec.Struct, frozen=True):
    choices: msgspec.Raw


class _Embeddings(msgspec.Struct, frozen=True):
    data: msgspec.Raw


_chat = msgspec.json.Decoder(_Chat)
_embeddings = msgspec.json.Decoder(_Embeddings)


class InterruptedByShutdown(Exception):  # noqa: N818  # set on a stream from outside
    """The process has to end before the stream does."""


class DeadlineError(TimeoutError):
    """The request has taken as long as it may in all."""


class IdleWatch:
    """One timer per answer: notices that nothing has moved for too long, at next to no cost per event."""

    def __init__(self, response: Answer, request: web.Request, seconds: float, deadline: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._response = response
        self._request = request
        self._seconds = seconds
        self._deadline = deadline
        self._moved = self._loop.time()
        self._timer = self._loop.call_at(min(self._moved + seconds, deadline), self._look)
        self.writing = False  # whether it is the client's turn to move

    def moved(self) -> None:
        """Note that something came or went."""
        self._moved = self._loop.time()

    def hurry(self) -> None:
        """Wait for the end of the answer only, not for more of it."""
        self._timer.cancel()
        self._seconds = END_SECONDS
        self._timer = self._loop.call_later(END_SECONDS, self._look)

    def stop(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _look(self) -> None:
        now, idle = self._loop.time(), self._moved + self._seconds
        if now >= self._deadline:
            self._deadline = math.inf
            self._response.fail(DeadlineError())
        if now < idle:
            self._timer = self._loop.call_at(min(idle, self._deadline), self._look)
        elif self.writing and self._request.transport is not None:
            self._request.transport.abort()  # a client that does not read is a client that is gone
        else:
            self._response.fail(TimeoutError())


class Relay:
    """Passes answers on, and knows the streams that run, so that they can be ended in good order."""

    def __init__(self, max_answer_bytes: int) -> None:
        self._max_answer_bytes = max_answer_bytes
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
        metered.reported = _checked(raw, target, embedding=metered.embedding)
        metered.body, metered.call.answered = raw, answered_by(raw)
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
        parts: list[bytes] = []
        size = 0
        try:
            while part := await response.next():
                metered.call.note_first_byte()
                if watch is not None:
                    watch.moved()
                parts.append(part)
                size += len(part)
                if size > self._max_answer_bytes:
                    why = f"sent more than {self._max_answer_bytes} bytes"
                    raise errors.provider_error(target.provider, why, code="provider_answer_too_large").paid()
        finally:
            if watch is not None:
                watch.stop()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def stream(
        self, request: web.Request, response: Answer, target: Target, metered: Metered, options: StreamOptions
    ) -> Result:
        """Pass on a stream of events. The head goes out with the first of them, and from then on nothing is raised but
        the client's going away: whoever gets an error from here may still be answered by another provider.

        Raises:
            GatewayError: the provider did not answer with a stream, or broke off before its first byte.
        """
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            raise await _not_a_stream(target, response)
        relay = EventRelay(keep_usage=options.keep_usage, secret=target.secret, limit=self._max_answer_bytes)
        metered.stream = relay
        watch = IdleWatch(response, request, target.settings.idle_seconds, metered.call.deadline)
        self._streams.add(response)
        try:
            first = await _first(response, target)
            answer = web.StreamResponse(headers={**options.headers, **STREAM_HEADERS})
            if request.version >= HttpVersion11:
                answer.enable_chunked_encoding()
            await answer.prepare(request)
            problem = await _Stream(request, response, answer, relay, watch, metered, target).run(first)
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

    async def run(self, data: bytes) -> GatewayError | None:
        """Pass on `data` and what follows until the provider ends; return what went wrong on the provider's side.

        Raises:
            ConnectionError: the client is gone.
        """
        read, feed, moved, watch, write = (
            self.response.next,
            self.relay.feed,
            self.watch.moved,
            self.watch,
            self.answer.write,
        )
        call = self.metered.call
        straight = None
        while data:
            try:
                block = feed(data)
            except TooLargeError:
                if self.relay.done:
                    return None
                why = "sent an event that does not end"
                return errors.provider_error(self.target.provider, why, code="provider_answer_too_large")
            if call.first_byte is None:
                call.note_first_byte()
            if block:
                if call.answered is None:
                    call.answered = answered_by(block) or ""
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
            or not self.relay.whole(data)
            or data.endswith(DONE)
        ):
            return False
        if block := self.relay.feed(data):
            transport.write(b"%x\r\n%b\r\n" % (len(block), block))
        self.watch.moved()
        return True

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
        message = "The gateway is being restarted; ask again."
        return GatewayError(503, "shutting_down", message, kind=errors.SERVER)
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


def _checked(raw: bytes, target: Target, *, embedding: bool) -> Usage | None:
    """Return the usage of an answer that is what it should be.

    Raises:
        GatewayError: 502: it is something else.
    """
    decoder: msgspec.json.Decoder[_Embeddings] | msgspec.json.Decoder[_Chat] = _embeddings if embedding else _chat
    try:
        decoded = decoder.decode(raw)
        if not is_array(decoded.data if isinstance(decoded, _Embeddings) else decoded.choices):
            raise msgspec.ValidationError("not an array")  # as if the decoder had said so
        chunk = chunk_of(raw)
    except UNREADABLE:
        detail = openai_wire.error_detail(target, raw)
        if detail is not None:  # some answer 200 and put the error inside
            raise openai_wire.hidden(target, detail) from None
        what = "embeddings" if decoder is _embeddings else "a chat completion"
        raise errors.provider_error(target.provider, f"answered with something that is not {what}") from None
    return chunk.reported() if chunk is not None else None


async def _not_a_stream(target: Target, response: Answer) -> GatewayError:
    detail = await openai_wire.detail_of(target, response)
    if detail is not None:
        return openai_wire.hidden(target, detail)
    return errors.provider_error(target.provider, "did not answer with a stream")
