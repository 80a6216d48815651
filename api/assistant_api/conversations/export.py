"""A conversation as a file: JSON with every branch, or Markdown with the active path. Written page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import msgspec

from assistant_api.clients import Database
from assistant_api.conversations import messages
from assistant_api.conversations.messages import StoredMessage
from assistant_api.conversations.schemas import ConversationView
from assistant_api.conversations.threads import Shown

PAGE_SIZE = 20  # messages that are held at a time


async def as_json(conversation: ConversationView, database: Database, shown: Shown) -> AsyncIterator[bytes]:
    """Return the conversation with its messages in the order in which they came; `parent_id` makes them a tree."""
    head = msgspec.json.encode({"conversation": conversation})
    yield head[:-1] + b',"messages":['
    sequence, first = 0, True
    while found := await _after(database, conversation.id, sequence):
        for message in found:
            yield (b"" if first else b",") + msgspec.json.encode(shown.view(message))
            first = False
        sequence = found[-1].sequence
    yield b"]}\n"


async def as_markdown(conversation: ConversationView, database: Database, shown: Shown) -> AsyncIterator[bytes]:
    """Return the active path to be read by people."""
    title = " ".join((conversation.title or conversation.assistant).split())
    yield f"# {title}\n".encode()
    path = await _path_of(database, conversation)
    for start in range(0, len(path), PAGE_SIZE):
        for message in await _some(database, conversation.id, path[start : start + PAGE_SIZE]):
            yield _section(message, conversation.assistant, shown).encode()


def _section(message: StoredMessage, assistant: str, shown: Shown) -> str:
    speaker = shown.catalogs.text(shown.language, "conversations.you") if message.role == "user" else assistant
    sources = dict.fromkeys(
        (annotation.url_citation.title, annotation.url_citation.url) for annotation in shown.view(message).annotations
    )
    links = "".join(f"- [{title}]({url})\n" for title, url in sources)
    moment = message.created_at.strftime("%Y-%m-%d %H:%M UTC")
    return f"\n## {speaker} ({moment})\n\n{message.content.rstrip()}\n" + (f"\n{links}" if links else "")


async def _after(database: Database, conversation: UUID, sequence: int) -> list[StoredMessage]:
    async with database.reading() as connection:
        return await messages.after(connection, conversation, sequence, PAGE_SIZE)


async def _path_of(database: Database, conversation: ConversationView) -> list[UUID]:
    """Return the ids of the active path: from its end upwards, so it has to be known before it is written."""
    if conversation.active_message_id is None:
        return []
    async with database.reading() as connection:
        return await messages.path_ids(connection, conversation.id, conversation.active_message_id)


async def _some(database: Database, conversation: UUID, identities: list[UUID]) -> list[StoredMessage]:
    async with database.reading() as connection:
        found = await messages.some(connection, conversation, identities)
    return [found[identity] for identity in identities if identity in found]
