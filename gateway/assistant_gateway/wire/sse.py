"""Server-sent events on their way through: found, counted and passed on, nearly all of them as the bytes they are.

Only whole events are passed on, so that an error event can follow at any point without landing in the middle of
another. An event that is written the usual way and only brings more text is not decoded. Any other is looked into, and
written anew where a client of OpenAI would stumble over it.
"""

from __future__ import annotations

import json
import re
from collections import deque

import msgspec

from assistant_gateway.wire import chunks
from assistant_gateway.wire.completion_text import CompletionText
from assistant_gateway.wire.decoding import LARGEST_DECODED, UNREADABLE, is_filled_array
from assistant_gateway.wire.usage import SEEN, Usage, chunk_of, merge
from assistant_http.events import Event, Frames, data_of, parse, split

DONE = b"data: [DONE]\n\n"
_DONE = b"[DONE]"
# Statements of usage that are kept of one stream, from its start and from its end. Most streams have one; those that
# have one in every event send running totals.
_KEPT = 4
_LARGEST_KEPT = 4096  # bytes of such an event


# The events of one stream differ in their text alone; so many of its forms (text, reasoning) are learnt.
_MOULDS = 4
_MOULD = re.compile(
    rb'(data: \{.*"(?:content|reasoning_content)": ?")[^"\\\n]*("[^"\\\n]*"finish_reason": ?null.*\n\n)'
)
_NEVER = b"\0"
MOST_LINES = 1000  # of an event
EDGE_BYTES = 1024  # of an event that is too large to be looked into: what is seen of its begin and its end
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"(\w{1,100})"')  # in text inside JSON the quotes are escaped
_CHOICES = re.compile(rb'data: ?\{.*?"choices"\s*:\s*\[\s*(\])?', re.DOTALL)
_INDEX = re.compile(rb'"index"\s*:\s*(\d{1,4})\b')


class TooLargeError(Exception):
    """One event is larger than the limit."""


class _Chunk(msgspec.Struct, frozen=True):
    choices: msgspec.Raw = msgspec.Raw(b"null")  # msgspec takes no union with Raw
    usage: msgspec.Raw = msgspec.Raw(b"null")


_chunk = msgspec.json.Decoder(_Chunk)
_json = json.JSONDecoder()  # msgspec reads no document that something follows


def _said(event: bytes) -> Usage | None:
    chunk = chunk_of(data_of(event) or b"")
    return chunk.reported() if chunk is not None else None


def _usage_in(edge: bytes) -> Usage | None:
    """Return the usage in the begin or the end of a large event."""
    if (found := SEEN.search(edge)) is None:
        return None
    text = edge[found.start() :].decode(errors="replace")
    try:
        usage, _ = _json.raw_decode(text, text.index("{"))
    except (ValueError, RecursionError):
        return None
    return _said(b"data: " + msgspec.json.encode({"usage": usage}) + b"\n\n")


def _is_plain(event: bytes) -> bool:
    """Whether an event is one line of data that can only be more of an answer: nothing in it is worth a look."""
    return (
        event.startswith(b"data: {")
        and (b'"finish_reason":null' in event or b'"finish_reason": null' in event)
        and b'"error"' not in event
        and b'"content":[' not in event
        and b'"content": [' not in event
        and event.find(b"\n") == len(event) - 2
        and b"\r" not in event
        and not (b'"usage' in event and SEEN.search(event))
    )


class EventRelay:
    """The state of one stream. `feed` takes bytes as they arrive and returns those that may go on."""

    def __init__(self, *, keep_usage: bool, secret: bytes | None, limit: int, answers: int = 1) -> None:
        self._keep_usage = keep_usage  # whether the client asked for the event that carries usage
        self._secret = secret
        self._limit = limit
        self._answers = answers  # choices that were asked for
        self._frames = Frames()
        self._fast = False  # whether events that are plain need no look
        self._open: set[int] = set()  # choices that go on
        self._ended: set[int] = set()
        self._first_said: list[bytes | Usage | None] = []
        self._last_said: deque[bytes | Usage | None] = deque(maxlen=_KEPT)
        self.begun = False  # whether anything of an answer has come
        self.done = False  # whether the provider has said that this was all
        # What the provider said, as JSON or text, when it ended the stream with an error.
        self.error: bytes | None = None
        # Of the last plain event: what stood before and after its text. The next one is most often the same but for it.
        self._head = self._tail = _NEVER
        self._between = slice(0)
        self._seam = _NEVER
        self._moulds = 0
        self.completion_text = CompletionText()
        self.looked = 0  # events that were looked into: each costs as much as many that are plain

    @property
    def kept(self) -> int:
        """Bytes of an event that has not ended."""
        return len(self._frames.rest)

    def feed_whole(self, data: bytes) -> bytes | None:
        """Return what goes on of whole events that are not the last; None for anything else, and nothing is done."""
        frames = self._frames
        if data.startswith(self._head) and data.endswith(self._tail) and not frames.rest:
            text = data[self._between]
            if b'"' in text:  # several of them in a row
                text = text.replace(self._seam, b"")
            if b'"' not in text and b"\n" not in text and b"\r" not in text:
                self.completion_text.add(data)
                return data if self._secret is None or self._secret not in text else data.replace(self._secret, b"***")
        return self._pass(data) if frames.whole(data) and not data.endswith(DONE) else None

    def feed(self, data: bytes) -> bytes:
        """Return the whole events that `data` completes, as one block, or nothing.

        After the provider's word that this was all, and after an error, nothing goes on any more.

        Raises:
            TooLargeError: an event does not end.
        """
        if (passed := self.feed_whole(data)) is not None:
            return passed
        block = self._frames.feed(data)
        if len(self._frames.rest) > self._limit:
            raise TooLargeError("sent an event that does not end")
        return self._pass(block) if block else b""

    def finish(self) -> bytes:
        """Return what may still go on when the provider has ended the stream: an event without its blank line."""
        rest = parse(self._frames.take())
        if rest.data is None and not (self.done or self.failed):
            self.error = chunks.error_of(rest, None)
        if rest.data is None or rest.data.strip() != _DONE:
            try:
                msgspec.json.decode(rest.data or b"", type=msgspec.Raw)
            except UNREADABLE:
                return b""
        return self._pass(rest._replace(comments=()).written())

    @property
    def finished(self) -> bool:
        """Whether the answer is whole, with or without the provider saying so."""
        return not self._open and len(self._ended) >= self._answers

    @property
    def failed(self) -> bool:
        """Whether the provider ended the stream with an error."""
        return self.error is not None

    @property
    def usage(self) -> Usage | None:
        """What the provider has said so far of what the call used."""
        found = None
        for said in (*self._first_said, *self._last_said):
            found = merge(found, _said(said) if isinstance(said, bytes) else said)
        return found

    def _pass(self, block: bytes) -> bytes:
        if self._fast and len(block) <= LARGEST_DECODED and _is_plain(block):
            self.completion_text.add(block)
            if self._moulds < _MOULDS:
                self._learn(block)
        else:
            passed = [event for found in split(block) if (event := self._look(found))]
            block = b"".join(passed)
        if self._secret is not None and self._secret in block:
            block = block.replace(self._secret, b"***")
        return block

    def _learn(self, event: bytes) -> None:
        """Remember the form of a plain event, so that the next of its kind is known at once."""
        self._moulds += 1
        found = _MOULD.fullmatch(event)
        if found is not None and (self._secret is None or self._secret not in event):
            self._head, self._tail = found[1], found[2]
            self._between = slice(len(self._head), -len(self._tail))
            self._seam = self._tail + self._head

    def _slow_down(self) -> None:
        """Look into every event from here on."""
        self._fast = False
        self._head = self._tail = _NEVER

    def _look(self, found: bytes) -> bytes:
        """Take one event that may be anything; return it as it goes on, if it does."""
        large = len(found) > LARGEST_DECODED
        if self._fast and not large and _is_plain(found):
            self.completion_text.add(found)
            if self._moulds < _MOULDS:
                self._learn(found)
            return found
        self.looked += 1
        if large:
            return self._pass_large(found)
        if found.count(b"\n") + found.count(b"\r") > MOST_LINES:
            return self._fail("it sent an event of too many lines")
        return self._look_into(found, parse(found))

    def _look_into(self, found: bytes, event: Event) -> bytes:
        data = event.data
        if self.done or self.error is not None:  # what is said of usage counts all the same
            if data and SEEN.search(data):
                self._note_usage(b"data: " + data + b"\n\n")
            return b""
        if data is not None and data.strip() == _DONE:
            self.done = True
            self._slow_down()
            return event._replace(data=_DONE, name=b"").written()
        document = chunks.document_of(data) if data else None
        self.error = chunks.error_of(event, document)
        if document is None:
            if self.error is not None:
                self._slow_down()
            if self.error is not None or not (data or b"").strip():
                event = event._replace(data=None)
            return event.written()
        return self._pass_chunk(found, event, document)

    def _pass_chunk(self, found: bytes, event: Event, document: dict[str, msgspec.Raw]) -> bytes:
        said = chunks.said(document)
        if said.broken and self.error is None:
            self.error = msgspec.json.encode({"error": {"message": f"it ended the answer with {said.broken!r}"}})
        if self.error is not None:
            self._slow_down()
            if SEEN.search(event.data or b""):
                self._note_usage(event._replace(comments=()).written())
            return event._replace(data=None).written()
        self._open = (self._open | (said.going - self._ended) | (said.written - said.ended)) - said.ended
        self._ended = (self._ended | said.ended) - self._open
        self.begun = self.begun or bool(said.written or said.ended)
        # With one choice that goes on, more of it is all that a plain event can be.
        self._fast = self.begun and self._answers == 1 and not self._ended
        if self._ended:
            self._slow_down()
        data = event.data or b""
        tidied = chunks.tidied(data).replace(b"\n", b" ")  # a line end in JSON is a space between members
        if found != b"data: " + tidied + b"\n\n":
            found = event._replace(comments=(), data=tidied).written()
        self.completion_text.add(found)
        before = event._replace(data=None).written()
        return before + found if not SEEN.search(found) or self._note_usage(found) else before

    def _pass_large(self, found: bytes) -> bytes:
        """Take an event that is too large to be looked into: it can only be more of an answer, in one line."""
        if self.done or self.error is not None:
            return b""
        head, tail = found[:EDGE_BYTES], found[-EDGE_BYTES:]
        choices = _CHOICES.match(head)
        if choices is None or found.find(b"\n") != len(found) - 2 or b"\r" in found:
            return self._fail("it sent a large event that is no part of an answer")
        usage = _usage_in(head) or _usage_in(tail)
        if usage is not None:
            self._keep(usage)
        if choices[1]:  # there are none
            return found if usage is None or self._keep_usage else b""
        finish = _FINISH.search(tail) or _FINISH.search(head)
        if finish is not None and finish[1].decode().lower() in chunks.BROKEN:
            return self._fail(f"it ended the answer with {finish[1].decode()!r}")
        index = _INDEX.search(head)
        choice = {int(index[1]) if index is not None else 0}
        self.begun = True
        self._open = self._open - choice if finish is not None else self._open | (choice - self._ended)
        if finish is not None:
            self._ended |= choice
            self._slow_down()
        self.completion_text.add(found)
        return found

    def _fail(self, why: str) -> bytes:
        """End the stream as the provider's error."""
        if not (self.done or self.failed):
            self.error = msgspec.json.encode({"error": {"message": why}})
            self._slow_down()
        return b""

    def _keep(self, said: bytes | Usage | None) -> None:
        """Keep the first and the last of what was said of the usage."""
        (self._first_said if len(self._first_said) < _KEPT else self._last_said).append(said)

    def _note_usage(self, event: bytes) -> bool:
        """Note the usage in an event; return whether the event goes on: one that a client did not ask for does not."""
        # Most are never looked into; a large one is at once, so that what is kept of a stream stays small.
        self._keep(event if len(event) <= _LARGEST_KEPT else _said(event))
        if self._keep_usage:
            return True
        try:
            chunk = _chunk.decode(data_of(event) or b"")
        except UNREADABLE:
            return True
        return is_filled_array(chunk.choices) or bytes(chunk.usage) == b"null"
