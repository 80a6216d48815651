"""Alembic's entry: where the connection of a migration of the ledger comes from.

The operator carries this folder as data and has no `assistant_gateway`, so nothing here imports it: the caller hands
over a connection in `config.attributes["connection"]`, already acting as the ledger's owner.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection


def migrate(connection: Connection) -> None:
    """Run the asked migrations in one transaction: a database is never left between two versions."""
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


def print_sql() -> None:
    """Print the migrations instead of running them (`alembic upgrade --sql`)."""
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    print_sql()
else:
    migrate(context.config.attributes["connection"])
