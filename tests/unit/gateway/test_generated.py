"""The text of answers, and the events that carry usage, on their way through a stream."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway import generated
from assistant_gateway.events import EventRelay
from assistant_gateway.generated import Generated, estimate


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
    before, generated.BATCH_BYTES = generated.BATCH_BYTES, batch
    try:
        taken = Generated()
        for piece in pieces:
            taken.add(event({"content": piece} if plain else {"role": "assistant", "content": piece, "new": None}))
        assert taken.text == "".join(pieces)
        assert taken.text == "".join(pieces), "asking twice does not count twice"
    finally:
        generated.BATCH_BYTES = before


def test_memory_per_stream_is_bounded() -> None:
    """A long stream keeps its text, not its events."""
    taken = Generated()
    for _ in range(5000):
        taken.add(event({"content": "x"}))
    assert sum(len(block) for block in taken._blocks) <= generated.BATCH_BYTES
    assert len(taken.text) == 5000


def test_hidden_output_is_charged_as_allowed() -> None:
    """What arrived of a model that reasons out of sight says nothing about what it used."""
    assert estimate(10, "Hi").output == 2
    assert estimate(10, "Hi", hidden_output=4096).output == 4096
