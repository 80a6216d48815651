"""What can be raised while the tenant's database is away or restarts: by the driver, the pool, the socket."""

from __future__ import annotations

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
