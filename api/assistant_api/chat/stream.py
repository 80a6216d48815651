"""Relay a stream of server-sent events, and add the chunk with the citations before a choice's last chunk.

Only whole events are sent on, so that an error event can follow wherever the gateway breaks off. Without passages
nothing else is looked at; with passages each event is decoded as far as its words, because a marker may come in
pieces.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import msgspec
from litestar.types import Receive, Scope, Send

from assistant_api.chat.citations import Sources, Tracker
from assistant_api.chat.schemas import MAX_CHOICES, StreamChunk
from assistant_api.decoding import MALFORMED
from assistant_api.direct_write import DirectWriter, direct_writer
from assistant_api.disconnect import ClientDisconnectedError, cancel_on_disconnect
from assistant_api.gateway import GatewayResponse, GatewayUnreachableError
from assistant_api.tokens import Tokens, tokens_of
from assistant_http.events import Frames, data_of, split
from assistant_observability import logs, metrics

EVENT_STREAM = "text/event-stream"
# What the log says of a stream that did not come to its end.
STREAM_INTERRUPTED, CLIENT_DISCONNECTED = "stream_interrupted", "client_disconnected"
_DONE = b"[DONE]"
STALL_SECONDS = 60.0  # a caller who reads nothing for so long, while there is something to read, has gone
_MAX_EVENT = 1 << 20  # an event that does not end within this is relayed unread

_decode_chunk = msgspec.json.Decoder(StreamChunk).decode
_log = logs.logger(__name__)


class Relay:
    """Takes the bytes of a stream as they come and returns the whole events among them."""

    def __init__(self) -> None:
        self._frames = Frames()
        self.tokens: Tokens | None = None  # where what is sent does not name them as chat completions do

    def feed(self, data: bytes) -> bytes:
        """Return every event that is complete by now, and what is too large to be waited for."""
        frames = self._frames
        if block := frames.feed(data):
            block = self._passed(block)
        return block + frames.take() if len(frames.rest) > _MAX_EVENT else block

    def end(self) -> bytes:
        """Return what is left when the stream has ended."""
        rest = self._frames.take()
        return self._passed(rest) if rest else b""

    async def finish(self, interrupted: bytes) -> bytes:
        """Return the last thing to be sent; `interrupted` is the event that says so, nothing for a whole stream."""
        return interrupted or self.end()

    def _passed(self, block: bytes) -> bytes:
        """Return whole events as they go on."""
        return block


class CitingRelay(Relay):
    """A relay that adds the citations of the passages that the answer used."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._sources = sources
        self._trackers: dict[int, Tracker] = {}
        self._last = StreamChunk()

    def _passed(self, block: bytes) -> bytes:
        """See `Relay._passed`."""
        out: list[bytes] = []
        for event in split(block):
            data = data_of(event)
            if data and (before := self._before(data)):
                # The end of a line may stand here that came with the event before.
                rest = event.removeprefix(b"\n")
                out += (event[: len(event) - len(rest)], before, rest)
            else:
                out.append(event)
        return b"".join(out) if len(out) > 1 else block

    def _before(self, data: bytes) -> bytes:
        """Return what has to be sent before an event with this data: mostly nothing."""
        if data.strip() == _DONE:
            # A provider that ended a choice without a finish_reason.
            return self._citations(self._trackers)
        try:
            chunk = _decode_chunk(data)
        except MALFORMED:
            return b""
        self._last = chunk
        finished: list[int] = []
        for choice in chunk.choices or ():
            if choice.delta is not None and choice.delta.content:
                self._tracker(choice.index or 0).feed(choice.delta.text())
            if choice.finish_reason:  # nothing, null and empty text are said of a choice that goes on
                finished.append(choice.index or 0)
        return self._citations(finished) if finished else b""

    def _tracker(self, index: int) -> Tracker:
        tracker = self._trackers.get(index)
        if tracker is None:
            tracker = self._sources.tracker()
            if len(self._trackers) < MAX_CHOICES:
                self._trackers[index] = tracker
        return tracker

    def _citations(self, finished: Iterable[int]) -> bytes:
        """Return a chunk that cites what these choices used since they were last cited: some finish more than once."""
        choices: list[dict[str, Any]] = []
        for index in finished:
            tracker = self._trackers.get(index)
            found = self._sources.annotations(tracker.marks) if tracker else []
            if tracker is not None and found:
                tracker.marks.clear()
                choices.append({"index": index, "delta": {"annotations": found}, "finish_reason": None})
        if not choices:
            return b""
        members = {name: raw for name in ("id", "created", "model") if (raw := getattr(self._last, name))}
        chunk = {**members, "object": "chat.completion.chunk", "choices": choices}
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def relay_of(sources: Sources | None) -> Relay:
    """Return the relay for an answer that may cite these sources."""
    return CitingRelay(sources) if sources else Relay()


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
        response: GatewayResponse,
        *,
        headers: Sequence[tuple[bytes, bytes]],
        relay: Relay,
        assistant: str,
        started: float,
        interrupted: Callable[[], bytes],
    ) -> None:
        self._response = response
        self._headers = headers
        self._relay = relay
        self._assistant = assistant
        self._started = started
        self._interrupted = interrupted
        self._writer: DirectWriter | None = None
        self._sent = (b"", b"")  # the last two blocks: the usage is in one of them

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        self._writer = direct_writer(scope)
        noted = scope.setdefault("state", {})
        noted["interrupt"] = self.interrupt
        try:
            async with cancel_on_disconnect(receive):
                await send({"type": "http.response.start", "status": 200, "headers": list(self._headers)})
                if not await self._body(send):
                    noted["code"] = STREAM_INTERRUPTED
        except ClientDisconnectedError:
            noted["code"] = CLIENT_DISCONNECTED
            _log.debug("caller went away during a stream", assistant=self._assistant)
        finally:
            self._response.close()
            noted["tokens"] = self._relay.tokens or tokens_of(b"".join(self._sent))

    def interrupt(self) -> None:
        """End the stream with an error event, because the process has to end."""
        self._response.fail(GatewayUnreachableError("the tenant API is going down"))

    async def _body(self, send: Send) -> bool:
        """Send the events; return whether they came to their end."""
        waiting, sink, whole = True, None, True
        try:
            async with asyncio.timeout(None) as limit, _Patience(limit) as patience:
                while data := await self._response.next(sink):
                    if waiting:
                        metrics.FIRST_TOKEN.labels(self._assistant).observe(time.perf_counter() - self._started)
                        waiting, sink = False, self._write_directly
                    out = self._relay.feed(data)
                    if out:
                        self._sent = (self._sent[1], out)
                        patience.since = patience.now()
                        await send({"type": "http.response.body", "body": out, "more_body": True})
                        patience.since = None
            tail = await self._relay.finish(b"")
        except TimeoutError as error:
            raise ClientDisconnectedError from error
        except GatewayUnreachableError as error:
            _log.warning("stream interrupted", assistant=self._assistant, reason=str(error))
            tail, whole = await self._relay.finish(b"data: " + self._interrupted() + b"\n\n"), False
        await send({"type": "http.response.body", "body": tail, "more_body": False})
        return whole

    def _write_directly(self, data: bytes) -> bool:
        """Send what `data` completes at once; False, and nothing done, where that has to be waited for."""
        if self._writer is None or (transport := self._writer.transport()) is None:
            return False
        if out := self._relay.feed(data):
            self._sent = (self._sent[1], out)
            transport.write(b"%x\r\n%b\r\n" % (len(out), out))  # a chunk
        return True
