"""`/api/v1/conversations`: the caller's own conversations."""

from __future__ import annotations

from litestar import Controller, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from assistant_api.asgi import JSON
from assistant_api.body import read_json_as
from assistant_api.clients import Clients
from assistant_api.conversations import service, threads
from assistant_api.conversations.dependencies import DEPENDENCIES, ApiRequest
from assistant_api.conversations.export import as_json, as_markdown
from assistant_api.conversations.openapi import ActivateOperation, ChangeOperation, CreateOperation, ExportOperation
from assistant_api.conversations.schemas import (
    ConversationPage,
    ConversationView,
    decode_active,
    decode_change,
    decode_new_conversation,
)
from assistant_api.conversations.threads import Shown, Thread
from assistant_api.database.unavailable import DATABASE_AWAY
from assistant_api.errors import invalid_field
from assistant_api.tenant_config import ActiveConfig

MAX_BODY_BYTES = 16 * 1024  # of what is no message

JSON_FORMAT = "json"
_WRITERS = {
    JSON_FORMAT: (as_json, JSON, "json"),
    "markdown": (as_markdown, "text/markdown; charset=utf-8", "md"),
}


class ConversationController(Controller):
    """The caller's conversations."""

    path = "/conversations"
    tags = ["Conversations"]
    dependencies = DEPENDENCIES
    exception_handlers = DATABASE_AWAY

    @post("/", summary="Begin a conversation", operation_class=CreateOperation)
    async def create(
        self, request: ApiRequest, active_config: NamedDependency[ActiveConfig], clients: NamedDependency[Clients]
    ) -> ConversationView:
        """Begin a conversation with an assistant. Without a title it takes the first words that are said in it."""
        new = await read_json_as(decode_new_conversation, request.headers, request.receive, MAX_BODY_BYTES)
        return await service.create(new, request.auth.user, active_config, clients.database)

    @get("/", summary="List conversations")
    async def list_conversations(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        limit: FromQuery[int] = 20,
        cursor: FromQuery[str | None] = None,
        archived: FromQuery[bool] = False,
        q: FromQuery[str | None] = None,
    ) -> ConversationPage:
        """Return up to `limit` of the caller's conversations from `cursor` on: pinned ones first, then the newest.

        `q` keeps those that have these words, in this order, in their title or in any message. Archived ones are in a
        list of their own.
        """
        return await service.list_conversations(
            request.auth.user, clients.database, archived=archived, words=q or "", limit=limit, cursor=cursor
        )

    @get("/{conversation:str}", summary="Get one conversation")
    async def get_conversation(
        self, request: ApiRequest, clients: NamedDependency[Clients], conversation: FromPath[str]
    ) -> ConversationView:
        """Return one conversation without its messages."""
        return await service.get(request.auth.user, clients.database, conversation)

    @patch("/{conversation:str}", summary="Rename, archive or pin a conversation", operation_class=ChangeOperation)
    async def change(
        self, request: ApiRequest, clients: NamedDependency[Clients], conversation: FromPath[str]
    ) -> ConversationView:
        """Change what is given and leave the rest; this is no activity, so the order of the list stays."""
        changes = await read_json_as(decode_change, request.headers, request.receive, MAX_BODY_BYTES)
        return await service.change(request.auth.user, clients.database, conversation, changes)

    @put(
        "/{conversation:str}/active",
        summary="Choose the active branch",
        operation_class=ActivateOperation,
    )
    async def activate(self, request: ApiRequest, thread: NamedDependency[Thread]) -> ConversationView:
        """Make the branch of a message the active path: from the beginning to it, and on to its newest end."""
        chosen = await read_json_as(decode_active, request.headers, request.receive, MAX_BODY_BYTES)
        return await threads.activate(thread, chosen.message_id)

    @get("/{conversation:str}/export", summary="Export a conversation", operation_class=ExportOperation)
    async def export(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        shown: NamedDependency[Shown],
        conversation: FromPath[str],
        format: FromQuery[str] = JSON_FORMAT,  # noqa: A002
    ) -> Stream:
        """Return the conversation as a file: `json` with all branches, `markdown` with the active path."""
        if format not in _WRITERS:
            raise invalid_field("format", "choices", choices=", ".join(_WRITERS))
        found = await service.get(request.auth.user, clients.database, conversation)
        write, media_type, suffix = _WRITERS[format]
        headers = {"content-disposition": f'attachment; filename="conversation-{found.id}.{suffix}"'}
        content = write(found, clients.database, shown)
        return Stream(content, media_type=media_type, headers=headers)

    @delete("/{conversation:str}", summary="Delete a conversation")
    async def delete_conversation(
        self, request: ApiRequest, clients: NamedDependency[Clients], conversation: FromPath[str]
    ) -> None:
        """Delete a conversation with all its messages, at once."""
        await service.delete(request.auth.user, clients.database, conversation)
