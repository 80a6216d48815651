"""Queries on stored responses. Every statement names the owner: another user's response is not found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Integer, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

# From the newest to the oldest, as long as they are there and not too long together.
_CHAIN = text("""
WITH RECURSIVE chain AS (
    SELECT r.id, r.previous_id, r.input, r.response, 1 AS place,
           (octet_length(r.input) + octet_length(r.response))::bigint AS bytes
    FROM responses r WHERE r.id = :id AND r.owner = :owner AND r.expires_at > now()
    UNION ALL
    SELECT r.id, r.previous_id, r.input, r.response, c.place + 1,
           c.bytes + octet_length(r.input) + octet_length(r.response)
    FROM chain c JOIN responses r ON r.id = c.previous_id AND r.owner = :owner AND r.expires_at > now()
    WHERE c.bytes <= :most AND c.place < :longest
)
SELECT previous_id, input, response, bytes, place FROM chain ORDER BY place DESC
""")
_GET = text("""
SELECT previous_id, input, response FROM responses WHERE id = :id AND owner = :owner AND expires_at > now()
""")
_DELETE = text("DELETE FROM responses WHERE id = :id AND owner = :owner AND expires_at > now()")
_DELETE_ALL = text("DELETE FROM responses WHERE owner = :owner")
_INSERT = text("""
INSERT INTO responses (id, owner, previous_id, input, response, expires_at)
VALUES (:id, :owner, :previous, :input, :response, now() + make_interval(days => :days))
""").bindparams(bindparam("days", type_=Integer))
# A few at a time, of any owner, so that no call waits for what others have left.
_EXPIRE = text("""
DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE expires_at <= now() LIMIT 20 FOR UPDATE SKIP LOCKED)
""")
_TRIM = text("""
DELETE FROM responses WHERE id IN (
    SELECT id FROM responses WHERE owner = :owner ORDER BY created_at DESC OFFSET :most LIMIT 20)
""")


@dataclass(frozen=True, slots=True)
class Stored:
    """A response, and the input that came with it, as JSON."""

    previous: UUID | None
    input: str
    response: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Responses that follow each other, the oldest first; `whole` unless it is longer than it may be."""

    responses: Sequence[Stored]
    whole: bool


async def chain(connection: AsyncConnection, owner: str, identity: UUID, most: int, longest: int) -> Chain | None:
    """Return a response with those before it; None when any of them is not there."""
    values = {"id": identity, "owner": owner, "most": most, "longest": longest}
    rows = (await connection.execute(_CHAIN, values)).all()
    if not rows:
        return None
    first = rows[0]
    too_long = first.bytes > most or (first.previous_id is not None and first.place >= longest)
    if first.previous_id is not None and not too_long:
        return None
    return Chain([Stored(row.previous_id, row.input, row.response) for row in rows], not too_long)


async def get(connection: AsyncConnection, owner: str, identity: UUID) -> Stored | None:
    """Return one response."""
    row = (await connection.execute(_GET, {"id": identity, "owner": owner})).one_or_none()
    return None if row is None else Stored(*row)


async def insert(
    connection: AsyncConnection, owner: str, identity: UUID, stored: Stored, *, days: int, most: int
) -> None:
    """Keep a response for some days; the oldest of the owner's go when there would be more than `most`."""
    values = {"previous": stored.previous, "input": stored.input, "response": stored.response, "days": days}
    await connection.execute(_INSERT, {"id": identity, "owner": owner, **values})
    await connection.execute(_EXPIRE)
    await connection.execute(_TRIM, {"owner": owner, "most": most})


async def delete(connection: AsyncConnection, owner: str, identity: UUID) -> bool:
    """Delete one response; False when there is none."""
    return bool((await connection.execute(_DELETE, {"id": identity, "owner": owner})).rowcount)


async def delete_all(connection: AsyncConnection, owner: str) -> None:
    """Delete all responses of an owner."""
    await connection.execute(_DELETE_ALL, {"owner": owner})
