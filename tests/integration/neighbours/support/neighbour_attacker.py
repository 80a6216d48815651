"""A hostile tenant as a process: every attack at once, as fast as it goes, until it is told to stop.

    python neighbour_attacker.py CONFIGURATION.json

Reads `go` and `stop` from standard input; after each `stop` it prints what its attacks saw as one line of JSON. Names
of attacks may follow `go`: all at once get into each other's way, because the tenant's own share is soon used up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

MEBIBYTE = 2**20
IDLE_STREAMS = 1000
STOP_SECONDS = 20
PAUSE = 0.005  # after a refusal: the attacker's own processor is not what is attacked


@dataclass
class Attacker:
    """What a tenant has: the token of its pods, its API key, and its credentials for the stores."""

    gateway_url: str
    token: str
    api_url: str
    api_key: str
    redis_url: str
    postgres_dsn: str
    assistants: list[str]  # answered by the platform's provider
    own: dict[str, str]  # behaviour of its own server -> assistant
    poor: str  # an assistant whose limit is used up
    knowledge_base: str
    seen: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    client: aiohttp.ClientSession = field(init=False)
    number: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return a body that is made once: to make it again and again would be work for the attacker only."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def body(self, model: str, content: object = "Hi", **more: object) -> bytes:
        """Return a chat request."""
        return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **more}).encode()

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request to the gateway."""
        return {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}

    async def ask(self, attack: str, body: bytes, path: str = "chat/completions") -> None:
        """Send one request to the gateway and read the answer."""
        async with self.client.post(f"{self.gateway_url}/v1/{path}", data=body, headers=self.headers) as answer:
            async for _ in answer.content.iter_chunked(MEBIBYTE):
                pass
            self.seen[attack][str(answer.status)] += 1
        if answer.status >= 400:
            await asyncio.sleep(PAUSE)

    async def half_a_request(self, attack: str, body: bytes, sent: int, patience: float) -> None:
        """Send a request to the gateway up to its byte `sent`; then neither write nor read for a while."""
        address = urlsplit(self.gateway_url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024)
        try:
            lines = [f"{name}: {value}" for name, value in self.headers.items()]
            head = "\r\n".join(
                ["POST /v1/chat/completions HTTP/1.1", "Host: gateway", *lines, f"Content-Length: {len(body)}"]
            )
            writer.write(head.encode() + b"\r\n\r\n" + body[:sent])
            self.seen[attack]["opened"] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await writer.drain()
                    if sent == len(body):
                        await asyncio.Event().wait()
                    head_of_answer = await reader.readline()
                    self.seen[attack][head_of_answer.decode().partition(" ")[2][:3] or "closed"] += 1
        finally:
            writer.close()
        await asyncio.sleep(PAUSE)


Attack = Callable[[Attacker, str], Awaitable[None]]


async def many_scopes(attacker: Attacker, name: str) -> None:
    """One assistant after the other."""
    attacker.number += 1
    await attacker.ask(name, attacker.body(attacker.assistants[attacker.number % len(attacker.assistants)]))


async def large_bodies(attacker: Attacker, name: str) -> None:
    """Bodies just below what the gateway takes, of many small parts."""
    content = [{"type": "text", "text": "x"}] * 60_000
    await attacker.ask(name, attacker.once(name, lambda: attacker.body(attacker.assistants[0], content, max_tokens=10)))


async def wide_text(attacker: Attacker, name: str) -> None:
    """Text of which each character may be many tokens."""
    await attacker.ask(name, attacker.once(name, lambda: attacker.body(attacker.assistants[0], "\ufdfa" * 500_000)))


async def slow_bodies(attacker: Attacker, name: str) -> None:
    """All of a large body but its last byte."""
    body = attacker.once(name, lambda: attacker.body(attacker.assistants[0], "x" * (9 * MEBIBYTE)))
    await attacker.half_a_request(name, body, len(body) - 1, 20)


async def slow_readers(attacker: Attacker, name: str) -> None:
    """A large answer that nobody reads."""
    body = attacker.body(attacker.own["big-answer"])
    await attacker.half_a_request(name, body, len(body), 20)


async def endless_streams(attacker: Attacker, name: str) -> None:
    """A stream of the tenant's own server that does not end."""
    await attacker.ask(name, attacker.body(attacker.own["endless"], stream=True))


async def nested_usage(attacker: Attacker, name: str) -> None:
    """An answer whose usage is nested deeply."""
    await attacker.ask(name, attacker.body(attacker.own["nested-usage"]))


async def nested_bodies(attacker: Attacker, name: str) -> None:
    """A request that is nested deeply."""
    deep = b"[" * 5000 + b"]" * 5000
    model = attacker.assistants[0].encode()
    await attacker.ask(name, b'{"model":"' + model + b'","messages":[{"role":"user","content":' + deep + b"}]}")


async def tiers(attacker: Attacker, name: str) -> None:
    """A service tier that is a megabyte long and new each time."""
    attacker.number += 1
    tier = f"{attacker.number}{'x' * MEBIBYTE}"
    await attacker.ask(name, attacker.body(attacker.assistants[0], service_tier=tier))


async def refused_calls(attacker: Attacker, name: str) -> None:
    """Calls that no limit lets through, each of which has to be counted."""
    await attacker.ask(name, attacker.once(name, lambda: attacker.body(attacker.poor, "word " * 400_000)))


async def embeddings(attacker: Attacker, name: str) -> None:
    """Embeddings without an end."""
    body = json.dumps({"model": attacker.knowledge_base, "input": ["text"]}).encode()
    await attacker.ask(name, body, "embeddings")


async def idle_streams(attacker: Attacker, name: str) -> None:
    """Many streams in which nothing happens."""
    body = attacker.body(attacker.own["silent"], stream=True)
    url = f"{attacker.gateway_url}/v1/chat/completions"
    async with attacker.client.post(url, data=body, headers=attacker.headers) as answer:
        attacker.seen[name][str(answer.status)] += 1
        await answer.read()
    await asyncio.sleep(0.5)


async def uploads(attacker: Attacker, name: str) -> None:
    """Large documents, one after the other, to the tenant's own API."""
    attacker.number += 1
    text = b"upload %d " % attacker.number + attacker.once(name, lambda: b"some words of a long text. " * 400_000)
    form = aiohttp.FormData()
    form.add_field("file", text, filename=f"large-{attacker.number % 5}.txt", content_type="text/plain")
    headers = {"Authorization": f"Bearer {attacker.api_key}"}
    url = f"{attacker.api_url}/api/v1/knowledge-bases/{attacker.knowledge_base}/documents"
    async with attacker.client.post(url, data=form, headers=headers) as answer:
        await answer.read()
        attacker.seen[name][str(answer.status)] += 1
    await asyncio.sleep(PAUSE)


async def redis_writes(attacker: Attacker, name: str) -> None:
    """Large values under the tenant's own prefix, without an end."""
    prefix = urlsplit(attacker.redis_url).username or ""
    async with Redis.from_url(attacker.redis_url, protocol=2, driver_info=None) as redis:
        for number in range(10_000):
            try:
                await redis.set(f"{prefix}:{number}", b"x" * MEBIBYTE)
                attacker.seen[name]["written"] += 1
            except RedisError as error:
                attacker.seen[name][type(error).__name__] += 1
                await asyncio.sleep(PAUSE)


async def postgres_connections(attacker: Attacker, name: str) -> None:
    """As many connections as are let in, kept."""
    connections = []
    try:
        for _ in range(300):
            connections.append(await asyncpg.connect(attacker.postgres_dsn, timeout=10))
            attacker.seen[name]["opened"] += 1
        await asyncio.sleep(3600)
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        attacker.seen[name][type(error).__name__] += 1
        await asyncio.sleep(2)
    finally:
        for connection in connections:
            connection.terminate()


async def _statement(attacker: Attacker, name: str, *statements: str) -> None:
    try:
        connection = await asyncpg.connect(attacker.postgres_dsn, timeout=10)
        try:
            for statement in statements:
                await connection.execute(statement, timeout=60)
                attacker.seen[name]["done"] += 1
        finally:
            connection.terminate()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        attacker.seen[name][type(error).__name__] += 1
        await asyncio.sleep(0.1)


async def postgres_locks(attacker: Attacker, name: str) -> None:
    """A lock on each of the tenant's own tables, held."""
    await _statement(attacker, name, "BEGIN", "LOCK TABLE documents IN ACCESS EXCLUSIVE MODE", "SELECT pg_sleep(30)")


async def advisory_locks(attacker: Attacker, name: str) -> None:
    """Advisory locks, those that migrations take among them, held."""
    statement = "SELECT count(pg_advisory_lock(number)) FROM generate_series(0, 5000) AS number"
    await _statement(attacker, name, statement, "SELECT pg_sleep(30)")


async def postgres_work(attacker: Attacker, name: str) -> None:
    """Large sorts, in memory and on disk."""
    sort = "SELECT count(*) FROM (SELECT md5(i::text) AS x FROM generate_series(1, 5000000) AS i ORDER BY x) AS sorted"
    await _statement(attacker, name, "SET work_mem = '512MB'", sort)


async def rows(attacker: Attacker, name: str) -> None:
    """Rows with long names in the tenant's own tables, which the operator counts."""
    columns = "id, knowledge_base, name, media_type, bytes, sha256, status"
    values = "gen_random_uuid(), gen_random_uuid() || repeat('x', 150000), 'n' || i, 'text/plain', 1, 'x', 'ready'"
    select = f"SELECT {values} FROM generate_series(1, 500) AS i"
    await _statement(attacker, name, f"INSERT INTO documents ({columns}) {select}")
    await asyncio.sleep(0.5)


ATTACKS: dict[Attack, int] = {  # and how many of each at once
    many_scopes: 8,
    large_bodies: 2,
    wide_text: 2,
    slow_bodies: 40,
    slow_readers: 12,
    endless_streams: 3,
    nested_usage: 2,
    nested_bodies: 2,
    tiers: 2,
    refused_calls: 4,
    embeddings: 8,
    idle_streams: IDLE_STREAMS,
    uploads: 2,
    redis_writes: 2,
    postgres_connections: 1,
    postgres_locks: 2,
    advisory_locks: 1,
    postgres_work: 2,
    rows: 1,
}


CALLS = ("many_scopes", "large_bodies", "wide_text", "tiers", "nested_bodies", "refused_calls", "embeddings")
ANSWERS = ("slow_readers", "endless_streams", "idle_streams", "nested_usage", "slow_bodies")
GROUPS = (  # what one window after another is attacked with; an empty one is everything
    (),
    CALLS,
    ANSWERS,
    ("uploads", "redis_writes", "postgres_connections", "postgres_locks", "advisory_locks", "postgres_work", "rows"),
    ("many_scopes", "idle_streams", "uploads", "rows", "postgres_locks", "refused_calls"),
)


async def again_and_again(attack: Attack, attacker: Attacker) -> None:
    """Repeat an attack whatever becomes of it."""
    while True:
        attacker.seen[attack.__name__]["tried"] += 1
        try:
            await attack(attacker, attack.__name__)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            attacker.seen[attack.__name__][type(error).__name__] += 1
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def attacking(attacker: Attacker, chosen: list[str]) -> Any:
    """Run the attacks."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as client:
        attacker.client = client
        tasks = [
            asyncio.create_task(again_and_again(attack, attacker), name=attack.__name__)
            for attack, count in ATTACKS.items()
            if not chosen or attack.__name__ in chosen
            for _ in range(count)
        ]
        try:
            yield
        finally:
            until = asyncio.get_running_loop().time() + STOP_SECONDS
            while left := [task for task in tasks if not task.done()]:
                for task in left:  # again and again: until Python 3.12 `wait_for`, which redis-py uses, may lose one
                    task.cancel()
                await asyncio.wait(left, timeout=1)
                if asyncio.get_running_loop().time() > until:
                    break
    for task in tasks:
        if not task.done():
            attacker.seen["late to stop"][task.get_name()] += 1
        elif not task.cancelled() and (error := task.exception()):
            attacker.seen["broken attacks"][repr(error)[:200]] += 1


async def main(configuration: dict[str, Any]) -> None:
    """Obey."""
    attacker = Attacker(**configuration)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while (line := (await lines.readline()).decode().split()) and line[0] == "go":
        async with attacking(attacker, line[1:]):
            if (await lines.readline()).strip() != b"stop":
                return
        print(json.dumps(attacker.seen), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
