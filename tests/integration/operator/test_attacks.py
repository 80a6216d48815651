"""What a tenant may try on the stores that it shares, with the very credentials that the operator makes for it.

One of them has a hundred knowledge bases; TEST_LONG=1 gives it three hundred.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
import weaviate
from redis.asyncio import Redis as RedisClient
from redis.exceptions import NoPermissionError
from weaviate.classes.data import DataObject
from weaviate.classes.init import Auth
from weaviate.exceptions import WeaviateBaseError

from assistant_cluster import stores
from assistant_crds import naming
from assistant_operator.adapters.migrations import Migrations
from assistant_operator.adapters.postgres import Database, Postgres
from assistant_operator.adapters.redis import Redis
from assistant_operator.adapters.weaviate import COLLECTION, Weaviate
from assistant_operator.errors import StoreUnreachableError

MIGRATIONS = Path(__file__).parents[3] / "api" / "assistant_api" / "database" / "migrations"
# Two and more portions of `assistant_operator.adapters.weaviate.PORTION`.
BASES = 300 if os.environ.get("TEST_LONG") == "1" else 110
REFUSED = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedObjectError,
)


@dataclass
class Tenant:
    """A tenant with its names and passwords."""

    key: str
    password: str
    vector_key: str = ""

    @property
    def base(self) -> str:
        return naming.knowledge_base_key(self.key, "base")


def new() -> Tenant:
    return Tenant(naming.tenant_key(str(uuid4())), secrets.token_hex(16))


async def databases(server: stores.Postgres) -> tuple[Tenant, Tenant]:
    tenants = new(), new()
    operator = Postgres(server.dsn, Migrations(MIGRATIONS), lambda: None)
    for tenant in tenants:
        await operator.ensure(Database(tenant.key, tenant.password, 12))
    return tenants


@contextlib.asynccontextmanager
async def login(server: stores.Postgres, tenant: Tenant) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        host=stores.HOST,
        port=server.port,
        user=naming.login_role(tenant.key),
        password=tenant.password,
        database=naming.database(tenant.key),
    )
    try:
        yield connection
    finally:
        connection.terminate()


async def test_a_tenants_database_role_reaches_nothing_else(postgres: stores.Postgres) -> None:
    """Other databases and roles, the server's files and programs, large objects, advisory locks, new objects: none."""
    mine, other = await databases(postgres)
    statements = [
        f'SET ROLE "{naming.login_role(other.key)}"',
        f'SET ROLE "{naming.owner_role(mine.key)}"',
        f"SET ROLE {naming.POSTGRES_OPERATOR_ROLE}",
        f'SET SESSION AUTHORIZATION "{naming.login_role(other.key)}"',
        f'GRANT "{naming.owner_role(mine.key)}" TO CURRENT_USER',
        f'GRANT "{naming.login_role(other.key)}" TO CURRENT_USER',
        f"ALTER ROLE \"{naming.login_role(other.key)}\" PASSWORD 'x'",
        "ALTER ROLE CURRENT_USER CREATEDB",
        "ALTER ROLE CURRENT_USER CONNECTION LIMIT 1000",
        f'ALTER DATABASE "{mine.key}" CONNECTION LIMIT 1000',
        f'DROP DATABASE "{other.key}"',
        "CREATE DATABASE mine",
        "CREATE SCHEMA mine",
        "CREATE TABLE mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DO LANGUAGE plpython3u 'pass'",
        "CREATE EXTENSION dblink",
        "CREATE EXTENSION postgres_fdw",
        "SELECT dblink_connect('x')",
        "CREATE PUBLICATION mine FOR ALL TABLES",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_read_binary_file('PG_VERSION')",
        "SELECT pg_ls_dir('.')",
        "SELECT pg_stat_file('PG_VERSION')",
        "COPY documents FROM '/etc/passwd'",
        "COPY documents TO '/tmp/x'",
        "COPY documents FROM PROGRAM 'id'",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_get(1)",
        "SELECT lo_put(1, 0, 'x')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_xact_lock(n) FROM generate_series(1, 10) n",
        "SELECT pg_try_advisory_lock_shared(1)",
        "SELECT * FROM pg_stat_database",
        "SELECT * FROM pg_authid",
        f"SELECT pg_database_size('{other.key}')",
        "SELECT pg_reload_conf()",
        "ALTER SYSTEM SET work_mem = '1GB'",
        "SET temp_file_limit = -1",
        "SELECT pg_create_physical_replication_slot('x')",
        "SELECT pg_switch_wal()",
        "CREATE TABLESPACE mine LOCATION '/tmp'",
        "SELECT * FROM alembic_version",
    ]
    async with login(postgres, mine) as connection:
        for statement in statements:
            with pytest.raises(REFUSED):
                await connection.execute(statement)
        assert await connection.fetchval("SELECT count(*) FROM documents") == 0
        seen = await connection.fetch(
            "SELECT usename FROM pg_stat_activity WHERE query IS NOT NULL AND query LIKE '%x%'"
        )
        assert {row[0] for row in seen} <= {naming.login_role(mine.key)}
    for database in (other.key, "postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(
                host=stores.HOST,
                port=postgres.port,
                user=naming.login_role(mine.key),
                password=mine.password,
                database=database,
            )


async def test_a_tenant_takes_only_its_own_connections(postgres: stores.Postgres) -> None:
    """A tenant that opens all it can is refused at its limit, and another one logs in as before."""
    mine, other = await databases(postgres)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(12):
            await stack.enter_async_context(login(postgres, mine))
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await stack.enter_async_context(login(postgres, mine))
        async with login(postgres, other) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_one_statement_takes_no_more_memory_than_its_session_may(postgres: stores.Postgres) -> None:
    """A statement that asks for much memory fails by itself: the server and everybody else's sessions go on."""
    mine, other = await databases(postgres)
    async with login(postgres, mine) as greedy, login(postgres, other) as honest:
        await greedy.execute("SET work_mem = '2GB'")
        with pytest.raises(asyncpg.OutOfMemoryError):
            await greedy.fetchval(
                "SELECT count(*) FROM (SELECT n, repeat(n::text, 50) t FROM generate_series(1, 4000000) n ORDER BY t) s"
            )
        assert await honest.fetchval("SELECT 1") == 1
        assert await greedy.fetchval("SELECT 1") == 1


async def test_a_tenants_redis_user_may_only_ping(redis_store: stores.Redis) -> None:
    """Scripts, sorting, copying, moving, scanning, channels and keys of any name are refused."""
    mine, other = new(), new()
    operator = Redis(redis_store.operator_url, lambda: None)
    for tenant in (mine, other):
        await operator.ensure_user(tenant.key, tenant.password)
    await operator.close()
    key, foreign = f"{naming.redis_prefix(mine.key)}a", f"{naming.redis_prefix(other.key)}a"
    commands: list[list[Any]] = [
        *([name, target] for name in ("GET", "DEL", "DUMP", "TYPE", "INCR", "SORT") for target in (key, foreign)),
        *(["SET", target, "x"] for target in (key, foreign, f"{naming.quota_prefix(mine.key)}a")),
        ["APPEND", key, "x"],
        ["SETRANGE", key, "536870000", "x"],
        ["EVAL", "return redis.call('GET', KEYS[1])", "1", foreign],
        ["EVAL", "while true do end", "0"],
        ["FCALL", "reserve", "0"],
        ["FUNCTION", "LIST"],
        ["SCRIPT", "FLUSH"],
        ["SORT", key, "BY", f"{foreign}*", "GET", f"{foreign}*"],
        ["COPY", foreign, key],
        ["RENAME", foreign, key],
        ["MIGRATE", "127.0.0.1", "1", foreign, "0", "1"],
        ["RESTORE", key, "0", "x"],
        ["SCAN", "0"],
        ["KEYS", "*"],
        ["RANDOMKEY"],
        ["DBSIZE"],
        ["FLUSHALL"],
        ["SWAPDB", "0", "1"],
        ["SELECT", "1"],
        ["MONITOR"],
        ["CONFIG", "GET", "*"],
        ["CLIENT", "LIST"],
        ["CLIENT", "KILL", "TYPE", "normal"],
        ["ACL", "LIST"],
        ["SLAVEOF", "127.0.0.1", "1"],
        ["SHUTDOWN"],
        ["PUBLISH", key, "x"],
        ["SUBSCRIBE", key],
        ["XREAD", "STREAMS", naming.ledger_stream(mine.key), "0"],
        ["BLPOP", key, "0"],
    ]
    client = RedisClient.from_url(f"redis://{mine.key}:{mine.password}@{redis_store.address}/0", driver_info=None)
    try:
        assert await client.ping()
        for command in commands:
            with pytest.raises(NoPermissionError):
                await client.execute_command(*command)
    finally:
        await client.aclose()


@pytest.fixture(scope="module")
def vectors() -> Iterator[stores.Weaviate]:
    """A server of these tests' own: its ports for other nodes are asked too."""
    with stores.weaviate() as server:
        asyncio.run(_first_user(server))
        yield server


async def _first_user(server: stores.Weaviate) -> None:
    """Make a user: the first one takes seconds, on a busy machine longer than an operator waits."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with (
        aiohttp.ClientSession(server.url, headers=headers) as session,
        session.post("/v1/users/db/first") as response,
    ):
        assert response.status == 201


async def vector_tenants(server: stores.Weaviate) -> tuple[Tenant, Tenant]:
    tenants = new(), new()
    operator = Weaviate(server.url, server.grpc, server.api_key, lambda: None)
    try:
        for tenant in tenants:
            tenant.vector_key = await operator.ensure_user(tenant.key, "")
            await operator.ensure_access(tenant.key, [tenant.base])
    finally:
        await operator.close()
    return tenants


@contextlib.asynccontextmanager
async def vector_login(server: stores.Weaviate, key: str) -> AsyncIterator[weaviate.WeaviateAsyncClient]:
    client = weaviate.use_async_with_custom(
        http_host=stores.HOST,
        http_port=server.port,
        http_secure=False,
        grpc_host=stores.HOST,
        grpc_port=server.grpc_port,
        grpc_secure=False,
        auth_credentials=Auth.api_key(key),
        skip_init_checks=True,
    )
    await client.connect()
    try:
        yield client
    finally:
        await client.close()


async def test_a_tenants_vector_user_reaches_only_its_own(vectors: stores.Weaviate) -> None:
    """By gRPC: search, count, read and write of another tenant's vectors are refused, its own are not."""
    mine, other = await vector_tenants(vectors)
    vector = [0.1] * 16
    async with vector_login(vectors, other.vector_key) as client:
        await client.collections.use(COLLECTION).with_tenant(other.base).data.insert({"text": "canary"}, vector=vector)
    async with vector_login(vectors, mine.vector_key) as client:
        collection = client.collections.use(COLLECTION)
        foreign, own = collection.with_tenant(other.base), collection.with_tenant(mine.base)
        with pytest.raises(WeaviateBaseError):
            await foreign.query.near_vector(vector, limit=5)
        with pytest.raises(WeaviateBaseError):
            await foreign.query.bm25("canary")
        with pytest.raises(WeaviateBaseError):
            await foreign.aggregate.over_all(total_count=True)
        with pytest.raises(WeaviateBaseError):
            await foreign.data.insert({"text": "x"}, vector=vector)
        with contextlib.suppress(WeaviateBaseError):
            refused = await foreign.data.insert_many([DataObject({"text": "x"}, vector=vector)])
            assert refused.has_errors
        assert list(await collection.tenants.get()) == [mine.base]
        assert (await own.query.near_vector(vector, limit=5)).objects == []
    async with vector_login(vectors, other.vector_key) as client:
        found = client.collections.use(COLLECTION).with_tenant(other.base)
        assert (await found.aggregate.over_all(total_count=True)).total_count == 1


async def test_a_tenants_vector_user_is_refused_by_http(vectors: stores.Weaviate) -> None:
    """GraphQL, batches, backups, schema, roles, users and other tenants' objects: nothing of it by REST."""
    mine, other = await vector_tenants(vectors)
    item = {"class": COLLECTION, "properties": {"text": "x"}, "vector": [0.1] * 16}
    graphql = f'{{Get{{{COLLECTION}(tenant:"{other.base}"){{text}}}}}}'
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/v1/graphql", {"query": graphql}),
        ("POST", "/v1/graphql/batch", [{"query": graphql}]),
        ("GET", f"/v1/objects?class={COLLECTION}&tenant={other.base}", None),
        ("POST", "/v1/objects", {**item, "tenant": other.base}),
        ("POST", "/v1/batch/objects", {"objects": [{**item, "tenant": mine.base}, {**item, "tenant": other.base}]}),
        ("DELETE", f"/v1/batch/objects?tenant={other.base}", {"match": {"class": COLLECTION, "where": {}}}),
        ("POST", "/v1/backups/filesystem", {"id": "b"}),
        ("POST", "/v1/backups/filesystem/b/restore", {}),
        ("POST", "/v1/schema", {"class": "Mine"}),
        ("DELETE", f"/v1/schema/{COLLECTION}", None),
        ("PUT", f"/v1/schema/{COLLECTION}", {"class": COLLECTION}),
        ("POST", f"/v1/schema/{COLLECTION}/tenants", [{"name": "mine"}]),
        ("DELETE", f"/v1/schema/{COLLECTION}/tenants", [other.base]),
        ("PUT", f"/v1/schema/{COLLECTION}/tenants", [{"name": other.base, "activityStatus": "COLD"}]),
        ("POST", "/v1/authz/roles", {"name": "mine", "permissions": []}),
        ("DELETE", f"/v1/authz/roles/{other.key}", None),
        ("POST", f"/v1/authz/users/{mine.key}/assign", {"roles": [other.key]}),
        ("POST", "/v1/users/db/mine", None),
        ("POST", f"/v1/users/db/{other.key}/rotate-key", None),
        ("GET", "/v1/cluster/statistics", None),
    ]
    headers = {"Authorization": f"Bearer {mine.vector_key}"}
    async with aiohttp.ClientSession(vectors.url, headers=headers) as session:
        for method, path, body in requests:
            async with session.request(method, path, json=body) as response:
                text = await response.text()
                assert response.status in {400, 401, 403, 404, 405, 422} or (
                    response.status == 200 and ("forbidden" in text.lower() or "FAILED" in text)
                ), (method, path, response.status, text)
                assert "canary" not in text
    async with vector_login(vectors, other.vector_key) as client:
        found = client.collections.use(COLLECTION).with_tenant(other.base)
        assert (await found.aggregate.over_all(total_count=True)).total_count == 0


async def test_the_interface_for_other_nodes_asks_for_a_password(vectors: stores.Weaviate) -> None:
    """Whoever reaches Weaviate's port for other nodes gets nothing without the cluster's own credentials."""
    port = vectors.server.environment["CLUSTER_DATA_BIND_PORT"]
    asked = [("GET", "/nodes/status"), ("POST", f"/indices/{COLLECTION}/shards/x/objects/_search")]
    async with aiohttp.ClientSession(f"http://{stores.HOST}:{port}") as session:
        for method, path in asked:
            async with session.request(method, path) as response:
                assert response.status == 401, path


@pytest.mark.timeout(400)
async def test_hundreds_of_knowledge_bases_are_made_and_counted(vectors: stores.Weaviate) -> None:
    """Hundreds of knowledge bases of one tenant get what they need, and a second look writes nothing."""
    tenant, written = new(), list[None]()
    operator = Weaviate(vectors.url, vectors.grpc, vectors.api_key, lambda: written.append(None))
    keys = [naming.knowledge_base_key(tenant.key, str(number)) for number in range(BASES)]
    try:
        tenant.vector_key = await operator.ensure_user(tenant.key, "")
        for _ in range(10):  # on a busy machine a portion may take too long: what was granted stays, and a run goes on
            with contextlib.suppress(StoreUnreachableError):
                await operator.ensure_access(tenant.key, keys)
                break
        written.clear()
        assert not await operator.ensure_access(tenant.key, keys)
        assert written == []
        async with vector_login(vectors, tenant.vector_key) as client:
            last = client.collections.use(COLLECTION).with_tenant(keys[-1])
            await last.data.insert({"text": "x"}, vector=[0.1] * 16)
        assert await operator.vectors(keys[-1]) == 1
    finally:
        await operator.close()
