"""Sessions and refresh tokens in the tenant's database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.database.accounts import RefreshToken, Revocation, Session

sessions = cast("Table", Session.__table__)
tokens = cast("Table", RefreshToken.__table__)
revocations = cast("Table", Revocation.__table__)

# Each a few rows at a time, and none that somebody else has locked: sign-ins do not wait for each other.
_PRUNE = (
    text(
        "DELETE FROM login_attempts WHERE key IN (SELECT key FROM login_attempts"
        " WHERE arrival < clock_timestamp() LIMIT 200 FOR UPDATE SKIP LOCKED)"
    ),
    text(
        "DELETE FROM revocations WHERE id IN (SELECT id FROM revocations"
        " WHERE revoked_at < clock_timestamp() - interval '1 hour' LIMIT 200 FOR UPDATE SKIP LOCKED)"
    ),
    text(
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions"
        " WHERE expires_at < clock_timestamp() - interval '1 day' LIMIT 200 FOR UPDATE SKIP LOCKED)"
    ),
)


@dataclass(frozen=True, slots=True)
class NewSession:
    """A sign-in."""

    id: UUID
    user_id: UUID
    device: str
    address: str
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Held:
    """A refresh token with what is true at this moment; times are the database's."""

    now: datetime
    expires_at: datetime
    rotated_at: datetime | None
    successor_hash: bytes | None


async def add_session(connection: AsyncConnection, new: NewSession) -> None:
    """Store a session."""
    await connection.execute(
        insert(sessions).values(
            id=new.id,
            user_id=new.user_id,
            device=new.device,
            address=new.address,
            expires_at=func.now() + new.lifetime,
        )
    )


async def add_token(connection: AsyncConnection, token_hash: bytes, session: UUID, lifetime: timedelta) -> None:
    """Store a refresh token of a session."""
    await connection.execute(
        insert(tokens).values(token_hash=token_hash, session_id=session, expires_at=func.now() + lifetime)
    )


async def locked_session(connection: AsyncConnection, token_hash: bytes) -> Any | None:
    """Return the session of a refresh token, which nobody else changes until the transaction ends."""
    found = select(tokens.c.session_id).where(tokens.c.token_hash == token_hash).scalar_subquery()
    query = select(
        sessions.c.id,
        sessions.c.user_id,
        sessions.c.revoked_at,
        (sessions.c.expires_at < func.clock_timestamp()).label("expired"),
    )
    return (await connection.execute(query.where(sessions.c.id == found).with_for_update())).one_or_none()


async def held(connection: AsyncConnection, token_hash: bytes) -> Held | None:
    """Return a refresh token; its session is locked, so that nobody rotates it meanwhile."""
    query = select(func.clock_timestamp(), tokens.c.expires_at, tokens.c.rotated_at, tokens.c.successor_hash).where(
        tokens.c.token_hash == token_hash
    )
    row = (await connection.execute(query)).one_or_none()
    return Held(*row) if row else None


async def rotate(connection: AsyncConnection, token_hash: bytes, successor: bytes, session: UUID, address: str) -> None:
    """Note that a token was exchanged, and that its session was seen."""
    now = func.clock_timestamp()
    await connection.execute(
        update(tokens).where(tokens.c.token_hash == token_hash).values(rotated_at=now, successor_hash=successor)
    )
    await connection.execute(update(sessions).where(sessions.c.id == session).values(last_seen_at=now, address=address))


async def of_user(connection: AsyncConnection, user: UUID) -> Sequence[Any]:
    """Return the sessions that hold, the one used last first."""
    query = (
        select(sessions)
        .where(sessions.c.user_id == user, sessions.c.revoked_at.is_(None), sessions.c.expires_at > func.now())
        .order_by(sessions.c.last_seen_at.desc(), sessions.c.id)
    )
    return (await connection.execute(query)).all()


async def revoke(connection: AsyncConnection, user: UUID, only: Iterable[UUID] | None = None) -> list[UUID]:
    """End sessions of a user, all unless some are named; return those that held. Their access tokens end too."""
    query = update(sessions).where(sessions.c.user_id == user, sessions.c.revoked_at.is_(None))
    if only is not None:
        query = query.where(sessions.c.id.in_(list(only)))
    ended = (await connection.execute(query.values(revoked_at=func.now()).returning(sessions.c.id))).scalars().all()
    if ended:
        await connection.execute(insert(revocations), [{"subject": session} for session in ended])
    return list(ended)


async def outdate(connection: AsyncConnection, user: UUID, version: int) -> None:
    """Let no access token of a user hold that was made for a version below this one."""
    await connection.execute(insert(revocations).values(subject=user, version=version))


async def revoked(connection: AsyncConnection, seconds: float) -> list[tuple[UUID, int | None]]:
    """Return what was revoked in the last `seconds`."""
    query = select(revocations.c.subject, revocations.c.version).where(
        revocations.c.revoked_at > func.now() - timedelta(seconds=seconds)
    )
    return [(row[0], row[1]) for row in await connection.execute(query)]


async def prune(connection: AsyncConnection) -> None:
    """Remove what nobody needs any more."""
    for statement in _PRUNE:
        await connection.execute(statement)
