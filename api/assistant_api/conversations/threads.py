"""What a caller may do with the messages of its conversations, apart from asking for answers (`asking.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import msgspec

from assistant_api import errors
from assistant_api.chat.schemas import Annotation
from assistant_api.clients import Database
from assistant_api.conversations import messages, repository, running
from assistant_api.conversations.messages import StoredMessage
from assistant_api.conversations.repository import StoredConversation
from assistant_api.conversations.schemas import (
    MAX_COMMENT,
    ConversationView,
    FeedbackView,
    MessageError,
    MessagePage,
    MessageUsage,
    MessageView,
    NewFeedback,
    TurnView,
    decode_annotations,
)
from assistant_api.conversations.service import check_text, conversation_id, view
from assistant_api.conversations.turns import Turns
from assistant_api.errors import ApiError, invalid_field
from assistant_api.i18n import Catalogs
from assistant_api.parameters import check_limit, identifier


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation as its owner's request names it; every function here checks that it exists and is the owner's."""

    owner: str
    database: Database
    identity: str  # as the path has it

    @property
    def id(self) -> UUID:
        """The conversation's id; ApiError 404 where the path holds none."""
        return conversation_id(self.identity)


@dataclass(frozen=True, slots=True)
class Shown:
    """How messages are shown to a caller: links with its `origin`, sentences in its `language`."""

    catalogs: Catalogs
    language: str
    origin: str

    def view(self, message: StoredMessage) -> MessageView:
        """Return a message as the API shows it."""
        tokens = (message.input_tokens, message.output_tokens)
        return MessageView(
            id=message.id,
            parent_id=message.parent_id,
            role=cast("Any", message.role),
            content=message.content,
            status=cast("Any", message.status),
            error=self._error(message.error_code),
            model=message.model,
            annotations=[self._link(each) for each in decode_annotations(message.annotations or "[]")],
            usage=None
            if tokens[0] is None or tokens[1] is None
            else MessageUsage(input_tokens=tokens[0], output_tokens=tokens[1]),
            omitted_turns=message.omitted_turns,
            siblings=list(message.siblings),
            feedback=None
            if message.rating is None
            else FeedbackView(rating=cast("Any", message.rating), comment=message.comment),
            created_at=message.created_at,
            finished_at=message.finished_at,
        )

    def _error(self, code: str | None) -> MessageError | None:
        if code is None:
            return None
        key = f"errors.{code}.title"
        known = key if self.catalogs.has(key) else f"errors.{errors.INTERNAL.code}.title"
        return MessageError(code=code, message=self.catalogs.text(self.language, known))

    def _link(self, annotation: Annotation) -> Annotation:
        # Kept without an origin: under which name this API is reached may change.
        url = msgspec.structs.replace(annotation.url_citation, url=self.origin + annotation.url_citation.url)
        return msgspec.structs.replace(annotation, url_citation=url)


async def list_messages(thread: Thread, *, limit: int, cursor: str | None, shown: Shown) -> MessagePage:
    """Return the end of the active path, or what is before it."""
    check_limit(limit)
    try:
        start = None if cursor is None else UUID(cursor)
    except ValueError as error:
        raise invalid_field("cursor", "value") from error
    async with thread.database.reading() as connection:
        conversation = _known(await repository.get(connection, thread.owner, thread.id))
        last = start or conversation.leaf_id
        found = [] if last is None else await messages.path(connection, conversation.id, last, limit)
    if start is not None and not found:
        raise invalid_field("cursor", "value")
    before = found[0].parent_id if found else None
    return MessagePage(data=[shown.view(each) for each in found], next_cursor=None if before is None else str(before))


async def get(thread: Thread, message: str, shown: Shown) -> MessageView:
    """Return one message."""
    return shown.view(await find(thread, message))


async def turn(thread: Thread, answer: UUID, shown: Shown) -> TurnView:
    """Return an answer with the message that it answers."""
    async with thread.database.reading() as connection:
        found = [shown.view(each) for each in await messages.path(connection, thread.id, answer, 2)]
    if not found:
        raise ApiError(errors.MESSAGE_NOT_FOUND)
    return TurnView(user_message=found[0] if len(found) > 1 else None, message=found[-1])


async def activate(thread: Thread, message: UUID) -> ConversationView:
    """Make the branch of a message the active path, down to its newest end."""
    async with thread.database.transaction() as connection:
        conversation = _known(await repository.get(connection, thread.owner, thread.id))
        end = await messages.end_of_branch(connection, conversation.id, message)
        if end is None:
            raise ApiError(errors.MESSAGE_NOT_FOUND)
        changed = await repository.change(connection, thread.owner, conversation.id, {"leaf_id": end})
    return view(_known(changed))


async def stop(thread: Thread, turns: Turns, message: str) -> None:
    """Stop an answer with what there is of it; nothing happens to one that has ended."""
    found = await find(thread, message)
    if found.status == "running" and not turns.stop(found.id):
        async with thread.database.single() as connection:
            await running.stop(connection, found.id)


async def rate(thread: Thread, message: str, new: NewFeedback | None) -> None:
    """Set what the caller thinks of an answer, or forget it."""
    if new is not None and new.comment is not None:
        if not 1 <= len(new.comment) <= MAX_COMMENT:
            raise invalid_field("comment", "range_length", low="1", high=str(MAX_COMMENT))
        check_text("comment", new.comment)
    found = await find(thread, message)
    if found.role != "assistant":
        raise ApiError(errors.MESSAGE_NOT_FOUND)
    async with thread.database.single() as connection:
        if new is None:
            await messages.unrate(connection, found.id)
        else:
            await messages.rate(connection, found.id, new.rating, new.comment)


def message_id(message: str) -> UUID:
    """Return the id of a message."""
    return identifier(message, errors.MESSAGE_NOT_FOUND)


async def find(thread: Thread, message: str) -> StoredMessage:
    """Return one message's row; ApiError when it is not in this conversation of the caller."""
    conversation = thread.id
    async with thread.database.reading() as connection:
        _known(await repository.get(connection, thread.owner, conversation))
        wanted = message_id(message)
        found = await messages.some(connection, conversation, [wanted])
    if wanted not in found:
        raise ApiError(errors.MESSAGE_NOT_FOUND)
    return found[wanted]


def _known(found: StoredConversation | None) -> StoredConversation:
    if found is None:
        raise ApiError(errors.CONVERSATION_NOT_FOUND)
    return found
