"""The stores of the integration tests, and so the scripts that start the embedded stores in a pod."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio
import redis.exceptions
import weaviate
import weaviate.auth
import weaviate.classes
import weaviate.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from assistant_cluster import stores
from assistant_cluster.errors import ClusterError


def connect(store: stores.Weaviate, key: str | None) -> weaviate.WeaviateClient:
    return weaviate.connect_to_custom(
        http_host=stores.HOST,
        http_port=store.port,
        http_secure=False,
        grpc_host=stores.HOST,
        grpc_port=store.grpc_port,
        grpc_secure=False,
        auth_credentials=weaviate.auth.AuthApiKey(key) if key else None,
    )


async def test_the_operator_makes_databases_for_others_without_being_superuser(postgres: stores.Postgres) -> None:
    """The operator's role makes roles and a database that another role owns, and has no superuser's rights."""
    connection = await asyncpg.connect(postgres.dsn)
    try:
        query = "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        assert await connection.fetch(query) == [(False, True, True)]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT pg_read_file('/etc/passwd')")
        await connection.execute("CREATE ROLE fixture_owner NOLOGIN")
        await connection.execute("GRANT fixture_owner TO assistant_operator")
        await connection.execute("CREATE DATABASE fixture_database OWNER fixture_owner")
    finally:
        await connection.execute("DROP DATABASE IF EXISTS fixture_database")
        await connection.execute("DROP ROLE IF EXISTS fixture_owner")
        await connection.close()


async def test_a_new_role_reaches_nothing_it_was_not_given(postgres: stores.Postgres) -> None:
    """Anybody may connect to `postgres` and `template1` of a default installation, but not here."""
    operator = await asyncpg.connect(postgres.dsn)
    try:
        await operator.execute("CREATE ROLE fixture_stranger LOGIN PASSWORD 'fixture'")
        for database in ("postgres", "template1"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(f"postgresql://fixture_stranger:fixture@{postgres.address}/{database}")
    finally:
        await operator.execute("DROP ROLE fixture_stranger")
        await operator.close()


async def test_figures_about_other_databases_are_closed_in_every_new_database(postgres: stores.Postgres) -> None:
    """Neither the view with all databases' activity nor the functions behind it answer in a tenant's database."""
    operator = await asyncpg.connect(postgres.dsn)
    try:
        await operator.execute("CREATE DATABASE fixture_closed")
        inside = await asyncpg.connect(postgres.dsn.removesuffix("postgres") + "fixture_closed")
        try:
            for query in ("SELECT * FROM pg_stat_database", "SELECT pg_stat_get_db_xact_commit(1)"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await inside.fetch(query)
        finally:
            await inside.close()
    finally:
        await operator.execute("DROP DATABASE fixture_closed")
        await operator.close()


async def test_postgres_keeps_its_data_over_a_crash_and_takes_a_changed_password() -> None:
    """A killed server starts again on its volume, and the password is what the secret says at that start."""
    with stores.postgres() as store:
        connection = await asyncpg.connect(store.dsn)
        await connection.execute("CREATE DATABASE kept")
        os.kill(store.server.pid, signal.SIGKILL)
        store.server.stop()
        (store.server.folder / "secrets" / "operator-password").write_text("it's new\n")
        store.server.start()
        again = await asyncpg.connect(
            host=stores.HOST, port=store.port, user="assistant_operator", password="it's new", database="postgres"
        )
        assert await again.fetchval("SELECT count(*) FROM pg_database WHERE datname = 'kept'") == 1
        await again.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(store.dsn)
        assert "it's new" not in store.server.log.read_text()


async def test_an_interrupted_first_start_is_done_again() -> None:
    """What a start leaves behind that was killed while it made the data directory does not stop the next one."""
    with stores.postgres() as store:
        store.server.stop()
        data = store.server.folder / "data"
        data.rename(data.with_name("data.new"))
        (data.with_name("data.new") / "PG_VERSION").unlink()
        store.server.start()
        connection = await asyncpg.connect(store.dsn)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


async def test_data_of_another_major_version_is_refused_with_the_reason() -> None:
    """Postgres cannot read another major version's files; the log says so instead of a riddle."""
    with stores.postgres() as store:
        store.server.stop()
        version = store.server.folder / "data" / "PG_VERSION"
        right = version.read_text()
        version.write_text("9\n")
        with pytest.raises(ClusterError, match="the volume holds data of PostgreSQL 9"):
            store.server.start()
        version.write_text(right)


async def test_redis_answers_nobody_without_a_user(redis_store: stores.Redis) -> None:
    """Redis' built-in user is off."""
    async with redis.asyncio.Redis(host=stores.HOST, port=redis_store.port, retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(redis.exceptions.AuthenticationError):
            await client.ping()


async def test_the_gateway_counts_and_does_nothing_else(redis_store: stores.Redis) -> None:
    """The gateway's user reaches its counters alone, and no command that shows or ends what belongs to others."""
    async with redis.asyncio.from_url(redis_store.gateway_url, driver_info=None) as client:
        assert await client.eval("return redis.call('INCRBY', KEYS[1], 2)", 1, "quota:fixture") == 2
        assert await client.delete("quota:fixture") == 1
        for command in (["GET", "{t_0}:x"], ["KEYS", "*"], ["FLUSHALL"], ["ACL", "LIST"], ["CONFIG", "GET", "*"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                await client.execute_command(*command)


async def test_the_operator_makes_users_and_clears_keys_but_reads_none(redis_store: stores.Redis) -> None:
    """The operator's user may add and remove users and delete keys; values are none of its business."""
    async with redis.asyncio.from_url(redis_store.operator_url, driver_info=None) as client:
        await client.execute_command("ACL", "SETUSER", "t_0", "on", ">word", "~{t_0}:*", "-@all", "+get")
        assert await client.execute_command("ACL", "DELUSER", "t_0") == 1
        assert [key async for key in client.scan_iter(match="{t_0}:*")] == []
        for command in (["GET", "{t_0}:x"], ["FLUSHALL"], ["CONFIG", "GET", "*"], ["EVAL", "return 1", "0"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                await client.execute_command(*command)


async def test_redis_keeps_tenants_and_data_over_a_restart_and_takes_a_changed_password() -> None:
    """Saved users and keys survive; the platform's own users are what their secrets say at that start."""
    with stores.redis() as store:
        async with redis.asyncio.from_url(store.operator_url, driver_info=None) as client:
            await client.execute_command("ACL", "SETUSER", "t_0", "on", ">word", "~{t_0}:*", "-@all", "+get", "+set")
            await client.execute_command("ACL", "SAVE")
        async with redis.asyncio.Redis(port=store.port, username="t_0", password="word", driver_info=None) as tenant:
            await tenant.set("{t_0}:x", "1")
        store.server.stop()
        (store.server.folder / "secrets" / "gateway-password").write_text("new\n")
        store.server.start()
        async with redis.asyncio.Redis(port=store.port, username="t_0", password="word", driver_info=None) as tenant:
            assert await tenant.get("{t_0}:x") == b"1"
        async with redis.asyncio.from_url(store.gateway_url, driver_info=None) as gateway:
            with pytest.raises(redis.exceptions.AuthenticationError):
                await gateway.get("quota:x")
        async with redis.asyncio.Redis(
            port=store.port, username="gateway", password="new", driver_info=None
        ) as gateway:
            assert await gateway.get("quota:x") is None


def test_weaviate_refuses_callers_without_a_key(weaviate_store: stores.Weaviate) -> None:
    """Nobody is anonymous."""
    with pytest.raises(weaviate.exceptions.UnexpectedStatusCodeError, match="401"):
        connect(weaviate_store, None)


def test_weaviate_keeps_collections_and_users_over_a_restart() -> None:
    """Schema, vectors and users are on the volume, not in memory."""
    with stores.weaviate() as store:
        with connect(store, store.api_key) as client:
            collection = client.collections.create(
                "Fixture", vector_config=weaviate.classes.config.Configure.Vectors.self_provided()
            )
            collection.data.insert({"text": "one"}, vector=[1.0, 0.0])
            client.users.db.create(user_id="t_0")
        store.server.stop()
        store.server.start()
        with connect(store, store.api_key) as client:
            assert client.collections.use("Fixture").aggregate.over_all(total_count=True).total_count == 1
            assert client.users.db.get(user_id="t_0") is not None


async def test_a_paused_store_hangs_and_goes_on_where_it_was() -> None:
    """`pause` is the outage in which connections stay open and no answer comes."""
    with stores.postgres() as store:
        connection = await asyncpg.connect(store.dsn)
        store.server.pause()
        with pytest.raises(TimeoutError):
            await connection.fetchval("SELECT 1", timeout=0.3)
        with pytest.raises(TimeoutError):
            await asyncpg.connect(store.dsn, timeout=0.3)
        store.server.resume()
        again = await asyncpg.connect(store.dsn)
        assert await again.fetchval("SELECT 1") == 1
        await again.close()


def test_a_store_dies_with_the_process_that_started_it() -> None:
    """A killed test run leaves no server behind, and the next run removes its folder."""
    script = """if True:
        import contextlib, sys, time
        from assistant_cluster import stores
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(each()) for each in (stores.postgres, stores.redis)]
            print(*(f"{each.server.pid} {each.server.folder}" for each in started), sep="\\n", flush=True)
            time.sleep(60)
    """
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    started = [run.stdout.readline().split() for _ in range(2)]
    run.kill()
    run.communicate()
    deadline = time.monotonic() + 5
    while any(Path("/proc", pid).exists() for pid, _ in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid, _ in started if Path("/proc", pid).exists()]
    with stores.redis():
        assert not [folder for _, folder in started if Path(folder).exists()]


def test_a_missing_program_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis on the machine the error says which package to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match=r"redis-server is missing: .* package redis-server"), stores.redis():
        pass
