"""Which access tokens hold no more although they have not expired: sessions that ended, users who changed.

Read from the tenant's own database when a token is used and what is known is a second old: a tenant whose people are
away asks nothing, and no connection waits for news (decision 71).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

from assistant_api.auth.tokens import ACCESS_TOKEN_TTL_SECONDS, Claims
from assistant_api.database.errors import DATABASE_ERRORS
from assistant_api.errors import SIGN_IN_UNAVAILABLE, ApiError
from assistant_observability import logs

CACHE_TTL_SECONDS = 1.0  # what is known is used for so long without a question
STALE_CACHE_TTL_SECONDS = 30.0  # and, while the database is away, for so long
QUERY_TIMEOUT_SECONDS = 2.0
# A revocation is read until every token that it is about has expired.
REVOCATION_TTL_SECONDS = ACCESS_TOKEN_TTL_SECONDS + 120

_log = logs.logger(__name__)

Row = tuple[UUID, int | None]  # what is revoked; for a user the lowest version that holds


class Revocations:
    """What `read` said last, at most a second old wherever it is used."""

    def __init__(
        self, read: Callable[[], Awaitable[Iterable[Row]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._sessions: frozenset[UUID] = frozenset()
        self._users: dict[UUID, int] = {}
        self._as_of = float("-inf")  # when the question was sent that was answered last
        self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def revoked(self, claims: Claims) -> bool:
        """Whether the token holds no more; ApiError 503 when that could not be found out for STALE_SECONDS."""
        if self._clock() - self._as_of > CACHE_TTL_SECONDS:
            await self._refresh()
        return claims.sid in self._sessions or claims.ver < self._users.get(claims.sub, 0)

    def forget(self) -> None:
        """Ask again before the next token is taken, because something was revoked just now."""
        self._as_of = min(self._as_of, self._clock() - CACHE_TTL_SECONDS - 0.001)
        self._asked = float("-inf")
        self._asking = None

    async def _refresh(self) -> None:
        # One question at a time, for everybody who waits, and not again within a second of one that failed.
        if self._asking is None and self._clock() - self._asked > CACHE_TTL_SECONDS:
            self._asked = self._clock()
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.shield(self._asking)
        if self._clock() - self._as_of > STALE_CACHE_TTL_SECONDS:
            raise ApiError(SIGN_IN_UNAVAILABLE, retry_after=2)

    async def _ask(self) -> None:
        task, asked = asyncio.current_task(), self._clock()
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_SECONDS):
                rows = list(await self._read())
        except (*DATABASE_ERRORS, ApiError) as error:
            _log.warning("revoked sessions cannot be read", reason=type(error).__name__)
        else:
            if self._asking is not task:
                return  # something was revoked since the question was sent
            self._sessions = frozenset(subject for subject, version in rows if version is None)
            users: dict[UUID, int] = {}
            for subject, version in rows:
                if version is not None:
                    users[subject] = max(version, users.get(subject, 0))
            self._users, self._as_of = users, asked
        finally:
            if self._asking is task:
                self._asking = None
