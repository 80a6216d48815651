"""The ledger's database: made, migrated, kept append-only for the gateway, and given its months.

The schema is the gateway's room's, carried along as data. The database belongs to a role that cannot log in, like a
tenant's; the gateway's role may insert and read.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import asyncpg

from assistant_crds import naming
from assistant_observability import logs
from assistant_operator.adapters import ledger_sql
from assistant_operator.adapters.migrations import Migrations
from assistant_operator.adapters.postgres import Database, Postgres
from assistant_operator.adapters.postgres_errors import failures
from assistant_operator.adapters.postgres_sql import closed
from assistant_operator.errors import StoreUnreachableError

CONNECTIONS = 64  # of all gateway processes together; each has at most four
RETRY_SECONDS = (2.0, 60.0)
_log = logs.logger(__name__)


class LedgerSettingError(ValueError):
    """The gateway's address of the ledger is not one that the operator can provide."""


class Ledger:
    """Keeps the ledger's database as it has to be."""

    def __init__(self, dsn: str, url: str, migrations: Migrations, guard: Callable[[], None]) -> None:
        """Take the operator's DSN, and the URL by which the gateway logs in.

        Raises:
            LedgerSettingError: the URL names another role or database.
        """
        self._login = naming.login_role(naming.LEDGER)
        self._owner = naming.owner_role(naming.LEDGER)
        self._database = Database(naming.LEDGER, _password(url, self._login), CONNECTIONS, limited=False)
        self._postgres = Postgres(dsn, migrations, guard, closed)
        self._guard = guard

    async def ensure(self) -> list[str]:
        """Make database, schema, rights and months be as wanted; return the months that were made.

        Raises:
            StoreUnreachableError: Postgres is away or refuses.
        """
        await self._postgres.ensure(self._database)
        async with failures("ledger"), self._postgres.session(naming.LEDGER) as connection:
            await self._ensure_table_rights(connection)
            return await self._ensure_months(connection)

    async def watch(self, seconds: float) -> None:
        """Do so at once and again every `seconds`, for ever; one log line when it fails, one when it works again."""
        problem, delay = "", RETRY_SECONDS[0]
        while True:
            try:
                made = await self.ensure()
            except StoreUnreachableError as error:
                if error.detail != problem:
                    _log.error(
                        "the ledger cannot be prepared: entries stay in Redis, or rows go to the default partition",
                        error=error.detail,
                    )
                problem = error.detail
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
                delay = min(delay * 2, RETRY_SECONDS[1])
                continue
            if made or problem:
                _log.info("the ledger is prepared", database=naming.LEDGER, months=made)
            problem, delay = "", RETRY_SECONDS[0]
            await asyncio.sleep(seconds)

    async def _ensure_table_rights(self, connection: asyncpg.Connection) -> None:
        missing = [
            right.statement
            for right in ledger_sql.table_rights(self._login)
            if not await connection.fetchval(right.question, *right.parameters)
        ]
        if missing:
            await self._as_owner(connection, missing)

    async def _ensure_months(self, connection: asyncpg.Connection) -> list[str]:
        missing = await connection.fetch(ledger_sql.MISSING_MONTHS, ledger_sql.MONTHS_AHEAD)
        made, failed = [], None
        for name, first, after in reversed(missing):  # a month to come is empty, and made at once
            statements = ledger_sql.make_month(name, str(first), str(after))
            try:
                await self._as_owner(connection, statements, ledger_sql.MONTH_SECONDS)
            except asyncpg.PostgresError as error:  # such as a lock that somebody holds: the others can be made
                failed = error
            else:
                made.append(str(name))
        if failed is not None:
            raise failed
        return sorted(made)

    async def _as_owner(
        self, connection: asyncpg.Connection, statements: list[str], seconds: float | None = None
    ) -> None:
        self._guard()
        async with connection.transaction():
            await connection.execute(f'SET LOCAL ROLE "{self._owner}"')
            for statement in statements:
                await connection.execute(statement, timeout=seconds)


def _password(url: str, login: str) -> str:
    parts = urlsplit(url)
    if unquote(parts.username or "") != login or parts.path.lstrip("/") != naming.LEDGER or not parts.password:
        raise LedgerSettingError(
            f"ledger-url has to be postgresql://{login}:<password>@<host>:<port>/{naming.LEDGER}: "
            "the operator makes this role and this database"
        )
    return unquote(parts.password)
