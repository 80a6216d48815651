"""One stream on its way from a provider to the client, from its first event to its end.

The head goes out with the first event that brings something of an answer. Until then nothing of the provider's has been
seen, so whatever goes wrong may still be answered by another provider; from then on it becomes an error event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import HttpVersion11, web

from assistant_gateway import errors
from assistant_gateway.calls.idle import DeadlineError, IdleWatch
from assistant_gateway.capacity.fairness import Pace, Turns
from assistant_gateway.capacity.memory import lease_of
from assistant_gateway.errors import GatewayError
from assistant_gateway.metering.metered import Metered
from assistant_gateway.providers import openai_wire
from assistant_gateway.providers.catalog import Target
from assistant_gateway.wire.decoding import LARGEST_DECODED
from assistant_gateway.wire.sse import DONE, EventRelay, TooLargeError
from assistant_http.errors import HttpError
from assistant_http.response import Response

MAX_UNSENT = 32 * 1024  # bytes that the client has not taken yet; beyond that the provider has to wait
STREAM_BYTES = 64 * 1024  # of events on their way, before a stream is charged for more than every request is
STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
# What comes before an answer (comments, an event with the role alone) is held back: no longer, and no more, than this,
# because it also tells a client that something is there.
HOLD_SECONDS = 10.0
PAUSE_SECONDS = 0.1
PIECE_BYTES = 8 * 1024  # of events that come together, when there are many of them
LINES_AT_ONCE = 100
LOOK_BYTES = 400  # of the tenant's pace, for an event that has to be looked into
HOLD_BYTES = 16 * 1024
PACE_BYTES = 4 * 1024  # of a stream, before its tenant's pace is looked at again: not at each event


class InterruptedByShutdown(Exception):  # noqa: N818  # set on a stream from outside
    """The process has to end before the stream does."""


class ProviderFailedError(Exception):
    """The provider has sent an error event: whatever comes after it is not waited for."""


BROKEN = (HttpError, TimeoutError, InterruptedByShutdown, ProviderFailedError, GatewayError)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream is passed on."""

    keep_usage: bool
    headers: Mapping[str, str]
    begun: Callable[[], None]  # is told when the provider has begun to answer


@dataclass(slots=True)
class Stream:
    """One stream. `begin`, then `run`."""

    request: web.Request
    response: Response
    relay: EventRelay
    watch: IdleWatch
    metered: Metered
    target: Target
    options: StreamOptions
    left: int  # bytes that may still come
    pace: Pace
    pieces: Turns  # in which many events together are looked at, tenant by tenant
    answer: web.StreamResponse = None  # type: ignore[assignment]  # made by `begin`
    _charged: int = 0  # bytes, beyond what every request is charged
    _out: bool = False  # whether the head is
    _wait: float = 0.0  # seconds, because the tenant's streams have brought too much
    _looked: int = 0  # events that were counted
    _more: bytes = b""  # of what has come
    _unpaced: int = 0  # bytes that have come since the tenant's pace was looked at
    _transport: asyncio.Transport | None = None  # to the client

    async def begin(self) -> GatewayError | None:
        """Wait for the answer to begin and send the head with it; return what went wrong after all.

        Raises:
            GatewayError: the provider broke off, or failed, before there was anything of an answer.
        """
        try:
            opening = await self._opening()
        except TooLargeError as error:
            await self._prepare()
            return too_much(self.target, str(error))
        except BROKEN as error:
            raise self._refused(error) from None
        self.options.begun()
        await self._prepare()
        lack = await self._write(opening)
        return self._problem(ProviderFailedError()) if lack is None and self.relay.failed else lack

    async def _opening(self) -> bytes:
        """Return the events up to the first that brings something of an answer.

        Raises:
            BROKEN, TooLargeError: there is none.
        """
        now, opening, since = asyncio.get_running_loop().time, b"", 0.0
        while data := await self._next():
            self.metered.call.note_first_byte()
            self.watch.moved()
            since = since or now()
            opening += self._feed(data)
            if self.relay.failed and not self.relay.begun:
                raise ProviderFailedError
            if self.relay.begun or self.relay.done or now() - since > HOLD_SECONDS or len(opening) > HOLD_BYTES:
                return opening
        opening += self.relay.finish()
        if self.relay.failed and not self.relay.begun:
            raise ProviderFailedError
        if not (self.relay.begun or self.relay.done):
            raise errors.provider_error(self.target.provider, "ended the stream before it began")
        return opening

    async def _next(self, straight: Callable[[bytes], bool] | None = None) -> bytes:
        """Return what has come next: of many events together some, and the others after other tenants' turns."""
        data = self._more or await self.response.next(straight)
        if self._more:
            await self.pieces.take(self.metered.call.tenant)
        self._more = b""
        if len(data) > PIECE_BYTES and data.count(b"\n", 0, PIECE_BYTES) > LINES_AT_ONCE:
            data, self._more = data[:PIECE_BYTES], data[PIECE_BYTES:]
        return data

    def _refused(self, error: BaseException) -> GatewayError:
        """Return what went wrong before there was an answer. A provider that says so itself sends no bill."""
        found = self._problem(error, midway=False)
        free = isinstance(error, ProviderFailedError) and self.relay.usage is None
        return found if free else found.paid()

    async def _prepare(self) -> None:
        self.answer = web.StreamResponse(headers={**self.options.headers, **STREAM_HEADERS})
        if self.request.version >= HttpVersion11:
            self.answer.enable_chunked_encoding()
        await self.answer.prepare(self.request)

    async def _write(self, block: bytes) -> GatewayError | None:
        """Write whole events; return why the stream has to end when there is no room for them."""
        if (lack := self._room(block)) is not None:
            return lack
        if block:
            if self.metered.call.answered is None:
                self.metered.note_answer(block[:LARGEST_DECODED])
            self.watch.writing = True
            await self.answer.write(block)
            self.watch.writing = False
            self._out = True
        if self.relay.done:
            self.watch.hurry()
        return None

    async def run(self) -> GatewayError | None:
        """Pass on what follows until the provider ends; return what went wrong on the provider's side.

        Raises:
            ConnectionError: the client is gone.
        """
        self._transport = self.request.transport
        while True:
            try:
                data = await self._next(self._straight if self._out and self.answer.chunked else None)
                block = self._feed(data)
            except TooLargeError as error:
                return None if self.relay.done else too_much(self.target, str(error))
            except BROKEN as error:
                if self.relay.finished and isinstance(error, HttpError | TimeoutError):
                    return await self._end()  # all choices have ended: nothing of the answer is missing
                return None if self.relay.done else self._problem(error)
            if not data:
                return await self._end()
            if (lack := await self._write(block)) is not None:
                return lack
            if self.relay.failed:
                return self._problem(ProviderFailedError())
            await self._pause()
            self.watch.moved()

    async def _pause(self) -> None:
        """Let the provider wait, whose connection is not read, while the tenant's streams have brought too much."""
        while self._wait > 0:
            await asyncio.sleep(step := min(self._wait, PAUSE_SECONDS))
            self._wait -= step
            self.watch.moved()  # it is not the provider that is silent

    def _straight(self, data: bytes) -> bool:
        """Pass whole events on at once, without waking the task; False when there is more to it, and nothing is done.

        After the first event has gone out with the head, and before the end, chunks are all there is to write.
        """
        transport, relay, size = self._transport, self.relay, len(data)
        if (
            transport is None
            or self._wait > 0
            or transport.is_closing()
            or transport.get_write_buffer_size() > MAX_UNSENT
            or size > PIECE_BYTES
            or size > self.left
            or (block := relay.feed_whole(data)) is None
        ):
            return False
        self._count(size)
        if relay.looked != self._looked:
            self._count_looks()
        self.watch.moved()
        if block:
            transport.write(b"%x\r\n%b\r\n" % (len(block), block))
        if relay.error is not None:
            self.response.fail(ProviderFailedError())
        elif relay.done:
            self.watch.hurry()
        return True

    def _feed(self, data: bytes) -> bytes:
        """Return the whole events that `data` completes.

        Raises:
            TooLargeError: an event, or the stream, does not end.
        """
        self._count(len(data))
        if self.left < 0:
            raise TooLargeError("sent a stream that does not end")
        block = self.relay.feed(data) if data else b""
        if self.relay.looked != self._looked:
            self._count_looks()
        return block

    def _count(self, size: int) -> None:
        """Count bytes that have come."""
        self.left -= size
        self._unpaced += size
        if self._unpaced >= PACE_BYTES:
            now = asyncio.get_running_loop().time()
            self._wait = self.pace.take(self.metered.call.tenant, self._unpaced, now)
            self._unpaced = 0

    def _count_looks(self) -> None:
        """Count events that were looked into against the tenant's pace: by what they cost, not by their bytes."""
        self._unpaced += LOOK_BYTES * (self.relay.looked - self._looked)
        self._looked = self.relay.looked

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
        if self.relay.done:
            return None
        if self.relay.failed:
            return self._problem(ProviderFailedError())
        if self.relay.finished:
            await self.answer.write(DONE)
            return None
        return errors.provider_error(self.target.provider, "ended the stream in the middle of the answer")

    def _problem(self, error: BaseException, *, midway: bool = True) -> GatewayError:
        if self.relay.error is not None:
            return openai_wire.in_event(self.target, self.relay.error, midway=midway)
        if isinstance(error, GatewayError):  # of a translation
            return error
        return errors.shutting_down() if isinstance(error, InterruptedByShutdown) else broken(self.target, error)


def too_much(target: Target, why: str) -> GatewayError:
    """Return the 502 for an answer that is larger than anyone wants."""
    return errors.provider_error(target.provider, why, code="provider_answer_too_large")


def broken(target: Target, error: BaseException) -> GatewayError:
    """Return the 502 or 504 for an answer that broke off, or fell silent."""
    if isinstance(error, DeadlineError):
        return deadline_passed(target)
    if isinstance(error, TimeoutError):
        what = f"sent nothing for {target.settings.idle_seconds:g} s"
        return errors.provider_timeout(target.provider, what)
    return errors.provider_error(target.provider, "broke off in the middle of the answer")


def deadline_passed(target: Target) -> GatewayError:
    """Return the 504 for a request that has taken as long as it may in all."""
    return errors.provider_timeout(target.provider, f"was not done within {target.settings.total_seconds:g} s")
