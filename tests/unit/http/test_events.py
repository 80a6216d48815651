"""Server-sent events are read by the standard's rules, however their bytes arrive."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_http.events import BOM, Event, Frames, data_of, parse, split


def lines_of(stream: bytes) -> list[bytes]:
    """Return the lines that have ended, as the standard's text says it, from all bytes of a stream."""
    if stream.startswith(BOM):
        stream = stream[3:]
    lines, line, at = [], bytearray(), 0
    while at < len(stream):
        byte = stream[at : at + 1]
        at += 1
        if byte in {b"\r", b"\n"}:
            if byte == b"\r" and stream[at : at + 1] == b"\n":
                at += 1
            lines.append(bytes(line))
            line.clear()
        else:
            line += byte
    return lines


def reference(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Read a stream as the standard's text says it; return each event's name and data."""
    events, data, name = [], b"", b""  # what follows the last empty line is discarded
    for found in lines_of(stream):
        if not found:
            if data:
                events.append((name, data[:-1]))
            data, name = b"", b""
        elif b":" in found:
            field, value = found.split(b":", 1)
            value = value[1:] if value[:1] == b" " else value
            if field == b"data":
                data += value + b"\n"
            elif field == b"event":
                name = value
        elif found == b"data":
            data += b"\n"
        elif found == b"event":
            name = b""
    return events


def read(parts: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Read a stream by the module under test."""
    frames = Frames()
    found = [parse(event) for part in parts for event in split(frames.feed(part))]
    return [(event.name, event.data) for event in found if event.data is not None]


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Return the stream in pieces."""
    edges = sorted({0, len(stream), *(min(at, len(stream)) for at in cuts)})
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


FRAGMENTS = st.sampled_from(
    [
        *(b"data", b"data:", b"data: ", b"data:  ", b" data: x", b"event: error", b"event", b"id: 7", b"retry: 10"),
        *(b": keepalive", b":", b"error: {}", b"x", b"[DONE]", b'{"a": 1}', "é".encode(), b"\xff", b"\x00", BOM),
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n", b"\n\r"),
    ]
)
STREAMS = st.lists(FRAGMENTS, max_size=40).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 200), max_size=20))
def test_any_split_of_the_same_bytes_gives_the_standards_events(stream: bytes, cuts: list[int]) -> None:
    """As the obvious reading of the standard does, from whichever pieces."""
    expected = reference(stream)
    assert read(cut(stream, cuts)) == expected
    assert read([stream[at : at + 1] for at in range(len(stream))]) == expected
    assert read([stream] if stream else []) == expected


@given(STREAMS, st.lists(st.integers(0, 200), max_size=20))
def test_blocks_hold_whole_events_and_nothing_is_lost(stream: bytes, cuts: list[int]) -> None:
    """A block ends with an empty line; what was written anew says the same."""
    frames, blocks = Frames(), []
    for part in cut(stream, cuts):
        if block := frames.feed(part):
            assert block.endswith((b"\n\n", b"\r\r", b"\n\r", b"\r\r\n", b"\r\n\n", b"\n\r\n"))
            assert b"".join(split(block)) == block or b"\r" not in block
            blocks.append(block)
    written = b"".join(parse(event).written() for block in blocks for event in split(block))
    assert b"\r" not in written
    named = [(b"" if name == b"message" else name, data) for name, data in reference(stream)]
    assert reference(written) == named
    assert bytes(frames.rest) == frames.take()
    assert not frames.rest


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("empty", [b"\n", b"\r", b"\r\n"])
def test_an_event_is_there_as_soon_as_its_empty_line_is(end: bytes, empty: bytes) -> None:
    """Whichever line ends are mixed: nothing waits for the event after it. CR and LF in a row are one line end."""
    frames = Frames()
    whole = b"data: a" + end + empty
    assert frames.feed(whole) == (b"" if end + empty == b"\r\n" else whole)


def test_fields_stand_in_any_order() -> None:
    """Comments, ids and names before, between and after the data change nothing of it."""
    event = parse(b": keepalive\nid: 7\nevent: message\ndata: {\nretry: 5\ndata:}\nerror: x\n\n")
    assert event == Event(b"{\n}", b"message", (b" keepalive",), ((b"error", b"x"),))
    assert event.written() == b": keepalive\n\ndata: {\ndata: }\n\n"
    assert data_of(b"id: 7\ndata: x\n\n") == data_of(b"data: x\n\n") == data_of(b"data:x\r\r") == b"x"
    assert data_of(b": ping\n\n") is None
