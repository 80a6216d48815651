"""Alembic's entry: where the connection of a migration comes from.

The operator carries this folder as data and has no `assistant_api`, so nothing here imports it: the caller hands
over a connection in `config.attributes["connection"]` (already acting as the database's owner), and whoever
compares models with migrations hands over `config.attributes["metadata"]`. By hand: `alembic -x dsn=postgresql+asyncpg://…`.
"""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine


def migrate(connection: Connection) -> None:
    """Run the asked migrations in one transaction: a database is never left between two versions."""
    context.configure(
        connection=connection,
        target_metadata=context.config.attributes.get("metadata"),
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_migrate(dsn: str) -> None:
    """Migrate the database at `dsn` as the user it names."""
    engine = create_async_engine(dsn)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def print_sql() -> None:
    """Print the migrations instead of running them (`alembic upgrade --sql`)."""
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    print_sql()
elif (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    asyncio.run(connect_and_migrate(context.get_x_argument(as_dictionary=True)["dsn"]))
