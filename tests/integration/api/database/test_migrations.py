"""The tenant's schema on a real Postgres, with the roles the operator makes: an owner nobody logs in as, a DML user."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from alembic import autogenerate, command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from assistant_api import database
from assistant_api.database.models import Base
from assistant_cluster import stores
from assistant_crds import naming

MIGRATIONS = Path(database.__file__).parent / "migrations"
INSERT = (
    "INSERT INTO documents (id, knowledge_base, name, media_type, bytes, sha256, status, chunks)"
    " VALUES ($1, $2, $3, 'text/plain', 1, 'x', $4, $5)"
)


@dataclass
class TenantDatabase:
    """DSNs of one tenant's database: as the operator, and as the tenant's pods."""

    key: str
    operator: str
    login: str


def configuration(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


async def run(database: TenantDatabase, revision: str, direction: str = "upgrade") -> None:
    """Migrate as the operator does: logged in as itself, acting as the owner."""
    engine = create_async_engine(make_url(database.operator).set(drivername="postgresql+asyncpg"))
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SET ROLE {naming.owner_role(database.key)}"))
            await connection.execute(
                text(
                    "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES"
                    f" TO {naming.login_role(database.key)}"
                )
            )
            await connection.run_sync(lambda sync: getattr(command, direction)(configuration(sync), revision))
    finally:
        await engine.dispose()


async def create(operator_dsn: str, key: str, password: str) -> None:
    owner, login = naming.owner_role(key), naming.login_role(key)
    operator = await asyncpg.connect(operator_dsn)
    try:
        for statement in (
            f"CREATE ROLE {owner} NOLOGIN",
            f"CREATE ROLE {login} LOGIN PASSWORD '{password}'",
            f"GRANT {owner} TO assistant_operator",
            f"CREATE DATABASE {key} OWNER {owner}",
            f"REVOKE ALL ON DATABASE {key} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {key} TO {login}",
        ):
            await operator.execute(statement)
    finally:
        await operator.close()


@pytest.fixture(scope="module")
def empty(postgres: stores.Postgres) -> Iterator[TenantDatabase]:
    """A tenant's database without any table."""
    key, password = naming.tenant_key(str(uuid4())), secrets.token_hex(8)
    asyncio.run(create(postgres.dsn, key, password))
    url = make_url(postgres.dsn).set(database=key)
    login = url.set(username=naming.login_role(key), password=password)
    return TenantDatabase(key, url.render_as_string(hide_password=False), login.render_as_string(hide_password=False))


@pytest.fixture(scope="module")
def migrated(empty: TenantDatabase) -> TenantDatabase:
    """The same with the newest schema."""
    asyncio.run(run(empty, "head"))
    return empty


async def test_models_and_migrations_describe_the_same_tables(migrated: TenantDatabase) -> None:
    """Alembic finds no difference between the models and a database made by the migrations."""
    engine = create_async_engine(make_url(migrated.login).set(drivername="postgresql+asyncpg"))

    def compare(connection: Connection) -> object:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return autogenerate.compare_metadata(context, Base.metadata)

    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(compare) == []
    finally:
        await engine.dispose()


def test_there_is_one_line_of_migrations() -> None:
    """Two migrations never claim the same predecessor, so that every database has one way to the newest schema."""
    assert len(ScriptDirectory.from_config(configuration()).get_heads()) == 1


async def test_migrating_twice_changes_nothing(migrated: TenantDatabase) -> None:
    """The operator may migrate at every reconcile run."""
    await run(migrated, "head")


async def test_the_login_role_reads_and_writes_rows_and_nothing_else(migrated: TenantDatabase) -> None:
    """The credential in a tenant's pods cannot change the schema, not even that of its own tables."""
    connection = await asyncpg.connect(migrated.login)
    try:
        document = uuid4()
        await connection.execute(INSERT, document, "kb", "a.txt", "pending", 0)
        await connection.execute("INSERT INTO document_contents VALUES ($1, 0, $2)", document, b"x")
        await connection.execute("UPDATE documents SET status = 'ready' WHERE id = $1", document)
        assert await connection.fetchval("SELECT status FROM documents WHERE id = $1", document) == "ready"
        await connection.execute("DELETE FROM documents WHERE id = $1", document)
        assert await connection.fetchval("SELECT count(*) FROM document_contents") == 0
        for statement in (
            "CREATE TABLE mine (id int)",
            "CREATE TEMPORARY TABLE mine (id int)",
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER TABLE documents ADD COLUMN mine int",
            "DROP VIEW knowledge_base_counts",
            "TRUNCATE documents CASCADE",
            f"SET ROLE {naming.owner_role(migrated.key)}",
            "CREATE SCHEMA mine",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_counts_and_forgetting_are_what_the_operator_needs(migrated: TenantDatabase) -> None:
    """The view counts by knowledge base; the function removes one knowledge base and says how many documents."""
    owner = await asyncpg.connect(migrated.operator)
    try:
        await owner.execute(f"SET ROLE {naming.owner_role(migrated.key)}")
        kept = uuid4()
        rows: list[tuple[UUID, str, str, str, int]] = [
            (uuid4(), "one", "a", "pending", 0),
            (uuid4(), "one", "b", "processing", 5),
            (uuid4(), "one", "c", "ready", 7),
            (uuid4(), "one", "d", "failed", 0),
            (uuid4(), "one", "e", "deleting", 3),
            (kept, "two", "a", "ready", 1),
        ]
        await owner.executemany(INSERT, rows)
        counts = await owner.fetch("SELECT * FROM knowledge_base_counts ORDER BY knowledge_base")
        # Vectors of documents that are being removed are still accounted for: they are no orphans.
        assert [tuple(row) for row in counts] == [("one", 4, 2, 1, 15), ("two", 1, 0, 0, 1)]
        # What reads a document again is pending, and no document of its own.
        assert await owner.fetchval("SELECT reindex_knowledge_base('one', 1)") == 1
        assert await owner.fetchval("SELECT reindex_knowledge_base('one', 1)") == 0
        again = await owner.fetchrow("SELECT * FROM knowledge_base_counts WHERE knowledge_base = 'one'")
        assert tuple(again) == ("one", 4, 3, 1, 15)
        assert await owner.fetchval("SELECT forget_knowledge_base('one')") == 6
        assert await owner.fetchval("SELECT forget_knowledge_base('one')") == 0
        assert await owner.fetch("SELECT id FROM documents") == [(kept,)]
    finally:
        await owner.close()


async def test_a_downgrade_leaves_nothing(empty: TenantDatabase, migrated: TenantDatabase) -> None:
    """Each migration can be taken back; the last table then left is Alembic's own."""
    await run(migrated, "base", "downgrade")
    connection = await asyncpg.connect(migrated.login)
    try:
        query = (
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = 'public' AND relkind IN ('r', 'v', 'S')"
        )
        assert await connection.fetch(query) == [("alembic_version",)]
    finally:
        await connection.close()


def test_the_migrations_need_nothing_of_the_package() -> None:
    """The operator carries only the folder: no migration imports `assistant_api`."""
    sources = [path.read_text() for path in MIGRATIONS.rglob("*.py")]
    assert len(sources) >= 2
    assert not [source for source in sources if "import assistant_api" in source or "from assistant_api" in source]
