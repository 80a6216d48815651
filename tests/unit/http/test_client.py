"""The HTTP client, against servers that write what no library would."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohappyeyeballs import AddrInfoType

from assistant_cluster.certificates import Authority
from assistant_http import connection
from assistant_http.client import HttpClient
from assistant_http.errors import (
    ConnectTimeoutError,
    HeadTimeoutError,
    HttpError,
    NotConnectedError,
    NotHttpError,
    StaleConnectionError,
)

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Server:
    """A server of which each connection is talked to by `talk`; counts them and keeps what was asked."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.connections = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[Server]:
    server = Server(talk)
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient(connect_seconds=5, idle_seconds=5, quiet_seconds=5)
    yield client
    await client.close()


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """Read a request's head and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


def answering(*answers: bytes, close: bool = False) -> Talk:
    """Answer one request after the other on a connection, the last answer again and again."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(100):
            await request_of(reader)
            writer.write(answers[min(number, len(answers) - 1)])
            await writer.drain()
            if close:
                return

    return talk


async def none_left(http: HttpClient, but: int = 0) -> None:
    """Wait until every connection is gone, or all but so many; the test's own time-out ends it."""
    while len(http.connections) > but:  # noqa: ASYNC110  what a test waits for, no client needs
        await asyncio.sleep(0.01)


async def get(http: HttpClient, server: Server, **headers: str) -> bytes:
    return await (await http.request("GET", server.url, headers, b"")).read()


async def test_a_request_is_sent_as_asked_and_its_answer_read(http: HttpClient) -> None:
    """Method, path, headers and body; the answer's header names come in lower case, repeated ones joined."""
    seen: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(b"HTTP/1.1 201 Created\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 0\r\n\r\n")

    async with serving(talk) as server:
        response = await http.request("POST", f"{server.url}/base/", {"x-user": "ädä"}, b"body", path="/v1/x?a=b")
        assert (response.status, response.headers["x-a"], await response.read()) == (201, "1, 2", b"")
    authority = server.url.removeprefix("http://")
    head = f"POST /base/v1/x?a=b HTTP/1.1\r\nhost: {authority}\r\nx-user: ädä\r\ncontent-length: 4\r\n\r\n"
    assert seen == [head.encode() + b"body"]


async def test_a_connection_is_used_again(http: HttpClient) -> None:
    """But only by one exchange at a time."""
    async with serving(answering(OK)) as server:
        for _ in range(3):
            assert await get(http, server) == b"ok"
        assert server.connections == 1
        assert await asyncio.gather(*(get(http, server) for _ in range(3))) == [b"ok"] * 3
        assert server.connections == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + OK,  # one request has one answer
    ],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(http: HttpClient, answer: bytes) -> None:
    """Else an answer would reach another's request."""
    async with serving(answering(answer)) as server:
        first = await http.request("GET", server.url, {}, b"")
        assert first.status == 200
        first.close()
        assert await get(http, server)
        assert server.connections == 2


async def test_bytes_that_nobody_asked_for_end_an_idle_connection(http: HttpClient) -> None:
    """They would be taken for the next answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(OK)
        await reader.read()

    async with serving(talk) as server:
        assert await get(http, server) == b"ok"
        await none_left(http)
        assert await get(http, server) == b"ok"
        assert server.connections == 2


async def test_an_old_idle_connection_is_not_used_again() -> None:
    """The server may be closing it at this moment."""
    http = HttpClient(connect_seconds=5, idle_seconds=0.05, quiet_seconds=5)
    async with serving(answering(OK)) as server:
        assert await get(http, server) == b"ok"
        await none_left(http)  # nor kept
        assert await get(http, server) == b"ok"
        assert server.connections == 2
        await http.close()


async def test_an_answer_may_come_in_any_pieces(http: HttpClient) -> None:
    """Byte by byte, in chunks, after an interim answer."""
    whole = b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            for byte in whole:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)

    async with serving(talk) as server:
        assert [await get(http, server), await get(http, server)] == [b"abcde"] * 2
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        CHUNKED + b"3\r\nabc\r\n",
        CHUNKED + b"0\r\n" + b"x: y\r\n" * 20_000,
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000,
    ],
)
async def test_half_an_answer_is_none(http: HttpClient, answer: bytes) -> None:
    """Whatever is cut, and whatever is no HTTP."""
    async with serving(answering(answer, close=True)) as server:
        with pytest.raises(HttpError):
            await get(http, server)
        await none_left(http)


async def test_a_server_that_falls_silent_is_given_up() -> None:
    """Before its answer, and in the middle of it; one that goes on, however slowly, is not."""

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(CHUNKED + b"1\r\na\r\n")
        await reader.read()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(CHUNKED)
        for _ in range(5):
            await asyncio.sleep(0.25)
            writer.write(b"1\r\na\r\n")
        writer.write(b"0\r\n\r\n")
        await reader.read()

    http = HttpClient(connect_seconds=5, idle_seconds=5, quiet_seconds=1)
    async with serving(silent) as one, serving(stuck) as other, serving(slow) as third:
        found = await asyncio.gather(*(get(http, server) for server in (one, other, third)), return_exceptions=True)
        for error in found[:2]:
            assert isinstance(error, HttpError)
            assert "timed out" in str(error)
        assert found[2] == b"aaaaa"
        await none_left(http, but=1)
    await http.close()


async def test_an_answer_has_to_begin_in_time_and_may_then_take_its_own(http: HttpClient) -> None:
    """The connection of one that does not is given up: nobody knows what still comes on it."""
    on = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(CHUNKED)
        await on.wait()
        writer.write(b"1\r\na\r\n0\r\n\r\n")
        await reader.read()

    async with serving(silent) as one, serving(slow) as other:
        with pytest.raises(HeadTimeoutError):
            await http.request("GET", one.url, {}, b"", head_seconds=0.1)
        await none_left(http)
        answer = await http.request("GET", other.url, {}, b"", head_seconds=2)
        await asyncio.sleep(2.2)
        on.set()
        assert await answer.read() == b"a"


async def test_a_server_that_is_not_there_was_sent_nothing(http: HttpClient) -> None:
    """So it may be asked again."""
    with pytest.raises(NotConnectedError):
        await http.request("GET", "http://127.0.0.1:1", {}, b"")


async def test_a_slow_reader_holds_the_server_back() -> None:
    """A bounded part of an answer is kept, and the reader's slowness is not taken for the server's silence."""
    size = 50 * connection.MAX_UNREAD_BYTES
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request_of(reader)
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
        for _ in range(50):
            writer.write(b"x" * connection.MAX_UNREAD_BYTES)
            await writer.drain()
            sent += connection.MAX_UNREAD_BYTES
        await reader.read()

    http = HttpClient(connect_seconds=5, idle_seconds=5, quiet_seconds=1)
    async with serving(talk) as server:
        response = await http.request("GET", server.url, {}, b"")
        await asyncio.sleep(1.3)
        assert response.unread_bytes < 4 * connection.MAX_UNREAD_BYTES
        assert sent < size
        assert len(await response.read()) == size
        await http.close()


@pytest.mark.parametrize("started", [False, True])
async def test_a_call_that_is_not_waited_for_is_dropped(http: HttpClient, *, started: bool) -> None:
    """The server sees the connection close, whether its answer has begun or not."""
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        if started:
            writer.write(CHUNKED + b"1\r\na\r\n")
        try:
            await reader.read()
        finally:
            gone.set()

    async with serving(talk) as server:
        task = asyncio.create_task(get(http, server))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if started:  # whoever has an answer closes it
            await http.close()
        await gone.wait()
        await none_left(http)


async def test_closing_an_answer_that_has_ended_keeps_the_connection(http: HttpClient) -> None:
    """It may be carrying another exchange already."""
    async with serving(answering(OK)) as server:
        first = await http.request("GET", server.url, {}, b"")
        second = await http.request("GET", server.url, {}, b"")
        first.close()
        assert [await second.read(), await first.read()] == [b"ok", b"ok"]
        assert server.connections == 1


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\0"])
async def test_a_header_cannot_end_its_line(http: HttpClient, value: str) -> None:
    """What could become another header is not sent."""
    with pytest.raises(HttpError):
        await http.request("GET", "http://127.0.0.1:1", {"x": value}, b"")


@pytest.mark.parametrize("url", ["ftp://x", "x", "http://"])
async def test_a_url_of_another_kind_is_refused(http: HttpClient, url: str) -> None:
    """A configuration that cannot work says so."""
    with pytest.raises(HttpError):
        await http.request("GET", url, {}, b"")


async def test_an_answer_may_end_with_its_connection(http: HttpClient) -> None:
    """Nobody said where it ends, so where the server closes is its end (RFC 9112, 6.3)."""
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\nabc", close=True)) as server:
        assert [await get(http, server), await get(http, server)] == [b"abc"] * 2
        assert server.connections == 2


async def test_a_trailer_is_no_header_of_the_next_answer(http: HttpClient) -> None:
    """Each answer has its own."""
    trailed = CHUNKED + b"1\r\na\r\n0\r\nx-late: 1\r\n\r\n"
    async with serving(answering(trailed, OK)) as server:
        assert await get(http, server) == b"a"
        second = await http.request("GET", server.url, {}, b"")
        assert (await second.read(), dict(second.headers)) == (b"ok", {"content-length": "2"})
        assert server.connections == 1


async def test_a_kept_connection_that_is_closed_as_it_is_used_again_is_told_apart(http: HttpClient) -> None:
    """Whoever hears it may ask again; not so when the connection was new, or when something had come already."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await request_of(reader)

    async with serving(once) as server:
        assert await get(http, server) == b"ok"
        with pytest.raises(StaleConnectionError):
            await get(http, server)
    for answers in ((b"",), (OK, b"HTTP/1.1 2")):

        async def talk(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: tuple[bytes, ...] = answers
        ) -> None:
            for answer in answers:
                await request_of(reader)
                writer.write(answer)
                await writer.drain()

        async with serving(talk) as server:
            for _ in answers[1:]:
                assert await get(http, server) == b"ok"
            with pytest.raises(HttpError) as raised:
                await get(http, server)
            assert not isinstance(raised.value, StaleConnectionError)


async def test_what_is_no_http_is_told_apart(http: HttpClient) -> None:
    """A server that speaks something else is not one that has gone."""
    async with serving(answering(b"SSH-2.0-x\r\n\r\n")) as server:
        with pytest.raises(NotHttpError):
            await get(http, server)


async def test_a_reader_hears_what_its_answer_was_failed_with(http: HttpClient) -> None:
    """What had arrived is read before; the server sees the connection close."""
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(CHUNKED + b"1\r\na\r\n")
        await reader.read()
        gone.set()

    async with serving(talk) as server:
        response = await http.request("GET", server.url, {}, b"")
        assert await response.next() == b"a"
        waiting = asyncio.create_task(response.next())
        await asyncio.sleep(0)
        assert not response.complete
        response.fail(ZeroDivisionError("x"))
        with pytest.raises(ZeroDivisionError):
            await waiting
        await gone.wait()
        assert response.complete


async def test_what_arrives_may_be_taken_without_waking_the_reader(http: HttpClient) -> None:
    """As long as it is wanted that way; the rest, and the end, the reader gets. Nothing is lost, doubled or moved."""
    turn = asyncio.Semaphore(0)
    taken: list[bytes] = []
    read: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(CHUNKED)
        for number in range(20):
            writer.write(b"1\r\n%c\r\n" % (65 + number))
            await turn.acquire()
        writer.write(b"1\r\n!\r\n0\r\n\r\n")
        await reader.read()

    def straight(data: bytes) -> bool:
        if data in b"DHI":
            return False
        taken.append(data)
        turn.release()
        return True

    async with serving(talk) as server:
        response = await http.request("GET", server.url, {}, b"")
        while data := await response.next(straight):
            read.append(data)
            turn.release()
        assert (b"".join(taken), b"".join(read)) == (b"BCEFGJKLMNOPQRST", b"ADHI!")
        assert response.complete


async def test_a_server_goes_on_after_much_was_taken_at_once(http: HttpClient) -> None:
    """What is taken without waking the reader does not count as unread."""
    size = 20 * connection.MAX_UNREAD_BYTES

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode() + b"x")
        await writer.drain()
        writer.write(b"x" * (size - 1))
        await reader.read()

    taken = 0

    def straight(data: bytes) -> bool:
        nonlocal taken
        taken += len(data)
        return True

    async with serving(talk) as server:
        response = await http.request("GET", server.url, {}, b"")
        left = 0
        while data := await response.next(straight):
            left += len(data)
        assert taken > 0
        assert taken + left == size


class Resolver:
    """Gives the addresses it is told, and counts how often it was asked."""

    def __init__(self, *addresses: tuple[str, int], seconds: float = 0) -> None:
        self.addresses, self.seconds, self.asked = addresses, seconds, 0

    async def resolve(self, _host: str, _port: int) -> list[AddrInfoType]:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET6 if ":" in where[0] else socket.AF_INET, socket.SOCK_STREAM, 0, "", where)
            for where in self.addresses
        ]


def resolving(resolver: Resolver, seconds: float = 5) -> HttpClient:
    return HttpClient(connect_seconds=seconds, idle_seconds=5, quiet_seconds=5, resolve=resolver.resolve)


async def test_connections_lead_where_the_resolver_says() -> None:
    """To the address it gave, and the server hears the name; a crowd asks for it once."""
    async with serving(answering(OK)) as server:
        port = int(server.url.rpartition(":")[2])
        resolver = Resolver(("127.0.0.1", port), seconds=0.05)
        http = resolving(resolver)
        url = f"http://model.example:{port}/v1"
        found = await asyncio.gather(*(http.request("GET", url, {}, b"") for _ in range(5)))
        assert [await response.read() for response in found] == [b"ok"] * 5
        assert (server.connections, resolver.asked) == (5, 1)
        await http.close()


async def test_a_names_second_address_serves_when_the_first_does_not() -> None:
    """As with a name that has an IPv6 address where there is no IPv6."""
    async with serving(answering(OK)) as server:
        port = int(server.url.rpartition(":")[2])
        http = resolving(Resolver(("127.0.0.1", 1), ("127.0.0.1", port)))
        response = await http.request("GET", "http://model.example", {}, b"")
        assert await response.read() == b"ok"
        await http.close()


async def test_a_name_that_did_not_resolve_is_asked_for_again() -> None:
    """A failure is not remembered; its cause is told."""
    resolver = Resolver()
    http = resolving(resolver)
    for times in (1, 2):
        with pytest.raises(NotConnectedError) as raised:
            await http.request("GET", "http://model.example", {}, b"")
        assert isinstance(raised.value.__cause__, socket.gaierror)
        assert resolver.asked == times


async def test_a_connection_is_not_waited_for_longer_than_asked() -> None:
    """The look-up of the name counts; one caller that gives up does not end it for another."""
    async with serving(answering(OK)) as server:
        port = int(server.url.rpartition(":")[2])
        resolver = Resolver(("127.0.0.1", port), seconds=0.3)
        http = resolving(resolver)
        patient = asyncio.create_task(http.request("GET", "http://model.example", {}, b""))
        await asyncio.sleep(0)
        with pytest.raises(ConnectTimeoutError):
            await http.request("GET", "http://model.example", {}, b"", connect_seconds=0.05)
        assert await (await patient).read() == b"ok"
        assert resolver.asked == 1
        await http.close()


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_is_for_servers_that_prove_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    """By a certificate that the machine trusts; nothing is sent to any other."""
    authority = Authority(tmp_path)
    files = authority.server("provider", ["model.example"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)
    server = Server(answering(OK))
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.files.certificate))
    http = resolving(Resolver(("127.0.0.1", port)))
    for host in ("model.example", "other.example"):
        if trusted and host == "model.example":
            assert await (await http.request("GET", f"https://{host}", {}, b"")).read() == b"ok"
        else:
            with pytest.raises(NotConnectedError) as raised:
                await http.request("GET", f"https://{host}", {}, b"")
            assert isinstance(raised.value.__cause__, ssl.SSLError)
    await http.close()
    listening.close()


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"gzip, CHUNKED"])
async def test_a_cut_answer_in_chunks_is_no_whole_one_however_its_coding_is_written(
    http: HttpClient, coding: bytes
) -> None:
    """Names of transfer codings have no case; an answer without its last chunk has not ended."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: " + coding + b"\r\n\r\n5\r\nhello\r\n")
        await writer.drain()

    async with serving(cut) as server:
        answer = await http.request("GET", server.url, {}, b"")
        with pytest.raises(HttpError):
            await answer.read()
