"""What a caller is told while the tenant's database is away."""

from __future__ import annotations

from litestar.types import ExceptionHandlersMap

from assistant_api.database.errors import DATABASE_ERRORS
from assistant_api.errors import storage_unavailable

DATABASE_AWAY: ExceptionHandlersMap = dict.fromkeys(DATABASE_ERRORS, storage_unavailable)
