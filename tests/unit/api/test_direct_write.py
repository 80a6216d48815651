"""Chunks written past `send`, under the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from litestar.types import ASGIApp, Receive, Scope, Send

from assistant_api.chat.stream import EventStream, Relay
from assistant_api.direct_write import DirectWriter, direct_writer
from assistant_api.server import server
from assistant_http.client import HttpClient
from assistant_http.errors import HttpError

SIZE = 200_000


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve `app` on a free port."""
    running = server(app, "127.0.0.1", 0, 1, lifespan=False)
    task = asyncio.create_task(running.serve())
    while not running.started:  # noqa: ASYNC110  uvicorn tells nobody
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        await task


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient(connect_seconds=5, idle_seconds=5, quiet_seconds=5)
    yield client
    await client.close()


def found(scope: Scope) -> DirectWriter:
    chunks = direct_writer(scope)
    assert chunks is not None
    return chunks


def is_ready(chunks: DirectWriter) -> bool:
    return chunks.transport() is not None


def write(chunks: DirectWriter, body: bytes) -> None:
    transport = chunks.transport()
    assert transport is not None
    transport.write(b"%x\r\n%b\r\n" % (len(body), body))


async def start(send: Send, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def end(send: Send, body: bytes = b"") -> None:
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def test_chunks_and_sends_arrive_in_the_order_in_which_they_were_made(http: HttpClient) -> None:
    """And the connection carries the next answer; before the head and after the end there are none."""
    ready: list[bool] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        chunks = found(scope)
        ready.append(is_ready(chunks))
        await start(send)
        for number in range(3):
            ready.append(is_ready(chunks))
            write(chunks, b"<%d>" % number)
            await send({"type": "http.response.body", "body": b"(%d)" % number, "more_body": True})
        await end(send)
        ready.append(is_ready(chunks))

    async with serving(app) as url:
        for _ in range(2):
            assert await (await http.request("GET", url, {}, b"")).read() == b"<0>(0)<1>(1)<2>(2)"
        assert len(http.connections) == 1
    assert ready == [False, True, True, True, False] * 2


async def test_an_answer_of_known_length_has_no_chunks(http: HttpClient) -> None:
    """They would be counted as its body."""
    ready: list[bool] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"2"))
        ready.append(is_ready(found(scope)))
        await end(send, b"ok")

    async with serving(app) as url:
        assert await (await http.request("GET", url, {}, b"")).read() == b"ok"
    assert ready == [False]


@pytest.mark.parametrize("value", [b"a\r\nx-injected: b", b"a\nb", b"a\0", b"a\x7f"])
async def test_a_header_cannot_end_its_line(http: HttpClient, value: bytes) -> None:
    """Nor hold any other control character: the caller gets no answer."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"2"), (b"x-name", value))
        await end(send, b"ok")

    async with serving(app) as url:
        with pytest.raises(HttpError):
            await http.request("GET", url, {}, b"")


async def test_heads_are_framed_by_what_the_request_and_the_answer_are(http: HttpClient) -> None:
    """HEAD and 204 have no body; who wants the connection closed is told so, with the date as always."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/empty":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await end(send)
        else:
            await start(send, (b"Content-Length", b"2"))
            await end(send, b"ok")

    async with serving(app) as url:
        empty = await http.request("GET", f"{url}/empty", {}, b"")
        assert "transfer-encoding" not in empty.headers
        empty.close()
        head = await http.request("HEAD", url, {}, b"")
        assert head.headers["content-length"] == "2"
        head.close()
        last = await http.request("GET", url, {"connection": "close"}, b"")
        assert last.headers["connection"] == "close"
        kept = await http.request("GET", url, {}, b"")
        for answer in (last, kept):
            assert (await answer.read(), answer.headers["content-length"]) == (b"ok", "2")
            assert "transfer-encoding" not in answer.headers
            assert "date" in answer.headers


async def test_whoever_does_not_read_gets_no_chunks(http: HttpClient) -> None:
    """What was written stays bounded, and `send` waits; when the caller reads again there are chunks again."""
    written = 0
    again = asyncio.Event()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal written
        chunks = found(scope)
        await start(send)
        while is_ready(chunks) and written < 500 * SIZE:
            write(chunks, b"x" * SIZE)
            written += SIZE
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"y", "more_body": True})
        if is_ready(chunks):
            again.set()
        await end(send)

    async with serving(app) as url:
        answer = await http.request("GET", url, {}, b"")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(again.wait(), 0.3)
        assert written < 500 * SIZE
        body = await answer.read()
        assert body == b"x" * written + b"y"
        assert again.is_set()


async def test_whoever_is_gone_gets_no_chunks(http: HttpClient) -> None:
    """And nothing fails."""
    gone = asyncio.Event()
    ready: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await start(send)
        write(found(scope), b"a")
        await receive()
        ready.append(is_ready(found(scope)))
        gone.set()

    async with serving(app) as url:
        answer = await http.request("GET", url, {}, b"")
        answer.close()
        await asyncio.wait_for(gone.wait(), 5)
    assert ready == [False]


class Source:
    """A gateway's answer that offers its events to whoever waits, and wakes it for those that were not taken."""

    status, headers = 200, {"content-type": "text/event-stream"}

    def __init__(self, *events: bytes) -> None:
        self.events = list(events)
        self.taken = 0

    async def next(self, straight: object = None) -> bytes:
        while self.events:
            await asyncio.sleep(0)
            event = self.events.pop(0)
            if event == b"cut":
                raise HttpError("cut")
            if not callable(straight) or not straight(event):
                return event
            self.taken += 1
        return b""

    async def read(self) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to close."""


async def test_a_stream_goes_out_in_chunks_from_its_second_event_on(http: HttpClient) -> None:
    """Nothing is lost, doubled or moved, in whatever pieces events come, and an error event still ends it."""
    events = [b"data: %d\n\n" % number for number in range(20)]
    pieces = [*events[:9], b"data:", b" 9\n\n", *events[10:], b"cut"]
    source = Source(*pieces)
    stream = EventStream(
        source, headers=[], relay=Relay(), assistant="support", started=0, interrupted=lambda: b'{"error":{}}'
    )
    async with serving(stream) as url:
        body = await (await http.request("POST", url, {}, b"{}")).read()
    assert body == b"".join(events) + b'data: {"error":{}}\n\n'
    assert source.taken == len(pieces) - 2
