"""What tenants and their servers write is never decoded without a bound, and never ends in an unknown error."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import msgspec
import pytest

from assistant_gateway.calls import payload
from assistant_gateway.calls.answers import checked
from assistant_gateway.errors import GatewayError
from assistant_gateway.providers.catalog import Provider, target
from assistant_gateway.providers.openai_wire import error_detail
from assistant_gateway.wire.decoding import is_array, is_filled_array
from assistant_gateway.wire.sse import EventRelay
from assistant_gateway.wire.usage import chunk_of

DEEP = b"[" * 3000 + b"]" * 3000
MANY = b"[" + b"{}," * 700_000 + b"{}]"
TARGET = target("endpoint", Provider(url="http://own.test/v1"), None, own=True)


def peak_of(run: Callable[[], object]) -> int:
    """Return the most bytes of Python's memory that `run` took at once."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["messages", "model", "stream", "stream_options", "new_field"])
def test_a_body_that_is_nested_too_deeply_is_a_bad_request(name: str) -> None:
    """The client hears 400, not that the gateway failed."""
    body = b'{"model":"a","messages":[{"role":"user"}],"' + name.encode() + b'":' + DEEP + b"}"
    with pytest.raises(GatewayError) as raised:
        payload.chat(payload.parse(body, "messages"))
    assert raised.value.status == 400


@pytest.mark.parametrize("place", ["usage", "message", "x_groq", "response"])
def test_usage_that_is_nested_too_deeply_is_no_usage(place: str) -> None:
    """A stream whose usage cannot be read is settled like one that has none."""
    stream = EventRelay(keep_usage=False, secret=None, limit=2**20)
    stream.feed(
        b'data: {"choices":[],"usage":{},"' + place.encode() + b'":{"usage":{"prompt_tokens":' + DEEP + b"}}}\n\n"
    )
    assert stream.usage is None
    assert stream.completion_text.size == 0


def test_an_answer_that_is_nested_too_deeply_is_no_answer() -> None:
    """It is a fault of the provider's: 502."""
    for body in (b'{"choices":' + DEEP + b"}", b'{"error":' + DEEP + b"}", b'{"choices":[],"usage":' + DEEP + b"}"):
        with pytest.raises(GatewayError) as raised:
            checked(body, TARGET, embedding=False)
        assert raised.value.status == 502


@pytest.mark.parametrize(
    ("body", "embedding"),
    [
        (b'{"data":' + MANY + b"}", True),
        (b'{"choices":' + MANY + b"}", False),
        (b'{"choices":[{}],"usage":{"a":' + MANY + b"}}", False),
        (b'{"choices":[{}],"message":' + MANY + b"}", False),
        (b'{"error":' + MANY + b"}", False),
        (MANY, False),
    ],
)
def test_no_answer_takes_much_more_memory_than_its_bytes(body: bytes, embedding: bool) -> None:
    """Two million bytes of empty objects would be a hundred million in Python's objects."""

    def look() -> None:
        try:
            checked(body, TARGET, embedding=embedding)
        except GatewayError:
            assert error_detail(TARGET, body) is None

    assert peak_of(look) < 2 * len(body)


def test_usage_is_found_in_a_large_answer() -> None:
    """Vectors of any number beside it are not in the way."""
    body = b'{"data":' + MANY + b',"usage":{"prompt_tokens":7,"total_tokens":7}}'
    found = checked(body, TARGET, embedding=True)
    assert found is not None
    assert found.input == 7


def test_a_stream_with_large_statements_of_usage_keeps_their_figures_only() -> None:
    """Each event may have usage and megabytes beside it."""
    stream = EventRelay(keep_usage=True, secret=None, limit=2**22)
    event = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5},"x":"' + b"x" * 2**20 + b'"}\n\n'

    def feed() -> None:
        for _ in range(20):
            stream.feed(event)

    assert peak_of(feed) < 6 * len(event)
    assert stream.usage is not None
    assert (stream.usage.input, stream.usage.output) == (3, 5)


@pytest.mark.parametrize(
    ("raw", "array", "filled"),
    [(b"[]", True, False), (b" [ ]", True, False), (b"[ 1]", True, True), (b"[[]]", True, True), (b"{}", False, False)],
)
def test_arrays_are_told_without_decoding(raw: bytes, array: bool, filled: bool) -> None:
    """By their first characters."""
    assert is_array(msgspec.Raw(raw)) is array
    assert is_filled_array(msgspec.Raw(raw)) is filled


def test_small_answers_are_read_as_before() -> None:
    """The usage of an ordinary answer is what it says."""
    chunk = chunk_of(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}')
    assert chunk is not None
    assert chunk.reported() is not None
