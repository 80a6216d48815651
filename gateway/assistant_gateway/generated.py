"""The text a model has sent so far, for calls whose provider never says what they used.

A client that hangs up, a provider that breaks off or says nothing: the answer's text is all there is to charge by.
Nearly all calls do report, so blocks are only put aside as they pass, and looked into in batches.
"""

from __future__ import annotations

from typing import Any

import msgspec

from assistant_gateway.usage import Source, Usage

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


class Generated:
    """Grows with the blocks of events of one stream, or takes one whole answer."""

    __slots__ = ("_blocks", "_kept", "_pieces")

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._kept = 0
        self._pieces: list[str] = []

    def add(self, block: bytes) -> None:
        """Put whole events aside."""
        self._blocks.append(block)
        self._kept += len(block)
        if self._kept > BATCH_BYTES:
            self._look()

    def add_answer(self, body: bytes) -> None:
        """Take an answer that was not streamed."""
        self._take(body)

    @property
    def text(self) -> str:
        """Everything the model wrote: content, reasoning, refusals, names and arguments of tool calls."""
        self._look()
        whole = "".join(self._pieces)
        self._pieces = [whole]
        return whole

    def _look(self) -> None:
        joined = b"".join(self._blocks)
        self._blocks, self._kept = [], 0
        pieces = _plain_text(joined)
        if pieces is None:
            for line in joined.splitlines():
                if line.startswith(b"data:"):
                    self._take(line[5:])
        else:
            self._pieces += pieces
        self._pieces = ["".join(self._pieces)]

    def _take(self, data: bytes) -> None:
        try:
            event = _event.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        for choice in event.choices or ():
            self._add_text(choice.delta)
            self._add_text(choice.message)
            self._add_text(choice.text)

    def _add_text(self, value: object) -> None:
        if isinstance(value, str):
            self._pieces.append(value)
        elif isinstance(value, dict):
            for name, inner in value.items():
                if name not in _NOT_TEXT:
                    self._add_text(inner)
        elif isinstance(value, list):
            for inner in value:
                self._add_text(inner)


def _plain_text(joined: bytes) -> list[str] | None:
    """Return the text of events that are written in the usual way, None for others: ten times faster than the walk."""
    joined = joined.rstrip().removesuffix(b"data: [DONE]").rstrip()
    array = b"[" + joined.removeprefix(b"data:").replace(b"\n\ndata:", b",") + b"]"
    try:
        events = _plain.decode(array)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    deltas = [choice.delta for event in events for choice in event.choices]
    pieces = [delta.content for delta in deltas if delta.content]
    if b'"reasoning' in joined or b'"refusal' in joined:
        pieces += [delta.reasoning_content or delta.reasoning or "" for delta in deltas]
        pieces += [delta.refusal for delta in deltas if delta.refusal]
    return pieces


def estimate(prompt: int, text: str, *, hidden_output: int = 0) -> Usage:
    """Return an upper bound of what a call used, from what is known of it.

    Args:
        prompt: tokens of the prompt, counted or bounded (`counting`).
        text: what arrived. A token is at least one byte of it.
        hidden_output: the allowed output of a model that reasons out of sight; what arrived then says nothing.
    """
    return Usage(input=prompt, output=max(len(text.encode(errors="replace")), hidden_output), source=Source.ESTIMATED)
