"""The parser of responses, fuzzed: how bytes are split changes nothing, and malformed ones end in an error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assistant_http.addresses import Origin
from assistant_http.connection import Connection
from assistant_http.errors import HttpError
from assistant_http.response import ClientResponse

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Transport:
    """A transport that sends nothing and remembers whether it was closed."""

    def __init__(self) -> None:
        self.closing = False

    def writelines(self, _pieces: Sequence[bytes]) -> None:
        """Take the request."""

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """The pieces come all the same: none of them may be lost."""

    resume_reading = pause_reading


@dataclass
class Pool:
    """A pool that keeps nothing."""

    idle_seconds: float = 60.0
    quiet_seconds: float = 60.0
    connections: set[Connection] = field(default_factory=set)
    released: int = 0

    def release(self, _connection: Connection) -> None:
        self.released += 1

    def discard(self, connection: Connection) -> None:
        self.connections.discard(connection)


@dataclass(frozen=True)
class Outcome:
    """What a caller sees of one exchange."""

    status: int
    headers: dict[str, str]
    body: bytes
    error: str | None
    reusable: bool


async def exchange(pieces: Sequence[bytes]) -> Outcome:
    """Send a request, deliver these pieces, close the connection; return what came of it."""
    pool, transport = Pool(), Transport()
    connection = Connection(pool, Origin("test", 80, secure=False))
    connection.connection_made(cast("Any", transport))
    waiting = asyncio.create_task(connection.exchange(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n", b""))
    await asyncio.sleep(0)
    for piece in pieces:
        if transport.closing:
            break
        connection.data_received(piece)
    connection.connection_lost(None)
    response: ClientResponse | None = None
    body = b""
    error: str | None = None
    try:
        async with asyncio.timeout(
            20
        ):  # a hang is an error; everything is in memory, so that no load of the machine reaches it
            response = await waiting
            while part := await response.next():
                body += part
    except HttpError as failed:
        error = type(failed).__name__
    status, headers = (response.status, dict(response.headers)) if response else (0, {})
    return Outcome(status, headers, body, error, pool.released > 0)


def outcome_of(pieces: Sequence[bytes]) -> Outcome:
    return asyncio.run(exchange(pieces))


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Return `data` in pieces that end at these places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).filter(
    lambda name: name not in {"content-length", "transfer-encoding", "connection", "upgrade"}
)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """Return a valid response, its body, and whether the connection can be used again after it."""
    body = draw(st.binary(max_size=300))
    lines = [f"{name}: {value}" for name, value in draw(st.lists(st.tuples(TOKENS, VALUES), max_size=4))]
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
        content = body
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        parts = [part for part in cut(body, draw(st.lists(st.integers(0, 300), max_size=4))) if part]
        extension = draw(st.sampled_from([b"", b";a=b"]))
        trailer = draw(st.sampled_from([b"", b"x-trailer: y\r\n"]))
        content = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
        content += b"0\r\n" + trailer + b"\r\n"
    else:
        lines.append("Connection: close")
        content = body
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"]))
    status = draw(st.sampled_from([200, 201, 404, 429, 503]))
    head = "\r\n".join([f"HTTP/1.1 {status} {draw(st.sampled_from(['OK', '', 'Some Words']))}", *lines, "", ""])
    return interim + head.encode() + content, body, framing != "close"


@QUICK
@given(responses(), st.lists(st.integers(0, 2000), max_size=12))
def test_every_split_of_a_valid_response_gives_the_same_result(
    response: tuple[bytes, bytes, bool], places: list[int]
) -> None:
    """All at once, in any pieces, and byte by byte."""
    data, body, reusable = response
    whole = outcome_of([data])
    assert (whole.body, whole.error, whole.reusable) == (body, None, reusable)
    assert outcome_of(cut(data, places)) == whole
    assert outcome_of([bytes([byte]) for byte in data]) == whole


@QUICK
@given(responses(), st.integers(0, 2000), st.lists(st.integers(0, 2000), max_size=4))
def test_a_response_that_is_cut_off_is_an_error(
    response: tuple[bytes, bytes, bool], place: int, places: list[int]
) -> None:
    """Unless it ends with its connection: then nothing tells the end from the cut, once its head is there."""
    data, body, reusable = response
    part = data[: place % len(data)]
    outcome = outcome_of(cut(part, places) if part else [])
    if reusable or not outcome.status:
        assert outcome.error is not None
    assert body.startswith(outcome.body)


@QUICK
@given(responses(), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=5))
def test_a_damaged_response_ends(response: tuple[bytes, bytes, bool], damage: list[tuple[int, int]]) -> None:
    """Some bytes replaced: it may still be a response, or be an error; it never hangs or raises anything else."""
    data = bytearray(response[0])
    for place, byte in damage:
        data[place % len(data)] = byte
    outcome = outcome_of([bytes(data)])
    assert outcome.error is not None or outcome.status >= 200


@QUICK
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_bytes_that_are_no_response_are_an_error(data: bytes, places: list[int]) -> None:
    """Noise is never taken for an answer."""
    assert outcome_of(cut(data, places)).error is not None


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        HEAD + b"content-length: two\r\n\r\nok",
        HEAD + b"content-length: -2\r\n\r\nok",
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok",
        HEAD + b"content-length: 3\r\n\r\nok",
        HEAD + b"no colon\r\n\r\n",
        HEAD + b" : space\r\n\r\n",
        HEAD + b"name: nul\0\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nok",
        HEAD + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_every_malformed_response_of_the_corpus_is_an_error(data: bytes) -> None:
    """Whole and byte by byte."""
    assert outcome_of([data] if data else []).error is not None
    assert outcome_of([bytes([byte]) for byte in data]).error is not None
