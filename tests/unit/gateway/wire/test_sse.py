"""Streams of events: whole, in order, as the bytes they were, however they were cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.wire import chunks
from assistant_gateway.wire.sse import EventRelay, TooLargeError

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
    """What leaves is what came, its lines ended by LF, and every block that leaves ends where an event ends."""
    stream, found, at = relay(), [], 0
    for cut in [*sorted(cuts), len(STREAM)]:
        block = stream.feed(STREAM[at:cut])
        at = max(at, cut)
        if block:
            assert block.endswith(b"\n\n")
            found.append(block)
    assert b"".join(found) + stream.finish() == STREAM.replace(b"\r\n", b"\n")
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


# --- what providers send that is not written the usual way ------------------------------------------------------


def drained(stream: EventRelay, data: bytes, pieces: int = 0) -> bytes:
    """Return what goes on of a whole stream, sent at once or in pieces of so many bytes."""
    size = pieces or len(data) or 1
    return b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size)) + stream.finish()


ODD = [
    b": keepalive\nid: 7\nevent: message\n" + event(content("a")),
    event(content("b")).replace(b"\n\n", b"\n\r\n"),
    event(content("c")).replace(b"\n", b"\r"),
    b"retry: 5\r\n" + event(content("d"), b"\r\n\r\n"),
    event(content("e", "")),
    event({"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "f"}]}, "finish_reason": None}]}),
    b'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "g"}}]}\n\n',
    event({"choices": [{"delta": {"content": 'say "finish_reason": "" and data: [DONE]'}, "finish_reason": None}]}),
    b"data:\n\n",
    b"event: ping\n\n",
    event({"choices": [], "usage": USAGE}),
    event(content("", "stop")),
    b"data:[DONE] \r\n\r\n",
]


@given(st.lists(st.sampled_from(ODD[:-1]), max_size=12), st.booleans(), st.integers(1, 40))
def test_odd_streams_say_the_same_in_any_pieces(parts: list[bytes], done: bool, pieces: int) -> None:
    """Text, usage, counted text and what it all ends with do not depend on how the bytes arrived."""
    data = b"".join(parts) + (ODD[-1] if done else b"")
    whole, cut = relay(), relay()
    assert drained(whole, data) == drained(cut, data, pieces)
    for name in ("usage", "done", "finished", "failed", "begun"):
        assert getattr(whole, name) == getattr(cut, name)
    assert whole.completion_text.size == cut.completion_text.size


def test_odd_events_go_on_as_every_client_reads_them() -> None:
    """One line of data, LF, text as text, null for a choice that goes on; the word for the end is an event alone."""
    stream = relay()
    sent = drained(stream, b"".join(ODD)).decode()
    assert "\r" not in sent
    found = [line.removeprefix("data: ") for line in sent.split("\n") if line.startswith("data: ")]
    assert found.pop() == "[DONE]"
    chunks = [json.loads(data) for data in found]
    texts = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    assert texts == [*"abcdefg", 'say "finish_reason": "" and data: [DONE]', ""]
    assert [chunk["choices"][0].get("finish_reason") for chunk in chunks] == [*[None] * 8, "stop"]
    assert stream.completion_text.size == len("abcdefg") + len(texts[7])
    assert (stream.done, stream.failed, stream.usage is not None) == (True, False, True)


@pytest.mark.parametrize(
    ("events", "finished"),
    [
        ([content("a", "stop"), {"choices": [], "usage": USAGE}, {"choices": []}], True),
        ([content("a"), {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}], True),
        ([content("a", "COMPLETE")], True),
        ([content("a", "stop"), {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}], True),
        ([content("a", ""), content("b", "")], False),
        ([content("a"), {"choices": [], "usage": USAGE}], False),
        ([content("a", "stop"), content("b")], False),
        ([{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}], False),
    ],
)
def test_a_stream_without_its_last_word_is_whole_when_its_choices_have_ended(events: list, finished: bool) -> None:
    """Whatever came after the end of the choice; empty text in its place is no end, and text after it is a new one."""
    stream = relay()
    drained(stream, b"".join(event(found) for found in events) + b": bye\n\n")
    assert (stream.finished, stream.done, stream.failed) == (finished, False, False)


def test_with_two_answers_one_of_them_is_half() -> None:
    """Asked for two, a stream is whole when both have ended."""
    stream = EventRelay(keep_usage=False, secret=None, limit=10_000, answers=2)
    for index, expected in ((1, False), (0, True)):
        stream.feed(event({"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": "stop"}]}))
        assert stream.finished is expected


@pytest.mark.parametrize("before", [[], [content("a")]])
@pytest.mark.parametrize(
    "failure",
    [
        event({"error": {"message": "x"}}),
        event({"id": "c", "error": "x", "choices": []}),
        event({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}], "error": {"code": 502}}),
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": {"message": "x"}}]}),
        event(content("", "insufficient_system_resource")),
        event(content("", "abort")),
        event([{"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}}]),
        event({"object": "error", "message": "x", "code": 500}),
        event({"type": "error", "error": {"type": "overloaded_error"}}),
        event({"detail": "x"}),
        event({"message": "x", "status_code": 503}),
        b'event: error\ndata: {"message": "x"}\n\n',
        b"event: error\ndata: upstream timed out\n\n",
        b'error: {"code": 500, "message": "x"}\n\n',
        b'id: 3\rerror: {"code": 500, "message": "x"}\r\r',
        b'{"error": "x"}\n\n',
        b'{"error":{"message":"x"}}\n\n',
    ],
)
def test_an_error_is_an_error_in_every_form(failure: bytes, before: list) -> None:
    """Nothing of it goes on, nor of what comes after it, so that half an answer never has the word for a whole one."""
    stream = relay()
    sent = drained(stream, b"".join(event(found) for found in before) + failure + event(content("z")) + ODD[-1])
    assert sent == b"".join(event(found) for found in before)
    assert (stream.failed, stream.done, stream.begun) == (True, False, bool(before))


def test_words_about_errors_are_no_error() -> None:
    """What a model writes, or a provider says of none, ends nothing."""
    stream = relay()
    said = [content('"error"'), {**content('{"error": {"message": 1}}'), "error": None}, content("error", "stop")]
    sent = b"".join(event(found) for found in said)
    assert drained(stream, sent) == sent
    assert (stream.failed, stream.finished) == (False, True)


def test_thoughts_in_parts_are_kept_apart_from_the_text() -> None:
    """Mistral sends both in one list."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Yes"}]
    sent = relay().feed(event(content("a")) + event({"choices": [{"index": 0, "delta": {"content": parts}}]}))
    (delta,) = [choice["delta"] for choice in json.loads(sent.split(b"\n\n")[1][6:])["choices"]]
    assert delta == {"content": "Yes", "reasoning_content": "Hm."}


def test_a_choice_without_a_delta_gets_an_empty_one() -> None:
    """Azure's filter sends its findings in such a chunk; clients read the delta of each choice unasked."""
    found = {"choices": [{"content_filter_results": {}, "finish_reason": None, "index": 0}]}
    sent = relay().feed(event(content("a", "stop")) + event(found)).split(b"\n\n")[1]
    assert json.loads(sent[6:]) == {"choices": [{**found["choices"][0], "delta": {}}]}


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("rest", [b'{"error": "x"}', b'error: {"message": "x"}', b'data: {"error": "x"}'])
def test_an_error_at_the_end_needs_no_blank_line(rest: bytes, end: bytes) -> None:
    """A provider that gives up writes what it can, and goes."""
    stream = relay()
    assert drained(stream, event(content("a")) + rest + end) == event(content("a"))
    assert (stream.failed, stream.finished) == (True, False)
    assert b"x" in (stream.error or b"")


@given(st.lists(st.sampled_from(["a", " b", "\n", '"', "data: [DONE]", "é", "\\"]), max_size=30), st.integers(1, 5))
def test_events_that_differ_in_their_text_alone_go_on_as_they_are(texts: list[str], together: int) -> None:
    """One or several in a block: the same bytes, all of their text counted, and an end or an error among them seen."""
    sent = [event(content("first")), *(event(content(text)) for text in texts)]
    blocks = [b"".join(sent[at : at + together]) for at in range(0, len(sent), together)]
    stream = relay()
    assert [stream.feed(block) for block in blocks] == blocks
    assert stream.completion_text.size == len("".join(["first", *texts]).encode())
    assert (stream.done, stream.finished, stream.failed) == (False, False, False)
    last = event(content("z")) + event({"error": {"message": "x"}}) + event(content("z"))
    assert stream.feed(last) == event(content("z"))
    assert stream.failed


LARGE = "x" * 200_000


def test_a_large_event_goes_on_as_it_is() -> None:
    """It is more of the answer: nothing of it is decoded, and its end is known by its last bytes."""
    stream = relay(limit=2**22)
    for one in (content(LARGE), content('"' * 200_000)):
        assert stream.feed(event(one)) == event(one)
    assert (stream.begun, stream.finished, stream.failed) == (True, False, False)
    last = {
        "choices": [{"index": 0, "delta": {"content": 'finish_reason": "length"' * 10_000}, "finish_reason": "stop"}]
    }
    assert stream.feed(event(last)) == event(last)
    assert stream.finished
    assert stream.completion_text.size >= 600_000
    assert stream.looked == 3


@pytest.mark.parametrize(
    "large",
    [
        event({"error": {"message": LARGE}}),
        event({"usage": {"x": LARGE}}),
        b"data: 1\n" * 20_000 + b"\n",
        b"data: 1\n" * 2000 + b"\n",
        b": " + b"x" * 200_000 + b"\n\n",
        event({**content(LARGE), "x": [1, 2]}).replace(b'"x": ', b'"x":\r'),
        event(content(LARGE, "abort")),
    ],
    ids=["error", "usage", "large lines", "lines", "comment", "line end", "broken off"],
)
def test_a_large_event_that_is_no_part_of_an_answer_ends_the_stream(large: bytes) -> None:
    """Whatever it is: to find out would hold everybody up. Nothing of it goes on, nor anything after it."""
    stream = relay(limit=2**22)
    stream.feed(event(content("a")))
    if stream.feed(large) and not stream.failed:
        assert large.startswith(b"data: {")
        pytest.fail("it went on")
    assert stream.failed
    assert stream.feed(event(content("b"))) == b""


def test_of_many_choices_the_first_are_looked_at() -> None:
    """Nobody asks for as many as fit into an event."""
    many = {"choices": [{"index": number, "delta": {"content": "a"}, "finish_reason": None} for number in range(1500)]}
    stream = EventRelay(keep_usage=False, secret=None, limit=2**22, answers=2)
    assert stream.feed(event(many))
    assert len(stream._open) == chunks.MOST_CHOICES
    parts = {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "a"}] * 1500}}]}
    assert stream.feed(event(parts)) == event(parts)
