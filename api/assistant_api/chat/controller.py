"""The route of `POST /v1/chat/completions`, as Litestar and its OpenAPI description know it."""

from __future__ import annotations

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from assistant_api.chat.endpoint import Chat
from assistant_api.chat.openapi import ChatOperation


class ChatController(Controller):
    """Chat completions in OpenAI's wire format."""

    path = "/chat"
    tags = ["OpenAI"]

    @post(
        "/completions",
        status_code=200,
        summary="Ask an assistant",
        operation_class=ChatOperation,
        media_type="application/json",
    )
    async def complete(self, chat: NamedDependency[Chat]) -> ASGIApp:
        """Answer a conversation, streamed or whole, with the passages that the answer rests on as annotations."""
        return chat
