"""What a caller may do with its conversations; their messages are in `threads.py`, new answers in `asking.py`."""

from __future__ import annotations

from uuid import UUID, uuid4

from assistant_api import errors
from assistant_api.assistants.service import find
from assistant_api.clients import Database
from assistant_api.conversations import repository
from assistant_api.conversations.cursor import Place
from assistant_api.conversations.repository import StoredConversation
from assistant_api.conversations.schemas import (
    MAX_TITLE,
    UNSET,
    ConversationChange,
    ConversationPage,
    ConversationView,
    NewConversation,
)
from assistant_api.errors import ApiError, invalid_field
from assistant_api.parameters import check_limit, from_cursor, identifier, to_cursor
from assistant_api.tenant_config import ActiveConfig

MAX_CONVERSATIONS = 10_000  # of one caller
MAX_QUERY_CHARACTERS = 200  # characters of what is searched


async def create(new: NewConversation, owner: str, active_config: ActiveConfig, database: Database) -> ConversationView:
    """Begin a conversation with an assistant that can be asked now."""
    try:
        assistant = find(active_config, new.assistant)
    except ApiError as error:
        error.field = "assistant"  # which chat completions call `model`
        raise
    title = _title(new.title)
    async with database.transaction() as connection:
        # Two requests at once may exceed the limit by one, which harms nobody.
        if await repository.count(connection, owner) >= MAX_CONVERSATIONS:
            raise ApiError(errors.TOO_MANY_CONVERSATIONS, limit=MAX_CONVERSATIONS)
        found = await repository.insert(connection, uuid4(), owner, assistant.name, title)
    return view(found)


async def list_conversations(
    owner: str, database: Database, *, archived: bool, words: str, limit: int, cursor: str | None
) -> ConversationPage:
    """Return a page of the caller's conversations."""
    check_limit(limit)
    if len(words) > MAX_QUERY_CHARACTERS:
        raise invalid_field("q", "range_length", low="0", high=str(MAX_QUERY_CHARACTERS))
    check_text("q", words)
    after = from_cursor(cursor, Place.unpack)
    async with database.reading() as connection:
        found = await repository.page(connection, owner, archived=archived, words=words, after=after, limit=limit + 1)
    shown = found[:limit]
    return ConversationPage(
        data=[view(conversation) for conversation in shown],
        next_cursor=to_cursor(shown[-1].place.pack()) if len(found) > limit else None,
    )


async def get(owner: str, database: Database, identity: str) -> ConversationView:
    """Return one of the caller's conversations."""
    async with database.reading() as connection:
        found = await repository.get(connection, owner, conversation_id(identity))
    return _view_of(found)


async def change(owner: str, database: Database, identity: str, changes: ConversationChange) -> ConversationView:
    """Rename, archive or pin a conversation, or take that back."""
    values: dict[str, object] = {}
    if changes.title is not UNSET:
        values["title"] = _title(changes.title)
    if changes.archived is not UNSET:
        values["archived"] = changes.archived
    if changes.pinned is not UNSET:
        values["pinned"] = changes.pinned
    async with database.transaction() as connection:
        found = await repository.change(connection, owner, conversation_id(identity), values)
    return _view_of(found)


async def delete(owner: str, database: Database, identity: str) -> None:
    """Delete a conversation with all its messages; an answer that is being written is stopped."""
    async with database.transaction() as connection:
        if not await repository.delete(connection, owner, conversation_id(identity)):
            raise ApiError(errors.CONVERSATION_NOT_FOUND)


def view(found: StoredConversation) -> ConversationView:
    """Return a conversation as the API shows it."""
    return ConversationView(
        id=found.id,
        assistant=found.assistant,
        title=found.title,
        archived=found.archived,
        pinned=found.pinned,
        messages=found.messages,
        active_message_id=found.leaf_id,
        created_at=found.created_at,
        active_at=found.active_at,
    )


def conversation_id(identity: str) -> UUID:
    """Return the id of a conversation."""
    return identifier(identity, errors.CONVERSATION_NOT_FOUND)


def _view_of(found: StoredConversation | None) -> ConversationView:
    if found is None:
        raise ApiError(errors.CONVERSATION_NOT_FOUND)
    return view(found)


def _title(title: object) -> str | None:
    if not isinstance(title, str):
        return None
    if not 1 <= len(title) <= MAX_TITLE:
        raise invalid_field("title", "range_length", low="1", high=str(MAX_TITLE))
    check_text("title", title)
    return title


def check_text(field: str, words: str) -> None:
    """Refuse what the database cannot keep."""
    if "\0" in words:  # Postgres keeps every character but this one
        raise invalid_field(field, "value")
