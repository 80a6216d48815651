"""One Postgres database per tenant: owned by a role that cannot log in, used by a role that can only read and write.

The operator's own role may create databases and roles and is no superuser. It becomes a member of each tenant's two
roles: to own the database in its name, to run migrations as the owner, and to end sessions when the tenant goes.
Everything is looked at first; a statement that changes something runs only when it is needed.

A tenant's own role writes its tables, so whatever is asked in its database is bounded: what comes back, how long a
statement may take, and how long it may wait for a lock that the tenant holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from assistant_crds import naming
from assistant_crds.contracts import INDEX_VERSION
from assistant_observability import logs
from assistant_operator.adapters import postgres_sql as sql
from assistant_operator.adapters import scram
from assistant_operator.adapters.migrations import Migrations
from assistant_operator.adapters.postgres_errors import failures, is_lock, reason

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 20.0
# Shorter than the above, so that the server ends what takes too long and the connection can go on.
STATEMENT_SECONDS = 10
LOCK_SECONDS = 3
FORGET_ROWS = 500  # at once; each may have 32 MiB of content
FORGET_SECONDS = 30.0
OLD_SECONDS = 300.0
_log = logs.logger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Database:
    """What a tenant's database should be."""

    tenant: str
    password: str
    connections: int  # of the login role, at most
    limited: bool = True  # a tenant's: its sessions begin with time-outs, and get no connection that is reserved

    def __repr__(self) -> str:
        return f"Database({self.tenant})"


@dataclass(frozen=True)
class Rows:
    """What the tenant's database says one knowledge base holds."""

    documents: int
    pending: int
    failed: int
    chunks: int
    outdated: int  # read by an earlier version


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
        # (tenant, knowledge base) -> rows removed so far
        self._forgotten: dict[tuple[str, str], int] = {}

    async def ping(self) -> str:
        """Return when the server was started: another time means that it may have lost what was not written.

        Ends transactions of tenants that last: a role may turn its time-outs off.
        """
        async with failures("ping"), self._admin() as connection:
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):  # the process id is another session's by now
                if ended := await connection.fetchval(sql.END_OLD, OLD_SECONDS):
                    _log.warning("transactions of tenants that lasted too long were ended", sessions=ended)
            return str(await connection.fetchval("SELECT pg_postmaster_start_time()"))

    async def ensure(self, database: Database) -> bool:
        """Make roles, database, rights and schema be as wanted; return whether anything had to be written."""
        async with failures("ensure"):
            async with self._admin() as admin:
                changed = await self._ensure_roles(admin, database)
                changed |= await self._ensure_database(admin, database)
            async with self.session(database.tenant) as session:
                changed |= await self._ensure_rights(session, database.tenant)
                is_current = await self._is_current(session)
            if not is_current:
                await self._migrate(database.tenant)
                async with self.session(database.tenant) as session:
                    await self._ensure_rights(session, database.tenant)
            changed |= await self._ensure_password(database)
            changed |= not is_current
        return changed

    async def rows(self, tenant: str, knowledge_bases: Iterable[str]) -> dict[str, Rows]:
        """Return the counts of these knowledge bases, by their keys; those without any document are left out."""
        async with failures("rows"), self.session(tenant) as connection:
            found = await connection.fetch(sql.COUNTS, list(knowledge_bases), INDEX_VERSION)
        return {row[0]: Rows(*(int(value) for value in row[1:])) for row in found}

    async def reindex(self, tenant: str, knowledge_base: str) -> int:
        """Have the documents read again that an earlier version has read; return how many were queued now."""
        self._guard()
        async with failures("reindex"), self.session(tenant) as connection:
            return int(await connection.fetchval(sql.REINDEX, knowledge_base, INDEX_VERSION) or 0)

    async def activity(self) -> dict[str, int]:
        """Return a number by database that grows with every row that is written there; a second or ten late."""
        async with failures("activity"), self._admin() as connection:
            return {row[0]: int(row[1]) for row in await connection.fetch(sql.ACTIVITY)}

    async def forget(self, tenant: str, knowledge_base: str) -> int:
        """Remove the rows of a knowledge base; return how many documents there were.

        Raises:
            StoreUnreachableError: Postgres is away, or there is more to remove: what was removed stays so.
        """
        self._guard()
        removed = (tenant, knowledge_base)
        loop = asyncio.get_running_loop()
        until = loop.time() + FORGET_SECONDS
        async with failures("forget"):
            while more := await self._unblocked(tenant, lambda: self._forget_some(tenant, knowledge_base)):
                self._forgotten[removed] = self._forgotten.get(removed, 0) + more
                if loop.time() > until:
                    raise TimeoutError
        return self._forgotten.pop(removed, 0)

    async def retire(self, tenant: str, knowledge_bases: Iterable[str]) -> dict[str, int]:
        """Let the role of a tenant that goes in no more, end its sessions, and count its documents by knowledge base.

        Nothing comes back when there is no such database or table, or when it cannot be counted in time.
        """
        async with failures("retire"):
            async with self._admin() as admin:
                if not await admin.fetchval(sql.DATABASE_EXISTS, naming.database(tenant)):
                    return {}
                await self._shut_out(admin, tenant)
            async with self.session(tenant) as session:
                if not await session.fetchval(sql.HAS_COUNTS):
                    return {}
                try:
                    found = await session.fetch(sql.COUNTS, list(knowledge_bases), INDEX_VERSION)
                except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError) as error:
                    _log.warning("documents could not be counted", tenant=tenant, error=reason(error))
                    return {}
        return {row[0]: int(row[1]) for row in found}

    async def remove(self, tenant: str) -> None:
        """Remove the database and the roles; sessions are ended first."""
        name, owner, login = naming.database(tenant), naming.owner_role(tenant), naming.login_role(tenant)
        async with failures("remove"), self._admin() as connection:
            roles = {row["rolname"] for row in await connection.fetch(sql.ROLE_NAMES, [owner, login])}
            statements = [f'ALTER ROLE "{login}" NOLOGIN'] if login in roles else []
            if await connection.fetchval(sql.DATABASE_EXISTS, name):
                # A member of both roles may end the sessions of both.
                statements += [f'GRANT "{role}" TO CURRENT_USER' for role in sorted(roles)]
                statements.append(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            statements += [f'DROP ROLE IF EXISTS "{role}"' for role in (login, owner) if role in roles]
            for statement in statements:
                self._guard()
                await connection.execute(statement)

    async def strangers(self, tenant: str, knowledge_bases: Iterable[str]) -> list[str]:
        """Return keys of the tenant's knowledge bases that have rows and are not among these; some of them, if many."""
        async with failures("strangers"), self.session(tenant) as connection:
            if not await connection.fetchval(sql.HAS_COUNTS):
                return []
            pattern = f"^{tenant}_[0-9a-f]{{9}}$"  # whatever else the tenant wrote there is no key of ours
            return [row[0] for row in await connection.fetch(sql.STRANGERS, list(knowledge_bases), pattern)]

    async def leftovers(self, tenant: str) -> list[str]:
        """Return the names of the tenant's databases and roles that still exist."""
        names = [naming.database(tenant), naming.owner_role(tenant), naming.login_role(tenant)]
        async with failures("leftovers"), self._admin() as connection:
            return [row[0] for row in await connection.fetch(sql.LEFTOVERS, names)]

    async def _ensure_roles(self, connection: asyncpg.Connection, database: Database) -> bool:
        owner, login = naming.owner_role(database.tenant), naming.login_role(database.tenant)
        settings = dict(sql.LOGIN_SETTINGS)
        if await connection.fetchval(sql.MAY_RESTRICT):
            settings |= sql.RESTRICTED_SETTINGS
        as_stored = sorted(f"{name}={value}" for name, value in settings.items())
        changed = False
        found = {row["rolname"]: row for row in await connection.fetch(sql.ROLES, [owner, login], as_stored)}
        for name, attributes in (
            (owner, "NOLOGIN CONNECTION LIMIT 0"),
            (login, f"LOGIN CONNECTION LIMIT {database.connections}"),
        ):
            row = found.get(name)
            statements = []
            if row is None:
                password = f" PASSWORD '{scram.verifier(database.password)}'" if name == login else ""
                statements.append(f'CREATE ROLE "{name}" {sql.NO_PRIVILEGES} {attributes}{password}')
            elif not _has_attributes(row, login=name == login, connections=database.connections):
                # Postgres 15 lets only a superuser name these, even to take away what a role does not have.
                privileges = sql.NO_PRIVILEGES if _has_privileges(row) else ""
                statements.append(f'ALTER ROLE "{name}" {privileges} {attributes}')
            if row is None or not row["member"]:
                statements.append(f'GRANT "{name}" TO CURRENT_USER')
            if name == login and database.limited and not (row is not None and row["settled"]):
                statements.append(await self._settle(connection, login, settings))
            for statement in statements:
                self._guard()
                await connection.execute(statement)
                changed = True
        if not database.limited and await connection.fetchval(sql.LACKS_RESERVED, login):
            self._guard()
            await connection.execute(f'GRANT pg_use_reserved_connections TO "{login}"')
            changed = True
        return changed

    @staticmethod
    async def _settle(connection: asyncpg.Connection, login: str, settings: dict[str, str]) -> str:
        """Return the statement that gives the role these settings and no others: it may change its own."""
        foreign = [row[0] for row in await connection.fetch(sql.FOREIGN_SETTINGS, login)]
        return "; ".join(
            [
                *(f'ALTER ROLE "{login}" IN DATABASE "{name}" RESET ALL' for name in foreign),
                f'ALTER ROLE "{login}" RESET ALL',
                *(f"ALTER ROLE \"{login}\" SET {name} = '{value}'" for name, value in settings.items()),
            ]
        )

    async def _ensure_database(self, connection: asyncpg.Connection, database: Database) -> bool:
        name, owner = naming.database(database.tenant), naming.owner_role(database.tenant)
        if await connection.fetchval(sql.DATABASE_EXISTS, name):
            return False
        async with self._creating:
            self._guard()
            # What the server's administrator closed in template1 (statistics that show all tenants, locks that are
            # shared by all) stays closed for tenants; the ledger uses such locks.
            as_template = database.limited and await connection.fetchval(sql.TEMPLATE_IS_UNICODE)
            template = "template1" if as_template else "template0"
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
        url = self._url(naming.database(tenant))
        owner = naming.owner_role(tenant)
        async with asyncio.timeout(COMMAND_SECONDS * 3):
            await self._unblocked(tenant, lambda: self._migrations.upgrade(url, owner, CONNECT_SECONDS))

    async def _unblocked(self, tenant: str, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do `work`; when it waits too long for a lock, end the tenant's sessions and do it once more."""
        try:
            return await work()
        except (asyncpg.LockNotAvailableError, SQLAlchemyError) as error:
            if not is_lock(error):
                raise
            _log.warning("a tenant's sessions hold locks and are ended", tenant=tenant)
        async with self._admin() as admin:
            await admin.execute(sql.END_SESSIONS, naming.login_role(tenant))
        return await work()

    async def _forget_some(self, tenant: str, knowledge_base: str) -> int:
        async with self.session(tenant) as connection:
            if not await connection.fetchval(sql.HAS_DOCUMENTS):
                return 0
            return int(await connection.fetchval(sql.FORGET, knowledge_base, FORGET_ROWS) or 0)

    async def _shut_out(self, admin: asyncpg.Connection, tenant: str) -> None:
        """Let the tenant's role not log in any more, and end its sessions."""
        login = naming.login_role(tenant)
        if await admin.fetchval(sql.ROLE_NAMES, [login]) is not None:
            self._guard()
            await admin.execute(f'ALTER ROLE "{login}" NOLOGIN')
            await admin.execute(f'GRANT "{login}" TO CURRENT_USER')
            await admin.execute(sql.END_SESSIONS, login)

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
        return self._connect(urlsplit(self._dsn).path.lstrip("/") or "postgres", {})

    def session(self, tenant: str) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Connect to the tenant's database; the ledger's is the platform's own, and its months may take their time."""
        settings = {} if tenant == naming.LEDGER else {"statement_timeout": f"{STATEMENT_SECONDS}s"}
        return self._connect(naming.database(tenant), settings)

    @asynccontextmanager
    async def _connect(self, database: str, settings: dict[str, str]) -> AsyncIterator[asyncpg.Connection]:
        """Connect for a moment: idle connections to each of many databases cost memory, and go stale."""
        connection = await asyncpg.connect(
            self._dsn,
            database=database,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings={
                "application_name": naming.FIELD_MANAGER,
                "lock_timeout": f"{LOCK_SECONDS}s",
                **settings,
            },
        )
        try:
            yield connection
        except BaseException:
            connection.terminate()
            raise
        await connection.close(timeout=CONNECT_SECONDS)

    def _url(self, database: str) -> str:
        return urlunsplit(urlsplit(self._dsn)._replace(path=f"/{quote(database)}"))


def _has_privileges(row: asyncpg.Record) -> bool:
    names = ("rolsuper", "rolcreatedb", "rolcreaterole", "rolreplication", "rolbypassrls")
    return any(row[name] for name in names)


def _has_attributes(row: asyncpg.Record, *, login: bool, connections: int) -> bool:
    return bool(
        row["rolcanlogin"] == login
        and not _has_privileges(row)
        and row["rolconnlimit"] == (connections if login else 0)
    )
