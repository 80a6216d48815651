"""The connections of a process: gateway, Postgres, Redis, Weaviate.

Every one is lazy: it is made when first used, survives the other side's outage, and has time-outs. Nothing fails at
start because a store is down; readiness and health say so instead. Tests hand their own objects to `create_app`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from assistant_api.breaker import Breaker
from assistant_api.config import Settings
from assistant_api.gateway import Gateway, GatewayClient, TokenFile
from assistant_api.tenant_config import TenantConfigHolder
from assistant_crds.naming import VECTOR_COLLECTION
from assistant_http.client import HttpClient
from assistant_http.errors import HttpError

if TYPE_CHECKING:  # imported when first needed: Weaviate's client costs 0.4 s and 36 MiB, Redis' 0.1 s and 8 MiB
    from redis.asyncio import Redis
    from weaviate import WeaviateAsyncClient

CONNECT_TIMEOUT_SECONDS = 3.0
DATABASE_COMMAND_TIMEOUT_SECONDS = 15.0
# Connections of one process at most; the operator's limit of the role follows from it. Those that rest are closed, by
# the server after IDLE_TIMEOUT_SECONDS: a process that has nothing to do keeps the one that its health is asked by.
POOL_SIZE = 4
POOL_TIMEOUT_SECONDS = 10.0
IDLE_TIMEOUT_SECONDS = 30
REDIS_TIMEOUT_SECONDS = 2.0
WEAVIATE_QUERY_TIMEOUT_SECONDS = 10
WEAVIATE_INSERT_TIMEOUT_SECONDS = 60
# What a database that does not answer raises; that the pool is empty says nothing about it.
_UNAVAILABLE_ERRORS = (DBAPIError, OSError)


class Pingable(Protocol):
    """A dependency that health can ask for a sign of life; any exception means that it is down."""

    async def ping(self) -> None:
        """Return when it answered, within a few seconds."""


class Database:
    """The tenant's own Postgres database, as its DML-only role."""

    def __init__(self, dsn: str, pool_size: int = POOL_SIZE) -> None:
        async def connect() -> asyncpg.Connection:
            # The driver reads the DSN itself: SQLAlchemy does not know `sslmode` and `sslrootcert`.
            return await asyncpg.connect(
                dsn,
                timeout=CONNECT_TIMEOUT_SECONDS,
                command_timeout=DATABASE_COMMAND_TIMEOUT_SECONDS,
                server_settings={"idle_session_timeout": f"{IDLE_TIMEOUT_SECONDS}s"},
            )

        self.engine: AsyncEngine = create_async_engine(
            make_url(dsn).set(drivername="postgresql+asyncpg"),
            async_creator=connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_SECONDS,
            pool_use_lifo=True,  # what is needed no more rests long enough to be closed
            pool_recycle=1800,
            hide_parameters=True,  # parameters are documents; they belong in no log line
        )
        event.listen(self.engine.sync_engine, "checkin", _note_idle_since)
        event.listen(self.engine.sync_engine, "checkout", _replace_closed)
        # For whoever holds a connection long, such as for a document's content: others find one.
        self.long = asyncio.Semaphore(max(1, pool_size - 2))
        self.breaker = Breaker("postgres")
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection for single statements that only read: without the two round trips of a transaction."""
        async with self.breaker.asking(away=_UNAVAILABLE_ERRORS), self._reading.connect() as connection:
            yield connection

    @asynccontextmanager
    async def single(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection for statements that change something, each of which is a transaction of its own."""
        async with self.breaker.asking(away=_UNAVAILABLE_ERRORS, given_up=False), self._reading.connect() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction that commits at the end and rolls back on an exception."""
        async with self.breaker.asking(away=_UNAVAILABLE_ERRORS, given_up=False), self.engine.begin() as connection:
            yield connection

    async def ping(self) -> None:
        """Ask the database for a constant."""
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS), self._reading.connect() as connection:
            await connection.execute(text("SELECT 1"))
        self.breaker.succeeded()

    async def close(self) -> None:
        """Close the pool."""
        await self.engine.dispose()


class RedisClient:
    """Redis as the tenant's ACL user, which may run a few commands on keys under the tenant's prefix."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: Redis | None = None

    @property
    def redis(self) -> Redis:
        """The client with its pool; made when first asked for, connected when first used."""
        if self._redis is None:
            self._redis = _redis_client(self._url)
        return self._redis

    async def ping(self) -> None:
        """Send PING."""
        if self._redis is None:  # in a thread, so that streams go on while it is imported
            self._redis = await asyncio.to_thread(_redis_client, self._url)
        async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
            await self.redis.ping()

    async def close(self) -> None:
        """Close the pool."""
        if self._redis is not None:
            await self._redis.aclose()


class VectorStore:
    """Weaviate as the tenant's user; the client is imported and connected when first needed.

    While the server is away the client repeats a search for a minute: put `asyncio.timeout` around each call.
    """

    def __init__(
        self, url: str, grpc: str, api_key: str, collection: Callable[[], str] = lambda: VECTOR_COLLECTION
    ) -> None:
        self.collection = collection
        self._url = url.rstrip("/")
        self._grpc = grpc
        self._api_key = api_key
        self._client: WeaviateAsyncClient | None = None
        self._connecting = asyncio.Lock()
        self.breaker = Breaker("weaviate")

    async def client(self) -> WeaviateAsyncClient:
        """Return the connected client; it reconnects by itself after an outage.

        Raises TimeoutError or a `weaviate.exceptions.WeaviateBaseError` while the server has never been reached.
        """
        if self._client is not None:
            return self._client
        async with self._connecting:
            if self._client is None:
                # In a thread, so that other requests go on meanwhile.
                client = await asyncio.to_thread(_weaviate_client, self._url, self._grpc, self._api_key)
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                        await client.connect()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def ping(self) -> None:
        """Ask for the server's metadata with the tenant's key; needs no Weaviate client."""
        http = HttpClient(
            connect_seconds=CONNECT_TIMEOUT_SECONDS,
            idle_seconds=CONNECT_TIMEOUT_SECONDS,
            quiet_seconds=CONNECT_TIMEOUT_SECONDS,
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                headers = {"authorization": f"Bearer {self._api_key}"}
                response = await http.request("GET", self._url, headers, b"", path="/v1/meta")
                await response.read()
        finally:
            await http.close()
        if response.status != 200:
            raise HttpError(f"answered {response.status}")
        self.breaker.succeeded()

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def _note_idle_since(_connection: Any, record: Any) -> None:
    record.info["rests_since"] = time.monotonic()


def _replace_closed(connection: Any, record: Any, _proxy: Any) -> None:
    """Have the pool replace a connection that Postgres has closed, as in a restart, or is about to close.

    The driver has seen it close, so nothing need be asked: `pool_pre_ping` would take three round trips each time.
    """
    rested = time.monotonic() - record.info.get("rests_since", time.monotonic())
    if connection.driver_connection.is_closed() or rested > IDLE_TIMEOUT_SECONDS * 0.8:
        raise DisconnectionError


def _redis_client(url: str) -> Redis:
    from redis.asyncio import Redis  # noqa: PLC0415  see TYPE_CHECKING above
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import ExponentialWithJitterBackoff  # noqa: PLC0415

    return Redis.from_url(
        url,
        # Nothing that the ACL refuses at connect: no CLIENT SETINFO, no RESP3 maintenance notifications.
        protocol=2,
        driver_info=None,
        socket_timeout=REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.2), 1),
        health_check_interval=30,
        max_connections=20,
    )


def _weaviate_client(url: str, grpc: str, api_key: str) -> WeaviateAsyncClient:
    from weaviate import WeaviateAsyncClient  # noqa: PLC0415  see TYPE_CHECKING above
    from weaviate.classes.init import AdditionalConfig, Auth, Timeout  # noqa: PLC0415
    from weaviate.connect import ConnectionParams  # noqa: PLC0415

    http, remote = urlsplit(url), urlsplit(f"//{grpc}")
    secure = http.scheme == "https"
    parameters = ConnectionParams.from_params(
        http_host=http.hostname or "",
        http_port=http.port or (443 if secure else 80),
        http_secure=secure,
        grpc_host=remote.hostname or "",
        grpc_port=remote.port or (443 if secure else 50051),
        grpc_secure=secure,
    )
    timeout = Timeout(
        init=int(CONNECT_TIMEOUT_SECONDS), query=WEAVIATE_QUERY_TIMEOUT_SECONDS, insert=WEAVIATE_INSERT_TIMEOUT_SECONDS
    )
    return WeaviateAsyncClient(
        connection_params=parameters,
        auth_client_secret=Auth.api_key(api_key),
        additional_config=AdditionalConfig(timeout=timeout),
        skip_init_checks=True,  # they ask the internet for the newest version
    )


@dataclass(frozen=True, slots=True)
class Clients:
    """Everything outside this process that it talks to."""

    gateway: Gateway
    database: Database
    redis: RedisClient
    weaviate: VectorStore

    async def close(self) -> None:
        """Close them all; one that fails does not keep the others open."""
        await asyncio.gather(
            self.gateway.close(),
            self.database.close(),
            self.redis.close(),
            self.weaviate.close(),
            return_exceptions=True,
        )


def connect(settings: Settings, config: TenantConfigHolder) -> Clients:
    """Return the clients of a process; no connection is made yet."""
    return Clients(
        gateway=GatewayClient(
            lambda: config.current.document.gateway_url,
            TokenFile(settings.gateway_token_file),
            lambda: config.current.document.gateway_seconds,
        ),
        database=Database(settings.postgres_dsn.get_secret_value()),
        redis=RedisClient(settings.redis_url.get_secret_value()),
        weaviate=VectorStore(
            settings.weaviate_url,
            settings.weaviate_grpc,
            settings.weaviate_api_key.get_secret_value(),
            lambda: config.current.document.collection,
        ),
    )
