"""Queries on the messages of conversations.

A message belongs to whom its conversation belongs to: callers of this module have looked that up, or name the owner.
An answer whose lease has run out is shown as `incomplete`: the process that wrote it has died.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.conversations.repository import messages
from assistant_api.database import models

INTERRUPTED = "stream_interrupted"  # the code of what a process left behind
MAX_PAGE_BYTES = 1 << 20  # of the texts of one page, unless it has one message only

feedback: Table = models.MessageFeedback.__table__  # type: ignore[assignment]  # the stubs say FromClause

_DEAD: ColumnElement[bool] = and_(messages.c.status == "running", messages.c.leased_until < func.now())


def _siblings() -> Any:
    other = messages.alias("other")
    found = select(func.array_agg(aggregate_order_by(other.c.id, other.c.sequence)))
    # An index knows the children of a message; the first messages of a conversation have no parent.
    first = found.where(other.c.conversation_id == messages.c.conversation_id, other.c.parent_id.is_(None))
    later = found.where(other.c.parent_id == messages.c.parent_id)
    return case((messages.c.parent_id.is_(None), first.scalar_subquery()), else_=later.scalar_subquery())


_SHOWN: Select[Any] = select(
    messages.c.id,
    messages.c.parent_id,
    messages.c.depth,
    messages.c.role,
    messages.c.content,
    case((_DEAD, "incomplete"), else_=messages.c.status).label("status"),
    case((_DEAD, INTERRUPTED), else_=messages.c.error_code).label("error_code"),
    messages.c.model,
    messages.c.annotations,
    messages.c.input_tokens,
    messages.c.output_tokens,
    messages.c.omitted_turns,
    messages.c.created_at,
    messages.c.finished_at,
    messages.c.sequence,
    _siblings().label("siblings"),
    feedback.c.rating,
    feedback.c.comment,
).select_from(messages.outerjoin(feedback, feedback.c.message_id == messages.c.id))


def _page_of_a_path() -> Select[Any]:
    size = cast(func.octet_length(messages.c.content), BigInteger)
    last = select(messages.c.id, messages.c.parent_id, literal(1).label("place"), size.label("bytes")).where(
        messages.c.id == bindparam("last"), messages.c.conversation_id == bindparam("conversation")
    )
    path = last.cte("path", recursive=True)
    path = path.union_all(
        select(messages.c.id, messages.c.parent_id, path.c.place + 1, path.c.bytes + size).where(
            messages.c.id == path.c.parent_id, path.c.place < bindparam("limit"), path.c.bytes < MAX_PAGE_BYTES
        )
    )
    return _SHOWN.join(path, path.c.id == messages.c.id).order_by(path.c.place.desc())


_PATH = _page_of_a_path()
_ALL = (
    _SHOWN.where(messages.c.conversation_id == bindparam("conversation"), messages.c.sequence > bindparam("after"))
    .order_by(messages.c.sequence)
    .limit(bindparam("limit"))
)
_PATH_IDS = text("""
WITH RECURSIVE path AS (
    SELECT id, parent_id, depth FROM messages WHERE id = :last AND conversation_id = :conversation
    UNION ALL
    SELECT m.id, m.parent_id, m.depth FROM path p JOIN messages m ON m.id = p.parent_id
)
SELECT id FROM path ORDER BY depth
""")
# Down from a message: its newest child, that one's newest child, and so on.
_END = text("""
WITH RECURSIVE branch AS (
    SELECT id, depth FROM messages WHERE id = :message AND conversation_id = :conversation
    UNION ALL
    SELECT child.id, child.depth FROM branch b, LATERAL (
        SELECT m.id, m.depth FROM messages m WHERE m.parent_id = b.id ORDER BY m.sequence DESC LIMIT 1
    ) child
)
SELECT id FROM branch ORDER BY depth DESC LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message's row, with what belongs to it."""

    id: UUID
    parent_id: UUID | None
    depth: int
    role: str
    content: str
    status: str
    error_code: str | None
    model: str | None
    annotations: str | None
    input_tokens: int | None
    output_tokens: int | None
    omitted_turns: int
    created_at: datetime
    finished_at: datetime | None
    sequence: int
    siblings: Sequence[UUID]
    rating: str | None
    comment: str | None


async def path(connection: AsyncConnection, conversation: UUID, last: UUID, limit: int) -> list[StoredMessage]:
    """Return up to `limit` messages of a path, in its order, that ends with `last`; fewer when they are long."""
    values = {"conversation": conversation, "last": last, "limit": limit}
    return [StoredMessage(*row) for row in await connection.execute(_PATH, values)]


async def after(connection: AsyncConnection, conversation: UUID, sequence: int, limit: int) -> list[StoredMessage]:
    """Return up to `limit` messages of all branches in the order in which they came, those after `sequence`."""
    values = {"conversation": conversation, "after": sequence, "limit": limit}
    return [StoredMessage(*row) for row in await connection.execute(_ALL, values)]


async def some(
    connection: AsyncConnection, conversation: UUID, identities: Iterable[UUID]
) -> dict[UUID, StoredMessage]:
    """Return those of the messages that are in the conversation, by their ids."""
    query = _SHOWN.where(messages.c.conversation_id == conversation, messages.c.id.in_(list(identities)))
    found = [StoredMessage(*row) for row in await connection.execute(query)]
    return {message.id: message for message in found}


async def path_ids(connection: AsyncConnection, conversation: UUID, last: UUID) -> list[UUID]:
    """Return the ids of a whole path that ends with `last`, in its order."""
    values = {"conversation": conversation, "last": last}
    return list((await connection.execute(_PATH_IDS, values)).scalars())


async def end_of_branch(connection: AsyncConnection, conversation: UUID, message: UUID) -> UUID | None:
    """Return the newest end of the branches that `message` is on; None when it is not in the conversation."""
    values = {"conversation": conversation, "message": message}
    found: UUID | None = (await connection.execute(_END, values)).scalar_one_or_none()
    return found


async def rate(connection: AsyncConnection, message: UUID, rating: str, comment: str | None) -> None:
    """Set what is thought of an answer."""
    values = {"rating": rating, "comment": comment, "updated_at": func.now()}
    query = insert(feedback).values(message_id=message, **values)
    await connection.execute(query.on_conflict_do_update(index_elements=[feedback.c.message_id], set_=values))


async def unrate(connection: AsyncConnection, message: UUID) -> None:
    """Forget what is thought of an answer."""
    await connection.execute(delete(feedback).where(feedback.c.message_id == message))
