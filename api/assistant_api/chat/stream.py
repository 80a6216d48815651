"""Relay a stream of server-sent events, and add the chunk with the citations before a choice's last chunk.

Only whole events are sent on, so that an error event can follow wherever the gateway breaks off. Without passages
nothing else is looked at; with passages each event is decoded as far as its words, because a marker may come in
pieces. Source of the framing: the HTML standard, "Server-sent events".
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgspec
from litestar.types import Receive, Scope, Send

from assistant_api.chat.citations import Sources, Tracker
from assistant_api.chat.schemas import MAX_CHOICES, Choice, Chunk
from assistant_api.chunks import Chunks, chunks_of
from assistant_api.decoding import MALFORMED
from assistant_api.gateway import Answer, GatewayUnreachableError
from assistant_api.hangup import CallerGoneError, until_hangup
from assistant_api.tokens import tokens_of
from assistant_observability import logs, metrics

EVENT_STREAM = "text/event-stream"
# What the log says of a stream that did not come to its end.
STREAM_INTERRUPTED, CALLER_GONE = "stream_interrupted", "caller_gone"
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_DONE = b"[DONE]"
STALL_SECONDS = 60.0  # a caller who reads nothing for so long, while there is something to read, has gone
_MAX_EVENT = 1 << 20  # an event that does not end within this is relayed unread

_decode_chunk = msgspec.json.Decoder(Chunk).decode
_log = logs.logger(__name__)


class Relay:
    """Takes the bytes of a stream as they come and returns the whole events among them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return every event that is complete by now."""
        if not self._rest and data.endswith(b"\n\n"):
            return data
        buffer = self._rest + data
        end = buffer.rfind(b"\n\n") + 2
        if end < 2:
            end = buffer.rfind(b"\n\r\n") + 3
            if end < 3:
                end = len(buffer) if len(buffer) > _MAX_EVENT else 0
        self._rest = buffer[end:]
        return buffer[:end]

    def end(self) -> bytes:
        """Return what is left when the stream has ended."""
        rest, self._rest = self._rest, b""
        return rest


class CitingRelay(Relay):
    """A relay that adds the citations of the passages that the answer used."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._sources = sources
        self._trackers: dict[int, Tracker] = {}
        self._last = Chunk()

    def feed(self, data: bytes) -> bytes:
        """See `Relay.feed`."""
        buffer = self._rest + data
        out: list[bytes] = []
        start = 0
        for end in _EVENT_END.finditer(buffer, max(0, len(self._rest) - 3)):
            event = buffer[start : end.end()]
            out += (self._before(event), event)
            start = end.end()
        self._rest = buffer[start:]
        if len(self._rest) > _MAX_EVENT:
            out.append(self._rest)
            self._rest = b""
        return b"".join(out)

    def _before(self, event: bytes) -> bytes:
        """Return what has to be sent before `event`: mostly nothing."""
        if not event.startswith(b"data:"):
            return b""
        payload = event[5:].strip()
        if payload == _DONE:
            # A provider that ended a choice without a finish_reason.
            return self._citations([Choice(index=index) for index in self._trackers])
        try:
            chunk = _decode_chunk(payload)
        except MALFORMED:
            return b""
        self._last = chunk
        finished: list[Choice] = []
        for choice in chunk.choices:
            if choice.delta is not None and choice.delta.content:
                self._tracker(choice.index).feed(choice.delta.content)
            if choice.finish_reason is not None:
                finished.append(choice)
        return self._citations(finished) if finished else b""

    def _tracker(self, index: int) -> Tracker:
        tracker = self._trackers.get(index)
        if tracker is None:
            tracker = self._sources.tracker()
            if len(self._trackers) < MAX_CHOICES:
                self._trackers[index] = tracker
        return tracker

    def _citations(self, finished: Sequence[Choice]) -> bytes:
        choices: list[dict[str, Any]] = []
        for choice in finished:
            tracker = self._trackers.pop(choice.index, None)
            found = self._sources.annotations(tracker.marks) if tracker else []
            if found:
                choices.append({"index": choice.index, "delta": {"annotations": found}, "finish_reason": None})
        if not choices:
            return b""
        chunk = {
            "id": self._last.id,
            "object": "chat.completion.chunk",
            "created": self._last.created,
            "model": self._last.model,
            "choices": choices,
        }
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


class _Patience:
    """Lets `limit` expire when one send has not ended within STALL_SECONDS; waiting for the model is no such thing.

    One timer per stream that looks now and then: moving a timer on at each event would cost more than the relay.
    """

    __slots__ = ("_limit", "_timer", "now", "since")

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self.now = asyncio.get_running_loop().time
        self.since: float | None = None  # when the present send began; to be set around each

    async def __aenter__(self) -> Self:
        self._look()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self.now()
        left = STALL_SECONDS if self.since is None else self.since + STALL_SECONDS - now
        if left <= 0:
            self._limit.reschedule(now)
            left = STALL_SECONDS
        self._timer = asyncio.get_running_loop().call_later(left, self._look)


class EventStream:
    """The ASGI response of a streamed answer.

    A caller that hangs up ends the gateway's call at once; a gateway that breaks off ends the stream with an error
    event, never silently. `interrupted` makes that event's payload.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        headers: Sequence[tuple[bytes, bytes]],
        sources: Sources | None,
        assistant: str,
        started: float,
        interrupted: Callable[[], bytes],
    ) -> None:
        self._answer = answer
        self._headers = headers
        self._relay = CitingRelay(sources) if sources else Relay()
        self._assistant = assistant
        self._started = started
        self._interrupted = interrupted
        self._chunks: Chunks | None = None
        self._sent = (b"", b"")  # the last two blocks: the usage is in one of them

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        self._chunks = chunks_of(scope)
        noted = scope.setdefault("state", {})
        noted["interrupt"] = self.interrupt
        try:
            async with until_hangup(receive):
                await send({"type": "http.response.start", "status": 200, "headers": list(self._headers)})
                if not await self._body(send):
                    noted["code"] = STREAM_INTERRUPTED
        except CallerGoneError:
            noted["code"] = CALLER_GONE
            _log.debug("caller went away during a stream", assistant=self._assistant)
        finally:
            self._answer.close()
            noted["tokens"] = tokens_of(b"".join(self._sent))

    def interrupt(self) -> None:
        """End the stream with an error event, because the process has to end."""
        self._answer.fail(GatewayUnreachableError("the tenant API is going down"))

    async def _body(self, send: Send) -> bool:
        """Send the events; return whether they came to their end."""
        waiting, straight, whole = True, None, True
        try:
            async with asyncio.timeout(None) as limit, _Patience(limit) as patience:
                while data := await self._answer.next(straight):
                    if waiting:
                        metrics.FIRST_TOKEN.labels(self._assistant).observe(time.perf_counter() - self._started)
                        waiting, straight = False, self._straight
                    out = self._relay.feed(data)
                    if out:
                        self._sent = (self._sent[1], out)
                        patience.since = patience.now()
                        await send({"type": "http.response.body", "body": out, "more_body": True})
                        patience.since = None
            tail = self._relay.end()
        except TimeoutError as error:
            raise CallerGoneError from error
        except GatewayUnreachableError as error:
            _log.warning("stream interrupted", assistant=self._assistant, reason=str(error))
            tail, whole = b"data: " + self._interrupted() + b"\n\n", False
        await send({"type": "http.response.body", "body": tail, "more_body": False})
        return whole

    def _straight(self, data: bytes) -> bool:
        """Send what `data` completes at once; False, and nothing done, where that has to be waited for."""
        if self._chunks is None or not self._chunks.ready:
            return False
        if out := self._relay.feed(data):
            self._sent = (self._sent[1], out)
            self._chunks.write(out)
        return True
