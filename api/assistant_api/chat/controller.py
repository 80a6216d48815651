"""The route of `POST /v1/chat/completions`, as Litestar and its OpenAPI description know it."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, post
from litestar.datastructures import State
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
    async def complete(self, request: Request[Any, Any, State]) -> ASGIApp:
        """Answer a conversation, streamed or whole, with the passages that the answer rests on as annotations."""
        chat: Chat = request.app.state.chat
        return chat
