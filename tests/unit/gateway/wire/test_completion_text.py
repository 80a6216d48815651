"""The text of answers, and the events that carry usage, on their way through a stream."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.wire import completion_text
from assistant_gateway.wire.completion_text import CompletionText, estimate
from assistant_gateway.wire.decoding import LARGEST_DECODED
from assistant_gateway.wire.sse import EventRelay


def event(delta: dict[str, Any] | None = None, **more: Any) -> bytes:
    body = {"id": "c", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": None}], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


FINAL = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'


def test_the_last_event_reaches_only_a_client_that_asked() -> None:
    """Its usage is taken either way; events with choices or without usage always go on."""
    for keep in (True, False):
        relay = EventRelay(keep_usage=keep, secret=None, limit=2**20)
        passed = relay.feed(event({"content": "Hi"}, usage=None) + FINAL + b"data: [DONE]\n\n")
        assert (FINAL in passed) is keep
        assert b'"content": "Hi"' in passed
        assert relay.usage is not None
        assert (relay.usage.input, relay.usage.output) == (7, 3)


def test_text_about_usage_is_no_usage() -> None:
    """What a model writes cannot change its bill."""
    relay = EventRelay(keep_usage=False, secret=None, limit=2**20)
    block = event({"content": '{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}'})
    nested = event({"content": "", "tool": {"usage": {"prompt_tokens": 1}}})
    assert relay.feed(block + nested) == block + nested
    assert relay.usage is None


@given(st.lists(st.text(max_size=30), max_size=80), st.booleans(), st.integers(1, 2000))
def test_all_text_is_kept_whatever_the_batches(pieces: list[str], plain: bool, batch: int) -> None:
    """Written the usual way or with fields nobody knows: the same text, in the same order."""
    before, completion_text.BATCH_BYTES = completion_text.BATCH_BYTES, batch
    try:
        taken = CompletionText()
        for piece in pieces:
            taken.add(event({"content": piece} if plain else {"role": "assistant", "content": piece, "new": None}))
        assert taken.size == len("".join(pieces).encode(errors="replace"))
        assert taken.size == len("".join(pieces).encode(errors="replace")), "asking twice does not count twice"
    finally:
        completion_text.BATCH_BYTES = before


def test_memory_per_stream_is_bounded() -> None:
    """Of a long stream neither events nor text are kept, however its events are written."""
    taken = CompletionText()
    for number in range(5000):
        taken.add(event({"content": "x" * 30} if number % 2 else {"content": "x" * 30, "new": None}))
    assert taken.size == 150_000
    kept = [value for slot in CompletionText.__slots__ if isinstance(value := getattr(taken, slot), list)]
    assert sum(len(piece) for value in kept for piece in value) <= completion_text.BATCH_BYTES


def test_an_event_too_large_to_look_into_counts_with_its_bytes() -> None:
    """What a server sends in one event is not decoded into objects; its own length is the bound of its text."""
    large = event({"content": "x", "other": [{}] * LARGEST_DECODED})
    taken = CompletionText()
    assert peak_of(lambda: taken.add(large)) < 3 * len(large)
    assert len(large) - 100 <= taken.size <= len(large)


def test_what_is_nested_too_deeply_has_no_text_and_no_error() -> None:
    """Neither decoding nor walking through an answer ends in an error."""
    for depth in (300, 900, 2000):
        taken = CompletionText()
        taken.add_answer(b'{"choices":[{"message":{"a":' + b"[" * depth + b"]" * depth + b"}}]}")
        assert taken.size == 0


def peak_of(run: Callable[[], object]) -> int:
    """Return the most bytes of Python's memory that `run` took at once."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_hidden_output_is_charged_as_allowed() -> None:
    """What arrived of a model that reasons out of sight says nothing about what it used."""
    assert estimate(10, 2).output == 2
    assert estimate(10, 2, hidden_output=4096).output == 4096
