"""The gateway's client, against a server that behaves and one that does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from assistant_api import gateway
from assistant_api.gateway import GatewayClient, GatewayError, GatewayUnreachableError, TokenFile
from assistant_crds.contracts import NOT_STARTED_HEADER, TOTAL_SECONDS
from assistant_crds.gateway_api import Purpose

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Start = Callable[..., Awaitable[GatewayClient]]


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


@pytest.fixture
async def start(token: Path) -> AsyncIterator[Start]:
    """Start a gateway that answers every path with one handler; returns its client."""
    runners: list[web.AppRunner] = []
    clients: list[GatewayClient] = []

    async def starter(handler: Handler, seconds: float = TOTAL_SECONDS) -> GatewayClient:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        client = GatewayClient(lambda: url, TokenFile(token), lambda: seconds)
        runners.append(runner)
        clients.append(client)
        return client

    yield starter
    for client in clients:
        await client.close()
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([None, None, None], [0, 1, 2]),
        ([None, 1, 2], [0, 1, 2]),
        ([2, None, 1], [1, 2, 0]),
        ([0, 0, 0], [0, 1, 2]),
        (["2", "1", "0"], [2, 1, 0]),
        ([1, 2, 3], [0, 1, 2]),
        ([1, 1, 0], None),
    ],
)
async def test_embeddings_without_an_index_are_where_they_stand(
    start: Start, indexes: list[object], expected: list[int] | None
) -> None:
    """A zero that was left out is found; where servers contradict themselves nothing is guessed."""
    data = [
        {"embedding": [float(at)], **({} if index is None else {"index": index})} for at, index in enumerate(indexes)
    ]

    async def handler(_request: web.Request) -> web.Response:
        return web.json_response({"data": data})

    client = await start(handler)
    asking = client.embeddings(["a", "b", "c"], "handbook", Purpose.SEARCH)
    if expected is None:
        with pytest.raises(GatewayError):
            await asking
    else:
        assert [int(vector[0]) for vector in await asking] == expected


async def test_embeddings_come_back_in_order(start: Start) -> None:
    """Asked for by the knowledge base's name, for the purpose that is named, with this pod's token."""
    seen: list[tuple[str, dict, dict]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path, dict(request.headers), await request.json()))
        data = [{"index": 1, "embedding": [0.5, 1]}, {"index": 0, "embedding": [2, 3]}]
        return web.json_response({"object": "list", "data": data})

    client = await start(handler)
    assert await client.embeddings(["a", "b"], "handbook", Purpose.SEARCH) == [[2.0, 3.0], [0.5, 1.0]]
    path, headers, body = seen[0]
    assert path == "/v1/embeddings"
    assert body == {"model": "handbook", "input": ["a", "b"], "encoding_format": "float"}
    assert headers["x-assistant-purpose"] == "search"
    assert headers["Authorization"] == "Bearer first"


async def test_a_replaced_token_is_used_from_the_next_call_on(start: Start, token: Path) -> None:
    """The kubelet rotates it under a running pod."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["authorization"])
        return web.json_response({})

    client = await start(handler)
    await client.ping()
    fresh = token.with_name("fresh")
    fresh.write_text("second")
    fresh.rename(token)
    await client.ping()
    assert seen == ["Bearer first", "Bearer second"]


async def test_without_a_token_the_gateway_is_not_asked(start: Start, token: Path) -> None:
    """A pod without its volume says so."""

    async def handler(_request: web.Request) -> web.Response:
        raise AssertionError("asked")

    client = await start(handler)
    token.unlink()  # noqa: ASYNC240
    with pytest.raises(GatewayUnreachableError, match="token"):
        await client.ping()


@pytest.mark.parametrize(
    ("status", "body", "wait", "code", "retry_after"),
    [
        (429, '{"error":{"message":"m","code":"rate_limit_exceeded"}}', "2", "rate_limit_exceeded", 2),
        (400, '{"error":{"message":"m","type":"invalid_request_error"}}', "", "invalid_request_error", None),
        (500, "<html>", "Wed, 21 Oct 2026 07:28:00 GMT", "gateway_error", None),
        (503, "", "", "gateway_error", None),
    ],
)
async def test_errors_are_read_whatever_their_shape(
    start: Start, status: int, body: str, wait: str, code: str, retry_after: float | None
) -> None:
    """A caller learns the code, whether trying again helps, and when."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"retry-after": wait})

    client = await start(handler)
    with pytest.raises(GatewayError) as caught:
        await client.embeddings(["a"], "handbook", Purpose.INGEST)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.transient is (status != 400)
    assert caught.value.retry_after == retry_after


@pytest.mark.parametrize("body", ["{}", '{"data":[]}', '{"data":[{"index":0,"embedding":["x"]}]}', "nonsense"])
async def test_an_answer_that_is_no_embedding_is_an_error(start: Start, body: str) -> None:
    """Too few vectors would be given to the wrong texts."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(text=body)

    client = await start(handler)
    with pytest.raises(GatewayError) as caught:
        await client.embeddings(["a"], "handbook", Purpose.INGEST)
    assert caught.value.status == 502


async def test_a_gateway_that_is_not_there_is_tried_a_few_times(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """During a rollout one pod may be gone; the error carries no address."""
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr("assistant_api.gateway.asyncio.sleep", sleep)
    client = GatewayClient(lambda: "http://127.0.0.1:1", TokenFile(token))
    with pytest.raises(GatewayUnreachableError) as caught:
        await client.chat(b"{}", {})
    await client.close()
    assert slept == list(gateway.RETRY_DELAYS_SECONDS)
    assert "127.0.0.1" not in str(caught.value)


async def test_a_gateway_that_hangs_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call has a time-out."""
    monkeypatch.setattr(gateway, "PING_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(gateway, "MARGIN_SECONDS", 0.2)
    monkeypatch.setitem(gateway.EMBEDDINGS_TIMEOUT_SECONDS, Purpose.SEARCH, 0.2)

    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        raise AssertionError("still here")

    client = await start(handler, seconds=0)
    started = time.perf_counter()
    calls = (client.ping(), client.chat(b"{}", {}), client.embeddings(["a"], "handbook", Purpose.SEARCH))
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, GatewayUnreachableError)
        assert "timed out" in str(error)
    assert time.perf_counter() - started < 2


async def test_a_stream_that_is_cut_is_an_error(start: Start) -> None:
    """Half an answer is not taken for a whole one."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        assert request.transport is not None
        request.transport.close()
        return response

    client = await start(handler)
    answer = await client.chat(b"{}", {})
    got: list[bytes] = []

    async def collect() -> None:
        while chunk := await answer.next():
            got.append(chunk)

    with pytest.raises(GatewayUnreachableError):
        await collect()
    assert got == [b"data: 1\n\n"]


async def test_closing_an_answer_drops_the_call(start: Start) -> None:
    """The gateway notices, and drops the provider's call in turn."""
    dropped = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"data: 1\n\n")
                await asyncio.sleep(0.01)
        finally:
            dropped.set()

    client = await start(handler)
    answer = await client.chat(b"{}", {})
    answer.close()
    await asyncio.wait_for(dropped.wait(), 1)


async def test_an_answer_without_end_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr("assistant_http.response.MAX_RESPONSE_BYTES", 1000)

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 100_000)

    client = await start(handler)
    answer = await client.chat(b"{}", {})
    with pytest.raises(GatewayUnreachableError, match="too large"):
        await answer.read()


async def test_a_redirect_is_not_followed(start: Start) -> None:
    """The token goes to the gateway and nowhere else."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=307, headers={"location": "/elsewhere"})

    client = await start(handler)
    assert (await client.chat(b"{}", {})).status == 307
    assert seen == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("user", "sent"),
    [
        ("ada", "ada"),
        ("ädä عمر", "ädä عمر"),
        ("a\r\nx-evil: 1", "a  x-evil: 1"),
        ("\udcff", None),
        ("", None),
        ("x" * 300, "x" * 256),
    ],
)
async def test_every_call_says_for_whom_it_is(start: Start, user: str, sent: str | None) -> None:
    """In every call, however somebody is called; what no header can carry cannot become one."""
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers.get("x-assistant-user"))
        assert "x-evil" not in request.headers
        return web.json_response({"data": [{"index": 0, "embedding": [1]}]})

    client = await start(handler)
    gateway.on_behalf_of(user)
    try:
        (await client.chat(b"{}", {})).close()
        await client.embeddings(["a"], "handbook", Purpose.SEARCH)
    finally:
        gateway.on_behalf_of("")
    assert seen == [sent, sent]


async def test_usage_is_asked_with_its_parameters_as_they_are(start: Start) -> None:
    """Repeated ones and those with strange characters included; the answer is passed on as it is."""
    seen: list[list[tuple[str, str]]] = []

    async def handler(request: web.Request) -> web.Response:
        assert (request.method, request.path) == ("GET", "/v1/usage")
        seen.append(list(request.query.items()))
        return web.Response(body=b'{ "x": 1 }', content_type="application/json")

    client = await start(handler)
    asked = [("group_by", "day"), ("group_by", "user"), ("user", "a&b=c +ä")]
    assert await client.usage(asked) == b'{ "x": 1 }'
    assert seen == [asked]


async def test_a_report_that_hangs_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time-out is ours, whatever the gateway does."""
    monkeypatch.setattr(gateway, "USAGE_TIMEOUT_SECONDS", 0.1)

    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        raise AssertionError("not given up")

    client = await start(handler)
    with pytest.raises(GatewayUnreachableError, match="timed out"):
        await client.usage([])


async def test_an_error_keeps_its_field_and_what_callers_are_told(start: Start) -> None:
    """And none of the other headers."""

    async def handler(_request: web.Request) -> web.Response:
        headers = {"Retry-After": "9", "X-Should-Retry": "false", "X-Budget-Limit": "1.0", "Server": "x"}
        return web.json_response({"error": {"message": "m", "code": "c", "param": "from"}}, status=429, headers=headers)

    client = await start(handler)
    with pytest.raises(GatewayError) as caught:
        await client.usage([])
    assert caught.value.param == "from"
    assert caught.value.headers == {"retry-after": "9", "x-should-retry": "false", "x-budget-limit": "1.0"}


async def test_a_paid_answer_is_waited_for_as_long_as_the_gateway_may_take(token: Path) -> None:
    """The time comes with the configuration, and a changed one holds from the next call on."""
    seconds = [600.0]
    client = GatewayClient(lambda: "http://127.0.0.1:1", TokenFile(token), lambda: seconds[0])
    assert client._open().quiet_seconds == 600 + gateway.MARGIN_SECONDS
    seconds[0] = 1800.0
    assert client._open().quiet_seconds == 1800 + gateway.MARGIN_SECONDS
    await client.close()


async def test_a_kept_connection_that_closes_under_a_call_is_replaced(token: Path) -> None:
    """The gateway closes idle connections when it goes; whoever asks at that moment is answered by another."""
    asked: list[bytes] = []
    closing = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = not asked
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(2)
            asked.append(head)
            if first and len(asked) == 2:
                break  # closed without a byte
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()
        closing.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = GatewayClient(lambda: f"http://127.0.0.1:{port}", TokenFile(token))
        assert await (await client.chat(b"{}", {})).read() == b"{}"
        assert await (await client.chat(b"{}", {})).read() == b"{}"
        assert len(asked) == 3
        await client.close()


async def test_a_new_connection_that_closes_under_a_call_is_not_asked_again(start: Start) -> None:
    """The gateway may have begun the call, which then costs money."""
    asked = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    client = await start(handler)
    with pytest.raises(GatewayUnreachableError):
        await client.chat(b"{}", {})
    assert asked == 1


async def test_a_call_that_a_leaving_gateway_did_not_begin_is_asked_again(start: Start) -> None:
    """On a connection of its own, streams too; without its word that nothing was begun a 503 is the answer."""
    peers: list[object] = []
    refusals = [{NOT_STARTED_HEADER: "true"}, {NOT_STARTED_HEADER: "true"}, {}]

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        await request.read()
        if len(peers) == 1:
            return web.Response(text="{}")  # its connection is kept
        return web.Response(status=503, headers=refusals[len(peers) - 2])

    client = await start(handler)
    await (await client.chat(b"{}", {})).read()
    assert (await client.chat(b"{}", {})).status == 503
    assert len(peers) == 4
    assert len({*peers[1:]}) == 3
    assert peers[0] == peers[1]


async def test_a_gateway_that_begins_nothing_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few tries its refusal is the answer."""
    monkeypatch.setattr(gateway, "RETRY_DELAYS_SECONDS", (0.001, 0.001))
    asked = 0

    async def handler(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=503, headers={NOT_STARTED_HEADER: "true"})

    client = await start(handler)
    assert (await client.chat(b"{}", {})).status == 503
    assert asked == 3


async def test_an_error_nested_without_end_is_an_error(start: Start) -> None:
    """Whatever the depth of what a gateway answers, its status is told."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=502, body=b'{"error": ' + b"[" * 20_000 + b"]" * 20_000 + b"}")

    client = await start(handler)
    with pytest.raises(GatewayError) as caught:
        await client.usage([])
    assert caught.value.status == 502
