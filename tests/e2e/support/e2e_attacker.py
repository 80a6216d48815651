"""What a hostile tenant does from a pod of its own: run there with `python -c`, prints what it saw as JSON.

Arguments: the configuration as JSON, and for how many seconds. Uses what the image of the tenant API holds.
"""

import asyncio
import collections
import contextlib
import json
import os
import sys
from urllib.parse import urlsplit

import asyncpg
import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

MEBIBYTE = 2**20
REFUSALS = (httpx.HTTPError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError, OSError, TimeoutError)
SEEN: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)


class Attacker:
    """A tenant's token and its credentials for the stores."""

    def __init__(self, gateway: str, token: str, assistants: list[str], slow: str, base: str, stores: dict) -> None:
        self.gateway, self.token, self.assistants, self.slow, self.base = gateway, token, assistants, slow, base
        self.stores = stores
        self.number = 0
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(timeout=60, limits=limits, trust_env=False)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def body(self, content: object = "Hi", model: str = "", **more: object) -> bytes:
        chosen = model or self.assistants[self.number % len(self.assistants)]
        return json.dumps({"model": chosen, "messages": [{"role": "user", "content": content}], **more}).encode()

    async def ask(self, name: str, body: bytes, path: str = "chat/completions") -> None:
        self.number += 1
        answer = await self.client.post(f"{self.gateway}/v1/{path}", content=body, headers=self.headers)
        SEEN[name][answer.status_code] += 1

    async def many_scopes(self) -> None:
        await self.ask("many_scopes", self.body(max_tokens=1))

    async def large_bodies(self) -> None:
        await self.ask("large_bodies", self.body([{"type": "text", "text": "x"}] * 150_000, max_tokens=1))

    async def nested_bodies(self) -> None:
        deep = b"[" * 5000 + b"]" * 5000
        model = self.assistants[0].encode()
        await self.ask(
            "nested_bodies", b'{"model":"' + model + b'","messages":[{"role":"user","content":' + deep + b"}]}"
        )

    async def tiers(self) -> None:
        await self.ask("tiers", self.body(service_tier=f"{self.number}{'x' * MEBIBYTE}", max_tokens=1))

    async def refused_calls(self) -> None:
        await self.ask("refused_calls", self.body("word " * 100_000, model="nobody"))

    async def embeddings(self) -> None:
        await self.ask("embeddings", json.dumps({"model": self.base, "input": ["text"]}).encode(), "embeddings")

    async def idle_streams(self) -> None:
        body = self.body("Tell me a long story.", model=self.slow, stream=True)
        url = f"{self.gateway}/v1/chat/completions"
        async with self.client.stream("POST", url, content=body, headers=self.headers) as answer:
            SEEN["idle_streams"][answer.status_code] += 1
            async for _ in answer.aiter_raw():
                await asyncio.sleep(30)  # hardly reads
        await asyncio.sleep(0.5)

    async def slow_bodies(self) -> None:
        address = urlsplit(self.gateway)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            body = self.body("x" * (9 * MEBIBYTE))
            lines = [f"{name}: {value}" for name, value in self.headers.items()]
            head = ["POST /v1/chat/completions HTTP/1.1", "Host: gateway", *lines, f"Content-Length: {len(body)}"]
            writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body[:-1])
            SEEN["slow_bodies"]["opened"] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(15):
                    await writer.drain()
                    SEEN["slow_bodies"][(await reader.readline()).decode()[9:12]] += 1
        finally:
            writer.close()

    async def redis_writes(self) -> None:
        url = self.stores["redis_url"]
        async with Redis.from_url(url, protocol=2, driver_info=None, socket_timeout=10) as redis:
            for number in range(1000):
                await redis.set(f"{urlsplit(url).username}:{number}", b"x" * MEBIBYTE)
                SEEN["redis_writes"]["written"] += 1

    async def postgres_connections(self) -> None:
        kept = []
        try:
            for _ in range(200):
                kept.append(await asyncpg.connect(self.stores["postgres_dsn"], timeout=10))
                SEEN["postgres_connections"]["opened"] += 1
        except (asyncpg.PostgresError, OSError, TimeoutError) as error:
            SEEN["postgres_connections"][type(error).__name__] += 1
        try:
            await asyncio.sleep(3)
        finally:
            for connection in kept:
                connection.terminate()

    async def statement(self, name: str, *statements: str) -> None:
        connection = await asyncpg.connect(self.stores["postgres_dsn"], timeout=10)
        try:
            for statement in statements:
                await connection.execute(statement, timeout=30)
                SEEN[name]["done"] += 1
        finally:
            connection.terminate()

    async def postgres_locks(self) -> None:
        lock = "LOCK TABLE documents IN ACCESS EXCLUSIVE MODE"
        await self.statement("postgres_locks", "BEGIN", lock, "SELECT pg_sleep(20)")

    async def advisory_locks(self) -> None:
        lock = "SELECT count(pg_advisory_lock(number)) FROM generate_series(0, 2000) AS number"
        await self.statement("advisory_locks", lock, "SELECT pg_sleep(20)")

    async def rows(self) -> None:
        columns = "id, knowledge_base, name, media_type, bytes, sha256, status"
        values = "gen_random_uuid(), gen_random_uuid() || repeat('x', 150000), 'n' || i, 'text/plain', 1, 'x', 'ready'"
        insert = f"INSERT INTO documents ({columns}) SELECT {values} FROM generate_series(1, 100) AS i"
        await self.statement("rows", insert)
        await asyncio.sleep(1)


END_SECONDS = 3.0
COUNTS = {
    "many_scopes": 3,
    "large_bodies": 2,
    "nested_bodies": 2,
    "tiers": 2,
    "refused_calls": 2,
    "embeddings": 3,
    "idle_streams": 100,
    "slow_bodies": 20,
    "redis_writes": 1,
    "postgres_connections": 1,
    "postgres_locks": 2,
    "advisory_locks": 1,
    "rows": 2,
}


async def again_and_again(attacker: Attacker, name: str) -> None:
    while True:
        try:
            await getattr(attacker, name)()
        except REFUSALS as error:
            SEEN[name][type(error).__name__] += 1
            await asyncio.sleep(0.1)


async def main(configuration: dict, seconds: float) -> None:
    attacker = Attacker(**configuration)
    tasks = [
        asyncio.create_task(again_and_again(attacker, name)) for name, count in COUNTS.items() for _ in range(count)
    ]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=END_SECONDS)  # wait_for of Python 3.11 can lose a cancellation
    print(json.dumps(SEEN), flush=True)
    os._exit(0)  # nothing that is still open is waited for


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(main(json.loads(sys.argv[1]), float(sys.argv[2])))
