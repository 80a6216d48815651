"""A tenant that wants the gateway to fall over: its server, and what its pods send."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

MEBIBYTE = 2**20
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 16_000 + b'"}}]}\n\n'
ANSWER = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"' + b"x" * (30 * MEBIBYTE) + b'"}}]}'
MODELS = b'{"data":[' + b",".join(b'{"id":"m%d"}' % number for number in range(600_000)) + b"]}"
BODY_BYTES = 10 * MEBIBYTE - 1000
LARGE = b" " * BODY_BYTES


def filled(start: str, piece: str, end: str) -> bytes:
    """Return a body as large as the gateway takes, made of one piece again and again."""
    unit = piece.encode()
    return start.encode() + unit * ((BODY_BYTES - len(start) - len(end)) // len(unit)) + end.encode()


def bodies(model: str) -> dict[str, bytes]:
    """Return the bodies that cost most to look at."""
    chat = f'{{"model":"{model}","max_tokens":1,"messages":[{{"role":"user","content":'
    return {
        "objects": filled(chat + "[", "{},", "{}]}]}"),
        "numbers": filled(f'{{"model":"{model}","messages":[', "0,", "0]}"),
        "long forms": filled(chat + '"', "\ufdfa", '"}]}'),
        "escapes": filled(chat + '"', "\\ufdfa", '"}]}'),
        "line ends": filled(chat + '"', "\\n", '"}]}'),
        "one wide character": filled(chat + '"\U0001f600', "a", '"}]}'),
        "nested": filled(chat, "[", ""),
        "members": filled(f'{{"model":"{model}","messages":[{{}}],"a":{{', '"":0,', '"":0}}'),
        "tools": filled(chat + '"a"}],"tools":[', "{},", "{}]}"),
    }


def embedding_bodies(base: str) -> dict[str, bytes]:
    """Return the same for embeddings."""
    start = f'{{"model":"{base}","input":'
    return {"objects": filled(start + "[", "{},", "{}]}"), "braces": filled(start + '["', "{,", '"]}')}


@contextlib.asynccontextmanager
async def hostile_server() -> AsyncIterator[str]:
    """Serve a tenant's own endpoints on the loopback interface: `/endless/v1`, `/huge/v1`, `/list/…/v1`."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
                await reader.readexactly(length)
                await _answer(writer, head.split(" ")[1])
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()


async def _answer(writer: asyncio.StreamWriter, path: str) -> None:
    if path.startswith("/endless"):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(TEXT), TEXT))
            await writer.drain()
    body = MODELS if path.startswith("/list") else ANSWER
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
    for at in range(0, len(body), 2**18):
        writer.write(body[at : at + 2**18])
        await writer.drain()


class Raw:
    """A connection that sends what it is told and reads only when it wants to."""

    def __init__(self, url: str, token: str) -> None:
        self._where = urlsplit(url)
        self._token = token

    async def send(self, body: bytes, *, path: str = "/v1/chat/completions", but: int = 0, headers: str = "") -> Raw:
        """Send a request without its last `but` bytes; a gateway that does not want all of it may say so before."""
        self.reader, self.writer = await asyncio.open_connection(self._where.hostname, self._where.port)
        head = f"POST {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {self._token}\r\n{headers}"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode())
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(body) - but, 2**18):
                self.writer.write(body[at : min(at + 2**18, len(body) - but)])
                await self.writer.drain()
        return self

    async def status(self) -> int:
        """Return the answer's status, 0 when there is none."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            return int((await self.reader.readuntil(b"\r\n")).split(b" ")[1])
        return 0

    def close(self) -> None:
        """Hang up."""
        self.writer.transport.abort()


def chat_body(model: str, *, stream: bool = False) -> bytes:
    """Return a small request."""
    return json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}).encode()


def resident_mebibytes(pid: int, what: str = "VmRSS") -> float:
    """Return the memory that a process holds, or (`VmHWM`) has held at most."""
    return int(Path(f"/proc/{pid}/status").read_text().split(f"{what}:")[1].split()[0]) / 1024


class Attacks:
    """Everything at once, again and again."""

    def __init__(self, url: str, token: str, probe: str, operator: str) -> None:
        self._url, self._token, self._probe, self._operator = url, token, probe, operator
        self._open: list[Raw] = []
        self.statuses: Counter[int] = Counter()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Attack until the end of the block."""
        chats = [lambda body=body: self._costly(body) for body in bodies("good").values()]
        inputs = embedding_bodies("handbook").values()
        vectors = [lambda body=body: self._costly(body, "/v1/embeddings") for body in inputs]
        unread = [lambda: self._unread("huge", stream=False), lambda: self._unread("endless", stream=True)]
        others = [*[self._one_byte_early] * 5, *unread * 2, self._read_without_end, self._tiers, self._lists]
        tasks = [asyncio.create_task(self._repeated(attack)) for attack in (*chats, *vectors, *others)]
        try:
            yield
        finally:
            for raw in self._open:
                raw.close()
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(found, asyncio.CancelledError) for found in ended), ended

    async def _repeated(self, attack: Callable[[], Awaitable[None]]) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await attack()
            await asyncio.sleep(0.01)

    async def _costly(self, body: bytes, path: str = "/v1/chat/completions") -> None:
        """Have a large body looked at."""
        raw = await Raw(self._url, self._token).send(body, path=path)
        self.statuses[await raw.status()] += 1
        raw.close()

    async def _one_byte_early(self) -> None:
        """Have large bodies waited for."""
        await self._left_open([await Raw(self._url, self._token).send(LARGE, but=1) for _ in range(8)])

    async def _unread(self, model: str, *, stream: bool) -> None:
        """Have large answers kept."""
        body = chat_body(model, stream=stream)
        await self._left_open([await Raw(self._url, self._token).send(body) for _ in range(6)])

    async def _left_open(self, raws: list[Raw]) -> None:
        self._open += raws
        await asyncio.sleep(1)
        for raw in raws[: len(raws) // 2]:
            raw.close()

    async def _read_without_end(self) -> None:
        """Read a stream that does not end as fast as it comes."""
        raw = await Raw(self._url, self._token).send(chat_body("endless", stream=True))
        while await raw.reader.read(2**18):
            pass
        raw.close()

    async def _tiers(self) -> None:
        """Have a large value kept in a cache's key."""
        self.statuses[-1] += 1
        tier = str(self.statuses[-1]).encode() + b"x" * MEBIBYTE
        await self._costly(chat_body("good")[:-1] + b',"service_tier":"' + tier + b'"}')

    async def _lists(self) -> None:
        """Have large lists of models read."""
        headers = {"Authorization": f"Bearer {self._operator}"}
        async with aiohttp.ClientSession() as client, client.get(self._probe, headers=headers) as answer:
            assert answer.status == 200
            await answer.read()
