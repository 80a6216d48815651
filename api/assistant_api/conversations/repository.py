"""Queries on conversations; every one is scoped to the owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Table, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.conversations.cursor import Place
from assistant_api.database import models

conversations: Table = models.Conversation.__table__  # type: ignore[assignment]  # the stubs say FromClause
messages: Table = models.Message.__table__  # type: ignore[assignment]

_SHOWN = (
    conversations.c.id,
    conversations.c.assistant,
    conversations.c.title,
    conversations.c.archived,
    conversations.c.pinned,
    conversations.c.messages,
    conversations.c.leaf_id,
    conversations.c.created_at,
    conversations.c.active_at,
)
_ORDER = (conversations.c.pinned, conversations.c.active_at, conversations.c.id)


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """One conversation's row."""

    id: UUID
    assistant: str
    title: str | None
    archived: bool
    pinned: bool
    messages: int
    leaf_id: UUID | None
    created_at: datetime
    active_at: datetime

    @property
    def place(self) -> Place:
        """Where it stands in the list."""
        return Place(self.pinned, self.active_at, self.id)


async def count(connection: AsyncConnection, owner: str) -> int:
    """Return how many conversations somebody has."""
    query = select(func.count()).select_from(conversations).where(conversations.c.owner == owner)
    return (await connection.execute(query)).scalar_one()


async def insert(
    connection: AsyncConnection, identity: UUID, owner: str, assistant: str, title: str | None
) -> StoredConversation:
    """Add a conversation."""
    query = conversations.insert().values(id=identity, owner=owner, assistant=assistant, title=title)
    return _conversation((await connection.execute(query.returning(*_SHOWN))).one())


async def get(connection: AsyncConnection, owner: str, identity: UUID) -> StoredConversation | None:
    """Return one conversation, None when it is not the owner's."""
    row = (await connection.execute(select(*_SHOWN).where(*_of(owner, identity)))).one_or_none()
    return None if row is None else _conversation(row)


async def page(
    connection: AsyncConnection, owner: str, *, archived: bool, words: str, after: Place | None, limit: int
) -> Sequence[StoredConversation]:
    """Return up to `limit` conversations that contain `words` ("" for all) in the title or in a message."""
    query = select(*_SHOWN).where(conversations.c.owner == owner, conversations.c.archived == archived)
    if after is not None:
        query = query.where(tuple_(*_ORDER) < tuple_(*after))
    if words:
        said = select(messages.c.id).where(
            messages.c.conversation_id == conversations.c.id, messages.c.content.icontains(words, autoescape=True)
        )
        query = query.where(or_(conversations.c.title.icontains(words, autoescape=True), said.exists()))
    query = query.order_by(*(column.desc() for column in _ORDER)).limit(limit)
    return [_conversation(row) for row in await connection.execute(query)]


async def change(
    connection: AsyncConnection, owner: str, identity: UUID, values: Mapping[str, object]
) -> StoredConversation | None:
    """Set some of `title`, `archived` and `pinned`; None when it is not the owner's."""
    if not values:
        return await get(connection, owner, identity)
    query = conversations.update().where(*_of(owner, identity)).values(**values).returning(*_SHOWN)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _conversation(row)


async def delete(connection: AsyncConnection, owner: str, identity: UUID) -> bool:
    """Remove a conversation with all that is in it; False when it is not the owner's."""
    return (await connection.execute(conversations.delete().where(*_of(owner, identity)))).rowcount > 0


async def delete_all(connection: AsyncConnection, owner: str) -> None:
    """Remove every conversation of an owner who goes."""
    await connection.execute(conversations.delete().where(conversations.c.owner == owner))


def _of(owner: str, identity: UUID) -> tuple[Any, ...]:
    return conversations.c.id == identity, conversations.c.owner == owner


def _conversation(row: Sequence[Any]) -> StoredConversation:
    return StoredConversation(*row)
