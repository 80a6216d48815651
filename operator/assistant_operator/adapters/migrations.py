"""The tenant database's schema: Alembic migrations that the API's room owns and the operator runs.

The operator's image carries them as data; nothing of the API is imported. They run inside one transaction, as the
role that owns the database, so that an interrupted migration leaves nothing behind.

A tenant may hold locks on the tables that its role can write. So every lock is taken before the process-wide turn, each
within `LOCK_SECONDS`: a database that is kept busy costs its own tenant a run, and no other tenant its turn.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

LOCK_SECONDS = 3  # for each lock
STATEMENT_SECONDS = 30  # for each statement
_LOCK_TABLES = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname
    LOOP EXECUTE 'LOCK TABLE ' || name || ' IN ACCESS EXCLUSIVE MODE'; END LOOP;
END $$
"""


class Migrations:
    """The migrations in one folder. `head` is None when there are none."""

    def __init__(self, folder: Path) -> None:
        self._config = Config()
        self._config.set_main_option("script_location", str(folder))
        # Alembic keeps the migration that runs in module-level proxies: two at once would get into each other's way.
        self._one_at_a_time = asyncio.Lock()
        scripts = ScriptDirectory.from_config(self._config)
        self.head = scripts.get_current_head()
        self._known = frozenset(script.revision for script in scripts.walk_revisions())

    def is_current(self, version: str | None) -> bool:
        """Return whether a database of this version needs no migration.

        A version that is not known here is a newer release's: after a roll-back this release works with its schema,
        which only ever gains (`docs/decisions/0030-what-a-roll-back-finds.md`), and leaves it alone.
        """
        return version is not None and (version == self.head or version not in self._known)

    async def upgrade(self, url: str, owner: str, connect_seconds: float) -> None:
        """Bring the database at `url` to the newest version, as the role `owner`."""
        dsn = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        # The driver reads the URL itself: SQLAlchemy does not know `sslmode` and its relatives.
        engine = create_async_engine(
            "postgresql+asyncpg://",
            poolclass=NullPool,
            async_creator=lambda: asyncpg.connect(dsn, timeout=connect_seconds),
        )
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_take_locks, owner)
                async with self._one_at_a_time:
                    await connection.run_sync(self._run)
        finally:
            await engine.dispose()

    def _run(self, connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", self._config.get_main_option("script_location") or "")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _take_locks(connection: Connection, owner: str) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
    connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"))
    connection.execute(text(f'SET LOCAL ROLE "{owner}"'))
    # The table with the version is among them: two operators cannot migrate the same database at once, even if both
    # believe that they lead. Of two that make the first tables, one fails.
    connection.execute(text(_LOCK_TABLES))
