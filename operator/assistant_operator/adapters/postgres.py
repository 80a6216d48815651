"""One Postgres database per tenant: owned by a role that cannot log in, used by a role that can only read and write.

The operator's own role may create databases and roles and is no superuser. It becomes a member of each tenant's two
roles: to own the database in its name, to run migrations as the owner, and to end sessions when the tenant goes.
Everything is looked at first; a statement that changes something runs only when it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from assistant_crds import naming
from assistant_observability import logs, metrics
from assistant_operator import scram
from assistant_operator.adapters import postgres_sql as sql
from assistant_operator.adapters.migrations import Migrations
from assistant_operator.errors import StoreUnreachableError

STORE = "postgres"
CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 20.0
_log = logs.logger(__name__)


@dataclass(frozen=True)
class Database:
    """What a tenant's database should be."""

    tenant: str
    password: str
    connections: int  # of the login role, at most

    def __repr__(self) -> str:
        return f"Database({self.tenant})"


@dataclass(frozen=True)
class Rows:
    """What the tenant's database says one knowledge base holds."""

    documents: int
    pending: int
    failed: int
    chunks: int


class Postgres:
    """The databases and roles of tenants on one server."""

    def __init__(
        self,
        dsn: str,
        migrations: Migrations,
        guard: Callable[[], None],
        rights: Callable[[str, str, str], list[sql.Right]] = sql.rights,
    ) -> None:
        self._dsn = dsn
        self._migrations = migrations
        self._guard = guard
        self._rights = rights
        # CREATE DATABASE copies a template and takes locks on it: a few at a time are faster than many.
        self._creating = asyncio.Semaphore(4)

    async def ping(self) -> str:
        """Return when the server was started: another time means that it may have lost what was not written."""
        async with failures("ping"), self._admin() as connection:
            return str(await connection.fetchval("SELECT pg_postmaster_start_time()"))

    async def ensure(self, database: Database) -> bool:
        """Make roles, database, rights and schema be as wanted; return whether anything had to be written."""
        async with failures("ensure"):
            async with self._admin() as admin:
                changed = await self._ensure_roles(admin, database)
                changed |= await self._ensure_database(admin, database.tenant)
            async with self.session(database.tenant) as session:
                changed |= await self._ensure_rights(session, database.tenant)
                is_current = await self._is_current(session)
            if not is_current:
                await self._migrate(database.tenant)
            changed |= await self._ensure_password(database)
            changed |= not is_current
        return changed

    async def rows(self, tenant: str) -> dict[str, Rows]:
        """Return the counts of the tenant's knowledge bases, by their keys."""
        async with failures("rows"), self.session(tenant) as connection:
            found = await connection.fetch(sql.COUNTS)
        return {row[0]: Rows(*(int(value) for value in row[1:])) for row in found}

    async def forget(self, tenant: str, knowledge_base: str) -> int:
        """Remove the rows of a knowledge base; return how many documents there were."""
        self._guard()
        async with failures("forget"), self.session(tenant) as connection:
            if not await connection.fetchval(sql.HAS_FORGET):
                return 0
            return int(await connection.fetchval("SELECT forget_knowledge_base($1)", knowledge_base) or 0)

    async def documents(self, tenant: str) -> dict[str, int]:
        """Return how many documents each knowledge base has; nothing when there is no such database or table."""
        async with failures("documents"):
            async with self._admin() as admin:
                if not await admin.fetchval(sql.DATABASE_EXISTS, naming.database(tenant)):
                    return {}
            async with self.session(tenant) as session:
                if not await session.fetchval(sql.HAS_COUNTS):
                    return {}
                return {row[0]: int(row[1]) for row in await session.fetch(sql.COUNTS)}

    async def remove(self, tenant: str) -> None:
        """Remove the database and the roles; sessions are ended first."""
        name, owner, login = naming.database(tenant), naming.owner_role(tenant), naming.login_role(tenant)
        async with failures("remove"), self._admin() as connection:
            roles = {row["rolname"] for row in await connection.fetch(sql.ROLES, [owner, login])}
            statements = [f'ALTER ROLE "{login}" NOLOGIN'] if login in roles else []
            if await connection.fetchval(sql.DATABASE_EXISTS, name):
                # A member of both roles may end the sessions of both.
                statements += [f'GRANT "{role}" TO CURRENT_USER' for role in sorted(roles)]
                statements.append(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            statements += [f'DROP ROLE IF EXISTS "{role}"' for role in (login, owner) if role in roles]
            for statement in statements:
                self._guard()
                await connection.execute(statement)

    async def leftovers(self, tenant: str) -> list[str]:
        """Return the names of the tenant's databases and roles that still exist."""
        names = [naming.database(tenant), naming.owner_role(tenant), naming.login_role(tenant)]
        async with failures("leftovers"), self._admin() as connection:
            return [row[0] for row in await connection.fetch(sql.LEFTOVERS, names)]

    async def _ensure_roles(self, connection: asyncpg.Connection, database: Database) -> bool:
        owner, login = naming.owner_role(database.tenant), naming.login_role(database.tenant)
        changed = False
        found = {row["rolname"]: row for row in await connection.fetch(sql.ROLES, [owner, login])}
        for name, attributes in (
            (owner, f"NOLOGIN {sql.NO_PRIVILEGES} CONNECTION LIMIT 0"),
            (login, f"LOGIN {sql.NO_PRIVILEGES} CONNECTION LIMIT {database.connections}"),
        ):
            row = found.get(name)
            statements = []
            if row is None:
                password = f" PASSWORD '{scram.verifier(database.password)}'" if name == login else ""
                statements.append(f'CREATE ROLE "{name}" {attributes}{password}')
            elif not _has_attributes(row, login=name == login, connections=database.connections):
                statements.append(f'ALTER ROLE "{name}" {attributes}')
            if row is None or not row["member"]:
                statements.append(f'GRANT "{name}" TO CURRENT_USER')
            for statement in statements:
                self._guard()
                await connection.execute(statement)
                changed = True
        return changed

    async def _ensure_database(self, connection: asyncpg.Connection, tenant: str) -> bool:
        name, owner = naming.database(tenant), naming.owner_role(tenant)
        if await connection.fetchval(sql.DATABASE_EXISTS, name):
            return False
        async with self._creating:
            self._guard()
            # What the server's administrator closed in template1 (statistics that show all tenants) stays closed.
            template = "template1" if await connection.fetchval(sql.TEMPLATE_IS_UNICODE) else "template0"
            await connection.execute(f'CREATE DATABASE "{name}" OWNER "{owner}" TEMPLATE {template} ENCODING \'UTF8\'')
        return True

    async def _ensure_rights(self, connection: asyncpg.Connection, tenant: str) -> bool:
        name, owner, login = naming.database(tenant), naming.owner_role(tenant), naming.login_role(tenant)
        missing = [
            right.statement
            for right in self._rights(name, owner, login)
            if not await connection.fetchval(right.question, *right.parameters)
        ]
        if not missing:
            return False
        self._guard()
        async with connection.transaction():
            await connection.execute(f'SET LOCAL ROLE "{owner}"')
            for statement in missing:
                await connection.execute(statement)
        return True

    async def _is_current(self, connection: asyncpg.Connection) -> bool:
        if self._migrations.head is None:
            return True
        versioned = await connection.fetchval(sql.HAS_VERSION)
        return bool(versioned and self._migrations.is_current(await connection.fetchval(sql.VERSION)))

    async def _migrate(self, tenant: str) -> None:
        self._guard()
        url = self._url(naming.database(tenant)).replace("postgresql://", "postgresql+asyncpg://", 1)
        async with asyncio.timeout(COMMAND_SECONDS * 3):
            await self._migrations.upgrade(url, naming.owner_role(tenant), CONNECT_SECONDS)

    async def _ensure_password(self, database: Database) -> bool:
        """Log in as the tenant would: the one question that also tells whether it may connect at all."""
        login = naming.login_role(database.tenant)
        try:
            connection = await asyncpg.connect(
                self._dsn,
                user=login,
                password=database.password,
                database=naming.database(database.tenant),
                timeout=CONNECT_SECONDS,
            )
        except asyncpg.TooManyConnectionsError:
            return False  # refused after the password was found right
        except asyncpg.InvalidAuthorizationSpecificationError:
            self._guard()
            async with self._admin() as admin:
                await admin.execute(f"ALTER ROLE \"{login}\" PASSWORD '{scram.verifier(database.password)}'")
            return True
        await connection.close(timeout=CONNECT_SECONDS)
        return False

    def _admin(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Connect to the maintenance database."""
        return self._connect(urlsplit(self._dsn).path.lstrip("/") or "postgres")

    def session(self, tenant: str) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Connect to the tenant's database."""
        return self._connect(naming.database(tenant))

    @asynccontextmanager
    async def _connect(self, database: str) -> AsyncIterator[asyncpg.Connection]:
        """Connect for a moment: idle connections to each of many databases cost memory, and go stale."""
        connection = await asyncpg.connect(
            self._dsn, database=database, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS
        )
        try:
            yield connection
        except BaseException:
            connection.terminate()
            raise
        await connection.close(timeout=CONNECT_SECONDS)

    def _url(self, database: str) -> str:
        return urlunsplit(urlsplit(self._dsn)._replace(path=f"/{quote(database)}"))


def _has_attributes(row: asyncpg.Record, *, login: bool, connections: int) -> bool:
    return bool(
        row["rolcanlogin"] == login
        and not (row["rolsuper"] or row["rolcreatedb"] or row["rolcreaterole"] or row["rolbypassrls"])
        and not row["rolreplication"]
        and row["rolconnlimit"] == (connections if login else 0)
    )


_FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    SQLAlchemyError,
    CommandError,
    OSError,
    TimeoutError,
)


@asynccontextmanager
async def failures(operation: str) -> AsyncIterator[None]:
    """Count an operation, and tell whatever goes wrong in it as the store's being unreachable."""
    try:
        yield
    except _FAILURES as error:
        metrics.STORE_OPERATIONS.labels(STORE, operation, "error").inc()
        raise StoreUnreachableError(STORE, f"{operation} failed ({_reason(error)}).") from error
    metrics.STORE_OPERATIONS.labels(STORE, operation, "ok").inc()


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError):
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return type(error).__name__
