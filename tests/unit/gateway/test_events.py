"""Streams of events: whole, in order, as the bytes they were, however they were cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.events import EventRelay, TooLargeError

NULL_USAGE = {"choices": [{"delta": {"content": 'say "usage": {'}}], "usage": None}
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}


def event(document: object, end: bytes = b"\n\n") -> bytes:
    """Return one event."""
    return b"data: " + json.dumps(document).encode() + end


def relay(*, keep_usage: bool = False, secret: bytes | None = None, limit: int = 10_000) -> EventRelay:
    """Return a fresh stream."""
    return EventRelay(keep_usage=keep_usage, secret=secret, limit=limit)


def content(text: str, finish: str | None = None) -> dict:
    """Return a chunk with text."""
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


STREAM = (
    b": comment\n\n"
    + event(content("Hé"))
    + event(content("\n\n"), b"\r\n\r\n")
    + event(NULL_USAGE)
    + b"event: x\ndata: {}\n\n"
    + event(content("", "stop"))
    + b"data: [DONE]\n\n"
)


@given(st.lists(st.integers(1, len(STREAM)), max_size=30))
def test_however_bytes_are_cut_the_same_bytes_go_on_in_whole_events(cuts: list[int]) -> None:
    """The bytes that leave are the bytes that came, and every block that leaves ends where an event ends."""
    stream, found, at = relay(), [], 0
    for cut in [*sorted(cuts), len(STREAM)]:
        block = stream.feed(STREAM[at:cut])
        at = max(at, cut)
        if block:
            assert block.endswith((b"\n\n", b"\r\n\r\n"))
            found.append(block)
    assert b"".join(found) + stream.finish() == STREAM
    assert stream.done
    assert stream.usage is None


@pytest.mark.parametrize("keep", [True, False])
def test_usage_event_is_counted_and_kept_only_for_those_who_asked(keep: bool) -> None:
    """The event that carries nothing but usage is left out of the middle of a block, its neighbours stay."""
    before, after = event(content("a", "stop")), b"data: [DONE]\n\n"
    carrier = event({"choices": [], "usage": USAGE})
    stream = relay(keep_usage=keep)
    assert stream.feed(before + carrier + after) == before + (carrier if keep else b"") + after
    assert stream.usage is not None
    assert (stream.usage.input, stream.usage.output) == (3, 5)


def test_usage_on_an_event_with_text_stays() -> None:
    """An event with a choice goes on even if it carries usage that nobody asked for; the last word counts."""
    stream = relay()
    for tokens in (1, 2):
        block = event({**content("a"), "usage": {"prompt_tokens": 1, "completion_tokens": tokens}})
        assert stream.feed(block) == block
    assert stream.usage is not None
    assert stream.usage.output == 2


@pytest.mark.parametrize("usage", [{"prompt_tokens": -4}, {"prompt_tokens": "many"}, {"prompt_tokens": None}, {}])
def test_senseless_usage_does_not_break_the_stream(usage: dict) -> None:
    """A provider that lies about usage is heard out, and counted as nothing."""
    stream = relay(keep_usage=True)
    block = event({"choices": [], "usage": usage})
    assert stream.feed(block) == block
    assert stream.usage is None or stream.usage.input == 0


def test_key_in_an_event_is_blanked() -> None:
    """A key that a provider repeats does not go on, even when it arrives in two pieces."""
    stream = relay(secret=b"sk-secret-key")
    whole = event(content("your key is sk-secret-key"))
    at = whole.index(b"secret")
    assert stream.feed(whole[:at]) == b""
    assert stream.feed(whole[at:]) == whole.replace(b"sk-secret-key", b"***")


def test_event_without_end_is_too_large() -> None:
    """An event is held back only up to the limit."""
    stream = relay(limit=100)
    assert stream.feed(b"data: " + b"x" * 90) == b""
    with pytest.raises(TooLargeError):
        stream.feed(b"x" * 20)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b"data: [DONE]", b"data: [DONE]\n\n"),
        (b"data: [DONE]\n", b"data: [DONE]\n\n"),
        (b'data: {"a": 1}\r\n', b'data: {"a": 1}\n\n'),
        (b'data: {"a": ', b""),
        (b": ping", b""),
        (b"", b""),
    ],
)
def test_last_event_without_its_blank_line(rest: bytes, expected: bytes) -> None:
    """At the end a whole event goes on even without its blank line; half an event does not."""
    stream = relay()
    assert stream.feed(rest) == b""
    assert stream.finish() == expected


def test_ends_are_told_apart() -> None:
    """Done, finished without saying so, failed, and simply over are four different things."""
    states = {}
    for name, block in {
        "done": event(content("a", "stop")) + b"data: [DONE]\n\n",
        "finished": event(content("a", "length")),
        "failed": event({"error": {"message": "x"}}),
        "over": event(content('"finish_reason": "stop" and {"error": {')),
    }.items():
        stream = relay()
        stream.feed(block)
        states[name] = (stream.done, stream.finished, stream.failed)
    assert states == {
        "done": (True, True, False),
        "finished": (False, True, False),
        "failed": (False, False, True),
        "over": (False, False, False),
    }
