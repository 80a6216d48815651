"""What can go wrong with Postgres, told as the store's being unreachable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from assistant_observability import metrics
from assistant_operator.errors import StoreUnreachableError

STORE = "postgres"

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
        raise StoreUnreachableError(STORE, f"{operation} failed ({reason(error)}).") from error
    metrics.STORE_OPERATIONS.labels(STORE, operation, "ok").inc()


def is_lock(error: BaseException) -> bool:
    """Return whether the statement waited too long for a lock."""
    code = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, asyncpg.LockNotAvailableError) or code == asyncpg.LockNotAvailableError.sqlstate


def reason(error: BaseException) -> str:
    """Return what a status may say of the error: one line of bounded length."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{type(error).__name__}: {str(error)[:300].partition(chr(10))[0]}"
    if is_lock(error):
        return asyncpg.LockNotAvailableError.__name__
    return type(error).__name__
