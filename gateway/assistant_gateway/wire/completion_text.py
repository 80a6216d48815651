"""How much text a model has sent so far, for calls whose provider never says what they used.

A client that hangs up, a provider that breaks off or says nothing: the answer's text is all there is to charge by.
Nearly all calls do report, so blocks are only put aside as they pass, and looked into in batches. Only the length of
the text is kept, so a stream may go on for as long as it likes: it takes no more memory and no more time per event.
"""

from __future__ import annotations

from typing import Any

import msgspec

from assistant_gateway.wire.decoding import LARGEST_DECODED, UNREADABLE
from assistant_gateway.wire.usage import Source, Usage

BATCH_BYTES = 32 * 1024  # kept per stream before they are looked into

# Of a message: what is no text of the model, or a second copy of it (OpenRouter and LiteLLM send reasoning twice).
_NOT_TEXT = frozenset({"role", "type", "index", "id", "reasoning_details", "thinking_blocks", "annotations"})


class _Choice(msgspec.Struct, frozen=True):
    delta: dict[str, Any] | None = None
    message: dict[str, Any] | None = None
    text: str | None = None


class _Event(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None


class _PlainDelta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class _PlainChoice(msgspec.Struct, frozen=True):
    delta: _PlainDelta


class _PlainEvent(msgspec.Struct, frozen=True):
    choices: list[_PlainChoice]


_event = msgspec.json.Decoder(_Event)
_plain = msgspec.json.Decoder(list[_PlainEvent])


class CompletionText:
    """Grows with the blocks of events of one stream, or takes one whole answer."""

    __slots__ = ("_blocks", "_counted", "_kept")

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._kept = 0
        self._counted = 0

    def add(self, block: bytes) -> None:
        """Put whole events aside."""
        self._blocks.append(block)
        self._kept += len(block)
        if self._kept > BATCH_BYTES:
            self._look()

    def add_answer(self, body: bytes) -> None:
        """Take an answer that was not streamed."""
        self._counted += _bytes_of(body)

    @property
    def size(self) -> int:
        """Bytes of what the model wrote: content, reasoning, refusals, names and arguments of tool calls.

        Of an event or answer that is too large to be looked into, its own bytes: the text has no more.
        """
        self._look()
        return self._counted

    def _look(self) -> None:
        joined = b"".join(self._blocks)
        self._blocks, self._kept = [], 0
        found = _plain_bytes(joined) if len(joined) <= LARGEST_DECODED else None
        if found is None:
            found = sum(_bytes_of(line[5:]) for line in joined.splitlines() if line.startswith(b"data:"))
        self._counted += found


def _bytes_of(data: bytes) -> int:
    """Return the bytes of text in one event or answer, 0 where it has none or is none."""
    if len(data) > LARGEST_DECODED:
        return len(data)
    try:
        event = _event.decode(data)
    except UNREADABLE:
        return 0
    pieces: list[str] = []
    waiting: list[object] = []  # in place of recursion: what was decoded may be nested as deeply as calls may be
    for choice in event.choices or ():
        waiting += (choice.delta, choice.message, choice.text)
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            pieces.append(value)
        elif isinstance(value, dict):
            waiting += (inner for name, inner in value.items() if name not in _NOT_TEXT)
        elif isinstance(value, list):
            waiting += value
    return _length(pieces)


def _plain_bytes(joined: bytes) -> int | None:
    """Return the bytes of text of events that are written in the usual way, None for others: faster than the walk."""
    joined = joined.rstrip().removesuffix(b"data: [DONE]").rstrip()
    array = b"[" + joined.removeprefix(b"data:").replace(b"\n\ndata:", b",") + b"]"
    try:
        events = _plain.decode(array)
    except UNREADABLE:
        return None
    deltas = [choice.delta for event in events for choice in event.choices]
    pieces = [delta.content for delta in deltas if delta.content]
    if b'"reasoning' in joined or b'"refusal' in joined:
        pieces += [delta.reasoning_content or delta.reasoning or "" for delta in deltas]
        pieces += [delta.refusal for delta in deltas if delta.refusal]
    return _length(pieces)


def _length(pieces: list[str]) -> int:
    return len("".join(pieces).encode(errors="replace"))


def estimate(prompt: int, written: int, *, hidden_output: int = 0) -> Usage:
    """Return an upper bound of what a call used, from what is known of it.

    Args:
        prompt: tokens of the prompt, counted or bounded (`metering.bounds`).
        written: bytes of the text that arrived. A token is at least one of them.
        hidden_output: the allowed output of a model that reasons out of sight; what arrived then says nothing.
    """
    return Usage(input=prompt, output=max(written, hidden_output), source=Source.ESTIMATED)
