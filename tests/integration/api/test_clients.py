"""The stores' clients survive what stores do: they go away, come back, hang."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.breaker import StoreUnavailableError
from assistant_api.clients import Database, RedisClient, VectorStore
from assistant_cluster import stores


async def test_a_restarted_database_fails_no_request() -> None:
    """Connections that the server closed are replaced before they are used."""
    with stores.postgres() as postgres:
        database = Database(postgres.dsn, pool_size=3)
        await asyncio.gather(*(database.ping() for _ in range(3)))
        postgres.server.stop()
        postgres.server.start()
        await asyncio.sleep(0.1)  # let the driver see that the sockets are closed
        for _ in range(4):
            async with database.transaction() as connection:
                assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
        await database.close()


async def test_a_read_opens_no_transaction(postgres: stores.Postgres) -> None:
    """Each statement is its own: the time of the transaction, which `now()` is, moves on."""
    database = Database(postgres.dsn)

    async def times(connection: AsyncConnection) -> set[datetime]:
        return {(await connection.execute(text("SELECT now()"))).scalar_one() for _ in range(3)}

    async with database.reading() as connection:
        assert len(await times(connection)) == 3
    async with database.transaction() as connection:
        assert len(await times(connection)) == 1
    async with database.reading() as connection:
        assert len(await times(connection)) == 3
    await database.close()


@pytest.mark.parametrize("kind", ["postgres", "redis"])
async def test_a_store_that_hangs_is_given_up(kind: str) -> None:
    """Within the time-out, whatever the server's kernel still accepts; and it is well again afterwards."""
    with getattr(stores, kind)() as store:
        client = Database(store.dsn) if kind == "postgres" else RedisClient(store.gateway_url)
        store.server.pause()
        started = time.monotonic()
        with pytest.raises(Exception, match=r"(?i)time|^$"):
            await client.ping()
        assert time.monotonic() - started < 6
        store.server.resume()
        await client.ping()
        await client.close()


async def test_a_store_that_is_not_there_fails_at_once() -> None:
    """Nothing is connected before it is asked for, so making the clients cannot fail."""
    absent = [
        Database("postgresql://nobody:pw@127.0.0.1:1/none"),
        RedisClient("redis://nobody:pw@127.0.0.1:1"),
        VectorStore("http://127.0.0.1:1", "127.0.0.1:2", "key"),
    ]
    started = time.monotonic()
    for client in absent:
        with pytest.raises(Exception, match=r"(?i)connect"):
            await client.ping()
        await client.close()
    assert time.monotonic() - started < 3


async def test_the_vector_store_is_connected_when_it_is_there() -> None:
    """A first failure is not kept: the next question connects; a wrong key is refused."""
    with stores.weaviate() as weaviate:
        store = VectorStore(weaviate.url, weaviate.grpc, weaviate.api_key)
        weaviate.server.stop()
        with pytest.raises(Exception, match=r"(?i)connect"):
            await store.client()
        weaviate.server.start()
        client = await store.client()
        assert await client.is_ready()
        assert await store.client() is client
        await store.ping()
        await store.close()
        stranger = VectorStore(weaviate.url, weaviate.grpc, "wrong")
        with pytest.raises(Exception, match="401"):
            await stranger.ping()


async def test_nobody_waits_again_for_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call waits, the next are refused before anything is asked; when it is back, it is found by itself."""
    monkeypatch.setattr("assistant_api.breaker.OPEN_SECONDS", (0.2, 0.2))
    with stores.postgres() as store:
        database = Database(store.dsn)
        await database.ping()

        async def read() -> None:
            async with asyncio.timeout(3), database.reading() as connection:
                await connection.execute(text("SELECT 1"))

        store.server.pause()
        with pytest.raises(TimeoutError):
            await read()
        for _ in range(100):
            with pytest.raises(StoreUnavailableError):
                await read()
        store.server.resume()
        await asyncio.sleep(0.3)
        await read()
        await database.close()
