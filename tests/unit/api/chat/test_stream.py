"""A stream is relayed event by event, with the citations before a choice's last chunk."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import pytest
from api_world import FakeAnswer, chunk, passage, stream_answer
from hypothesis import given
from hypothesis import strategies as st
from litestar.types import Message

from assistant_api.chat.citations import Sources
from assistant_api.chat.stream import CitingRelay, EventStream, Relay
from assistant_api.gateway import GatewayUnreachableError
from assistant_http.events import parse, split

DONE = b"data: [DONE]\n\n"
SOURCES = Sources([passage(1), passage(2)], "http://api.test")


def relayed(relay: Relay, *parts: bytes) -> bytes:
    return b"".join([relay.feed(part) for part in parts]) + relay.end()


def events(data: bytes) -> list[Any]:
    return [
        msgspec.json.decode(line[6:]) for line in data.replace(b"\r", b"").split(b"\n") if line.startswith(b"data: {")
    ]


def indexes(event: dict[str, Any]) -> dict[int, list[int]]:
    """Which passages an event cites, by choice."""
    return {
        choice["index"]: [note["file_citation"]["index"] for note in choice["delta"].get("annotations", [])]
        for choice in event["choices"]
    }


def test_the_citations_come_just_before_the_last_chunk() -> None:
    """In a chunk of their own that looks like the others."""
    stream = [chunk(""), chunk("Take 42 Nm ["), chunk("2"), chunk("]."), chunk(finish="stop"), DONE]
    sent = events(relayed(CitingRelay(SOURCES), *stream))
    assert len(sent) == 6
    assert {key: value for key, value in sent[4].items() if key != "choices"} == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
    }
    assert sent[4]["choices"][0]["finish_reason"] is None
    assert indexes(sent[4]) == {0: [2]}
    assert sent[5]["choices"][0]["finish_reason"] == "stop"


def test_a_mark_is_where_the_words_before_it_end() -> None:
    """Its place counts from the beginning of the choice, whatever the pieces; each mark is told."""
    stream = [
        chunk("Rad \U0001f6b2"),
        chunk(" ["),
        chunk("2"),
        chunk("], [1"),
        chunk("] and [2]."),
        chunk(finish="stop"),
    ]
    text = "Rad \U0001f6b2 [2], [1] and [2]."
    (notes,) = [
        choice["delta"]["annotations"]
        for event in events(relayed(CitingRelay(SOURCES), *stream))
        for choice in event["choices"]
        if "annotations" in choice["delta"]
    ]
    places = [(note["url_citation"]["start_index"], note["url_citation"]["end_index"]) for note in notes]
    assert [text[start:end] for start, end in places] == ["[2]", "[1]", "[2]"]


def test_without_markers_the_bytes_are_the_same() -> None:
    """Nothing is added, nothing is encoded anew."""
    stream = [
        b": comment\n\n",
        chunk("Hello"),
        b'data: {"odd": 1}\n\n',
        b"event: x\ndata: y\n\n",
        chunk(finish="stop"),
        DONE,
    ]
    assert relayed(CitingRelay(SOURCES), *stream) == b"".join(stream)
    assert relayed(Relay(), *stream) == b"".join(stream)


WHOLE = b"".join([chunk("See ["), chunk("1"), chunk("]."), chunk(finish="stop"), DONE])


@pytest.mark.parametrize(
    "stream",
    [
        WHOLE.replace(b"data: ", b": keepalive\nid: 7\nevent: message\ndata: "),
        WHOLE.replace(b"\n\n", b"\n\r\n"),
        WHOLE.replace(b"\n", b"\r"),
        WHOLE.replace(b"data: ", b"retry: 10\ndata:"),
        WHOLE.replace(b'"finish_reason":null', b'"finish_reason":""'),
        WHOLE.replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
        WHOLE.replace(b'"content":"', b'"content":[{"type":"text","text":"').replace(b'"},"finish', b'"}]},"finish'),
        WHOLE.replace(b'"created":1', b'"created":1.5').replace(b'"index":0', b'"index":null'),
        b"\xef\xbb\xbf" + WHOLE,
    ],
)
@given(size=st.integers(1, 200))
def test_citations_do_not_depend_on_the_providers_dialect(stream: bytes, size: int) -> None:
    """Fields in any order, any line ends, odd words for a choice that goes on, parts in place of text."""
    assert stream != WHOLE
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    sent = relayed(CitingRelay(SOURCES), *parts).decode()
    notes = [note for found in read(sent) for note in found["choices"][0]["delta"].get("annotations", [])]
    assert [note["file_citation"]["index"] for note in notes] == [1]


def read(sent: str) -> list[Any]:
    """Return what a reader by the standard finds in a stream."""
    return [
        msgspec.json.decode(event.data)
        for event in map(parse, split(sent.encode()))
        if event.data is not None and event.data != b"[DONE]"
    ]


def test_each_choice_has_its_own_citations() -> None:
    """With n > 1 the choices come mixed."""
    stream = [
        chunk("[1]", index=0),
        chunk("[2]", index=1),
        chunk(finish="stop", index=1),
        chunk(finish="stop", index=0),
        DONE,
    ]
    cited = [indexes(event) for event in events(relayed(CitingRelay(SOURCES), *stream))]
    assert cited == [{0: []}, {1: []}, {1: [2]}, {1: []}, {0: [1]}, {0: []}]


def test_a_provider_without_finish_reason_still_gets_citations() -> None:
    """They come before [DONE] then."""
    sent = relayed(CitingRelay(SOURCES), chunk("See [1]."), DONE)
    assert indexes(events(sent)[-1]) == {0: [1]}
    assert sent.endswith(DONE)


def test_the_last_words_may_come_with_the_finish_reason() -> None:
    """Some providers send both in one chunk."""
    sent = events(relayed(CitingRelay(SOURCES), chunk("See [1]", finish="stop"), DONE))
    assert [indexes(event) for event in sent] == [{0: [1]}, {0: []}]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@given(cuts=st.lists(st.integers(0, 900), max_size=12))
def test_it_does_not_matter_how_the_network_cuts_the_stream(newline: bytes, cuts: list[int]) -> None:
    """With either line ending, the caller gets the same bytes however they arrive."""
    stream = b"".join([chunk("Tak"), chunk("e [1"), chunk("]"), chunk(finish="stop"), DONE]).replace(b"\n", newline)
    whole = relayed(CitingRelay(SOURCES), stream)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    parts = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert relayed(CitingRelay(SOURCES), *parts) == whole
    assert relayed(Relay(), *parts) == stream
    assert len(events(whole)) == 5


def test_only_whole_events_are_sent_on() -> None:
    """So that an error event can follow at any moment."""
    for relay in (Relay(), CitingRelay(SOURCES)):
        event = chunk("Hello")
        assert relay.feed(event + event[:10]) == event
        assert relay.feed(event[10:-1]) == b""
        assert relay.feed(event[-1:]) == event


def test_an_event_without_end_is_not_collected_for_ever() -> None:
    """Memory is bounded whatever a provider sends."""
    for relay in (Relay(), CitingRelay(SOURCES)):
        sent = b"".join(relay.feed(b"x" * 100_000) for _ in range(20))
        assert len(sent) + len(relay.end()) == 2_000_000
        assert len(sent) > 900_000


def test_an_event_nested_without_end_is_relayed_unread() -> None:
    """Whatever its depth; the citations of the other events come all the same."""
    nested = b'data: {"choices": [{"delta": {"x": %s}}]}\n\n' % (b"[" * 20_000 + b"]" * 20_000)
    sent = relayed(CitingRelay(SOURCES), chunk("See [1]."), nested, chunk(finish="stop"), DONE)
    assert nested in sent
    assert b'"annotations"' in sent


def test_an_endless_number_of_choices_is_not_remembered() -> None:
    """The format allows 128."""
    relay = CitingRelay(SOURCES)
    for index in range(1000):
        relay.feed(chunk("[1]", index=index))
    assert len(relay._trackers) <= 128


class Caller:
    """An ASGI caller that stays, and remembers what it was sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])


class StuckCaller(Caller):
    """One who stays connected and reads nothing."""

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()


async def sent_to_caller(answer: FakeAnswer, caller: Caller | None = None) -> Caller:
    caller = caller or Caller()
    stream = EventStream(
        answer, headers=[], relay=Relay(), assistant="support", started=0, interrupted=lambda: b'{"error":{"code":"x"}}'
    )
    await stream({}, caller.receive, caller.send)  # type: ignore[typeddict-item]
    return caller


async def test_an_answer_that_breaks_off_ends_with_an_error_event() -> None:
    """Never in silence; half an event is dropped, so that the error can be read."""
    answer = stream_answer(chunk("Hello"), chunk("world")[:20], GatewayUnreachableError("cut"))
    caller = await sent_to_caller(answer)
    assert caller.body == chunk("Hello") + b'data: {"error":{"code":"x"}}\n\n'
    assert caller.messages[-1]["more_body"] is False
    assert answer.closed


async def test_each_event_is_sent_when_it_comes() -> None:
    """One message per arrival, the end by itself."""
    caller = await sent_to_caller(stream_answer(chunk("a"), chunk("b"), DONE))
    assert [message["body"] for message in caller.messages[1:]] == [chunk("a"), chunk("b"), DONE, b""]


async def test_a_caller_who_stops_reading_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call to the model ends; a model that thinks for as long is waited for."""
    monkeypatch.setattr("assistant_api.chat.stream.STALL_SECONDS", 0.05)
    answer = stream_answer(chunk("a"), DONE)
    async with asyncio.timeout(2):
        await sent_to_caller(answer, StuckCaller())
    assert answer.closed

    class Thinking(FakeAnswer):
        async def next(self, _straight: object = None) -> bytes:
            await asyncio.sleep(0.1)
            return await super().next()

    assert (await sent_to_caller(Thinking(200, {}, [chunk("a"), DONE]))).body == chunk("a") + DONE
