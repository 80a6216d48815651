"""A tenant's own role does its worst in its own database: the operator's memory, time and turn stay its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from assistant_cluster import stores
from assistant_crds import naming
from assistant_operator.adapters.migrations import Migrations
from assistant_operator.adapters.postgres import Database, Postgres
from assistant_operator.errors import StoreUnreachableError

MIGRATIONS = Path(__file__).parents[3] / "api" / "assistant_api" / "database" / "migrations"
INSERT = (
    "INSERT INTO documents (id, knowledge_base, name, media_type, bytes, sha256, status, chunks)"
    " SELECT gen_random_uuid(), $1, 'n', 'text/plain', 1, 'x', $2, 3 FROM generate_series(1, $3::int)"
)


@dataclass
class Tenant:
    """A tenant's database as the operator made it."""

    server: stores.Postgres
    database: Database
    written: list[None]
    migrations: Migrations

    @property
    def key(self) -> str:
        return self.database.tenant

    @property
    def base(self) -> str:
        return naming.knowledge_base_key(self.key, "uid")

    @property
    def postgres(self) -> Postgres:
        return Postgres(self.server.dsn, self.migrations, lambda: self.written.append(None))

    @contextlib.asynccontextmanager
    async def login(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(
            host=stores.HOST,
            port=self.server.port,
            user=naming.login_role(self.key),
            password=self.database.password,
            database=naming.database(self.key),
        )
        try:
            yield connection
        finally:
            connection.terminate()

    @contextlib.asynccontextmanager
    async def as_owner(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.server.superuser_dsn, database=naming.database(self.key))
        await connection.execute(f'SET ROLE "{naming.owner_role(self.key)}"')
        yield connection
        await connection.close()


async def make(postgres: stores.Postgres, migrations: Path = MIGRATIONS) -> Tenant:
    database = Database(naming.tenant_key(str(uuid4())), secrets.token_hex(16), 8)
    tenant = Tenant(postgres, database, [], Migrations(migrations))
    await tenant.postgres.ensure(database)
    return tenant


@pytest.fixture
async def tenant(postgres: stores.Postgres) -> Tenant:
    return await make(postgres)


async def test_what_was_made_right_is_left_alone(tenant: Tenant) -> None:
    """The second look at a tenant's database finds nothing to write."""
    tenant.written.clear()
    assert not await tenant.postgres.ensure(tenant.database)
    assert tenant.written == []


async def test_only_known_knowledge_bases_are_read(tenant: Tenant) -> None:
    """Rows under keys of any number and length do not reach the operator; those of its knowledge bases do."""
    async with tenant.login() as login:
        await login.execute(INSERT, tenant.base, "ready", 2)
        await login.execute(
            "INSERT INTO documents (id, knowledge_base, name, media_type, bytes, sha256)"
            " SELECT gen_random_uuid(), n || repeat('x', 100000), 'n', 't', 1, 'x' FROM generate_series(1, 200) n"
        )
    found = await tenant.postgres.rows(tenant.key, [tenant.base, naming.knowledge_base_key(tenant.key, "other")])
    assert {key: (rows.documents, rows.chunks) for key, rows in found.items()} == {tenant.base: (2, 6)}
    assert await tenant.postgres.retire(tenant.key, [tenant.base]) == {tenant.base: 2}


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM alembic_version",
        "INSERT INTO alembic_version VALUES ('x')",
        "UPDATE alembic_version SET version_num = 'x'",
        "SELECT * FROM alembic_version",
        "BEGIN; LOCK TABLE alembic_version IN ACCESS SHARE MODE",
        "BEGIN; LOCK TABLE knowledge_base_counts",
        "CREATE OR REPLACE VIEW knowledge_base_counts AS SELECT 1",
        "CREATE OR REPLACE FUNCTION forget_knowledge_base(key text) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "CREATE TRIGGER t BEFORE DELETE ON documents EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TABLE documents ENABLE ROW LEVEL SECURITY",
        "TRUNCATE documents",
        "UPDATE audit_entries SET actor = ''",
        "DELETE FROM audit_entries",
        "TRUNCATE audit_entries",
        "DELETE FROM audit_head",
        "INSERT INTO audit_head VALUES (1, 0, '')",
    ],
)
async def test_what_the_operator_relies_on_is_out_of_reach(tenant: Tenant, statement: str) -> None:
    """The schema, its version, views and functions, and the audit log's entries are not the tenant's to change."""
    async with tenant.login() as login:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await login.execute(statement)


async def test_rights_given_before_are_taken_back(tenant: Tenant) -> None:
    """A database from before, whose role may write every table, gets the same rights as a new one."""
    login_role = naming.login_role(tenant.key)
    async with tenant.as_owner() as owner:
        await owner.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{login_role}"')
        await owner.execute(f'ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO "{login_role}"')
    assert await tenant.postgres.ensure(tenant.database)
    async with tenant.as_owner() as owner:
        await owner.execute("CREATE TABLE later (a int)")
    async with tenant.login() as login:
        for table in ("alembic_version", "later"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await login.execute(f"DELETE FROM {table}")
        await login.execute("DELETE FROM documents")
        await tenant.postgres.ensure(tenant.database)
        await login.execute("DELETE FROM later")


async def test_settings_that_the_role_gave_itself_are_taken_back(tenant: Tenant) -> None:
    """Time-outs that a tenant's role turned off for its next sessions are on again after the next look."""
    async with tenant.login() as login:
        role = naming.login_role(tenant.key)
        await login.execute(f'ALTER ROLE "{role}" SET statement_timeout = 0')
        await login.execute(f'ALTER ROLE "{role}" IN DATABASE "{tenant.key}" SET lock_timeout = \'1h\'')
        await login.execute(f"ALTER ROLE \"{role}\" SET search_path = '{'x' * 100_000}'")
    assert await tenant.postgres.ensure(tenant.database)
    async with tenant.login() as login:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "temp_file_limit")
        values = [await login.fetchval(f"SHOW {name}") for name in names]
        assert values == ["1min", "30s", "1min", "64MB"]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await login.execute("SET temp_file_limit = -1")
    tenant.written.clear()
    assert not await tenant.postgres.ensure(tenant.database)


async def test_tables_that_a_tenant_locks_hold_up_no_question(tenant: Tenant) -> None:
    """Counting gives up after the time for locks; removing ends the sessions that hold them."""
    async with tenant.login() as login:
        await login.execute(INSERT, tenant.base, "ready", 3)
        await login.execute("BEGIN; LOCK TABLE documents")
        with pytest.raises(StoreUnreachableError, match="LockNotAvailable"):
            await tenant.postgres.rows(tenant.key, [tenant.base])
        assert await tenant.postgres.forget(tenant.key, tenant.base) == 3


async def test_a_tenant_that_goes_cannot_stay_by_locks(tenant: Tenant) -> None:
    """Locks that a tenant holds keep neither its documents from being counted nor its database from going."""
    async with tenant.login() as login:
        await login.execute(INSERT, tenant.base, "ready", 3)
        await login.execute("BEGIN; LOCK TABLE documents")
        assert await tenant.postgres.retire(tenant.key, [tenant.base]) == {tenant.base: 3}
        await tenant.postgres.remove(tenant.key)
    assert await tenant.postgres.leftovers(tenant.key) == []


async def test_many_rows_are_removed_in_portions(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that does not end in its time keeps what it removed, and the last one tells the whole number."""
    async with tenant.login() as login:
        await login.execute(INSERT, tenant.base, "ready", 1_203)
    postgres = tenant.postgres
    monkeypatch.setattr("assistant_operator.adapters.postgres.FORGET_SECONDS", 0.0)
    with pytest.raises(StoreUnreachableError):
        await postgres.forget(tenant.key, tenant.base)
    async with tenant.login() as login:
        assert await login.fetchval("SELECT count(*) FROM documents") == 703
    monkeypatch.setattr("assistant_operator.adapters.postgres.FORGET_SECONDS", 60.0)
    assert await postgres.forget(tenant.key, tenant.base) == 1_203


async def test_a_tenant_that_holds_up_its_migration_holds_up_no_other(
    postgres: stores.Postgres, tmp_path: Path
) -> None:
    """While one tenant locks its tables, another's database is made; then the sessions that hold the locks end."""
    first = shutil.copytree(MIGRATIONS, tmp_path / "first", ignore=shutil.ignore_patterns("000[2-9]_*", "__pycache__"))
    tenant = await make(postgres, first)
    tenant.migrations = Migrations(MIGRATIONS)  # a later one changes the table of documents
    async with tenant.login() as login:
        await login.execute("BEGIN; LOCK TABLE documents")
        stuck = asyncio.create_task(tenant.postgres.ensure(tenant.database))
        await _waiting(postgres, tenant.key)
        other = Tenant(postgres, Database(naming.tenant_key(str(uuid4())), "p" * 32, 8), [], tenant.migrations)
        await other.postgres.ensure(other.database)
        assert not stuck.done()
        assert await stuck
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await login.fetchval("SELECT 1")


async def _waiting(postgres: stores.Postgres, database: str) -> None:
    """Return once a session in the database waits for a lock."""
    question = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock')"
    admin = await asyncpg.connect(postgres.superuser_dsn)
    while not await admin.fetchval(question, database):  # noqa: ASYNC110 - Postgres tells of it in no other way
        await asyncio.sleep(0.02)
    await admin.close()


async def test_a_database_of_a_newer_release_is_left_as_it_is(tenant: Tenant) -> None:
    """After a roll back the schema of the release before it is served: no migration is looked for, nothing written."""
    async with tenant.as_owner() as owner:
        await owner.execute("UPDATE alembic_version SET version_num = '9999'")
    tenant.written.clear()
    assert not await tenant.postgres.ensure(tenant.database)
    assert tenant.written == []


async def test_transactions_that_last_are_ended(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant that turns its time-outs off and keeps a transaction open loses the session; others keep theirs."""
    async with tenant.login() as lasting, tenant.login() as resting:
        await lasting.execute("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0")
        await lasting.execute("BEGIN; SELECT 1")
        assert await tenant.postgres.ping()
        assert await lasting.fetchval("SELECT 1") == 1
        monkeypatch.setattr("assistant_operator.adapters.postgres.OLD_SECONDS", 0.0)
        assert await tenant.postgres.ping()
        # The last: asyncpg was in the middle of reading why the server ended the session.
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
            await lasting.fetchval("SELECT 1")
        assert await resting.fetchval("SELECT 1") == 1


async def test_a_role_that_left_the_operator_stops_no_question(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant's role may take its membership from the operator: neither that nor its transaction is in the way."""
    async with tenant.login() as login:
        role = naming.login_role(tenant.key)
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):  # since Postgres 16 it may not
            await login.execute(f'REVOKE "{role}" FROM {naming.POSTGRES_OPERATOR_ROLE}')
        await login.execute("BEGIN; SELECT 1")
        monkeypatch.setattr("assistant_operator.adapters.postgres.OLD_SECONDS", 0.0)
        assert await tenant.postgres.ping()
        await tenant.postgres.ensure(tenant.database)
