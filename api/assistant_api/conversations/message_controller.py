"""`/api/v1/conversations/{id}/messages`: what is said, and the answers as they come."""

from __future__ import annotations

from litestar import Controller, delete, get, post, put
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from assistant_api import errors
from assistant_api.body import read_json_as
from assistant_api.chat.stream import EVENT_STREAM
from assistant_api.conversations import threads
from assistant_api.conversations.controller import MAX_BODY_BYTES
from assistant_api.conversations.dependencies import DEPENDENCIES, ApiRequest
from assistant_api.conversations.exchange import Exchange, exchange
from assistant_api.conversations.openapi import (
    EditOperation,
    EventsOperation,
    FeedbackOperation,
    MessageOperation,
    RegenerateOperation,
)
from assistant_api.conversations.schemas import (
    MessagePage,
    MessageView,
    decode_edited,
    decode_feedback,
    decode_message,
)
from assistant_api.conversations.service import check_text
from assistant_api.conversations.stream import LAST_EVENT_ID, place_of
from assistant_api.conversations.threads import Shown, Thread
from assistant_api.conversations.turns import Turns
from assistant_api.database.unavailable import DATABASE_AWAY
from assistant_api.errors import ApiError, invalid_field

_PATH = "/{conversation:str}/messages"


class MessageController(Controller):
    """Messages of the caller's conversations."""

    path = "/conversations"
    tags = ["Conversations"]
    dependencies = {**DEPENDENCIES, "exchange": Provide(exchange, sync_to_thread=False)}
    exception_handlers = DATABASE_AWAY

    @get(_PATH, summary="Read a conversation")
    async def list_messages(
        self,
        thread: NamedDependency[Thread],
        shown: NamedDependency[Shown],
        limit: FromQuery[int] = 20,
        cursor: FromQuery[str | None] = None,
    ) -> MessagePage:
        """Return the last `limit` messages of the active path, in its order; `next_cursor` asks for those before.

        A page has fewer messages when they are long.
        """
        return await threads.list_messages(thread, limit=limit, cursor=cursor, shown=shown)

    @post(_PATH, summary="Say something", status_code=200, operation_class=MessageOperation)
    async def say(self, exchange: NamedDependency[Exchange]) -> ASGIApp:
        """Say something and get the answer: whole, or as events where `text/event-stream` is accepted.

        Both messages are kept, and the answer goes on, even when the caller goes away.
        """
        new = await exchange.read(decode_message)
        return await exchange.respond("message", new.parent_id, _checked(new.content))

    @get(_PATH + "/{message:str}", summary="Get one message")
    async def get_message(
        self, thread: NamedDependency[Thread], shown: NamedDependency[Shown], message: FromPath[str]
    ) -> MessageView:
        """Return one message of any branch."""
        return await threads.get(thread, message, shown)

    @get(
        _PATH + "/{message:str}/events",
        summary="Follow an answer",
        operation_class=EventsOperation,
        media_type=EVENT_STREAM,
    )
    async def follow(self, exchange: NamedDependency[Exchange], message: FromPath[str]) -> ASGIApp:
        """Return the events of an answer: all of them, or those after `Last-Event-ID`, each once.

        204 where the last one has been seen, which tells a browser not to ask again.
        """
        after = place_of(exchange.request.headers.get(LAST_EVENT_ID))
        found = await threads.find(exchange.thread, message)
        if found.role != "assistant":
            raise ApiError(errors.MESSAGE_NOT_FOUND)
        if after is None and found.status != "running":
            return ASGIResponse(status_code=204)
        return exchange.stream(found.id, after or 0, b"" if after else exchange.started(found))

    @post(_PATH + "/{message:str}/edit", summary="Say it differently", status_code=200, operation_class=EditOperation)
    async def edit(self, exchange: NamedDependency[Exchange], message: FromPath[str]) -> ASGIApp:
        """Say something else instead of a message, in a branch of its own, which becomes the active one."""
        new = await exchange.read(decode_edited)
        return await exchange.respond("edit", threads.message_id(message), _checked(new.content))

    @post(
        _PATH + "/{message:str}/regenerate",
        summary="Answer again",
        status_code=200,
        operation_class=RegenerateOperation,
    )
    async def regenerate(self, exchange: NamedDependency[Exchange], message: FromPath[str]) -> ASGIApp:
        """Have an answer written once more, beside the one that there is; the new one becomes the active one."""
        return await exchange.respond("regenerate", threads.message_id(message), "")

    @post(_PATH + "/{message:str}/stop", summary="Stop an answer", status_code=202)
    async def stop(
        self, thread: NamedDependency[Thread], turns: NamedDependency[Turns], message: FromPath[str]
    ) -> None:
        """Have an answer end with what there is of it, within a second or two on whatever replica it is written."""
        await threads.stop(thread, turns, message)

    @put(
        _PATH + "/{message:str}/feedback",
        summary="Rate an answer",
        status_code=204,
        operation_class=FeedbackOperation,
    )
    async def rate(self, request: ApiRequest, thread: NamedDependency[Thread], message: FromPath[str]) -> None:
        """Say whether an answer was good, and why; it replaces what was said of it before."""
        new = await read_json_as(decode_feedback, request.headers, request.receive, MAX_BODY_BYTES)
        await threads.rate(thread, message, new)

    @delete(_PATH + "/{message:str}/feedback", summary="Take a rating back")
    async def unrate(self, thread: NamedDependency[Thread], message: FromPath[str]) -> None:
        """Forget what was said of an answer."""
        await threads.rate(thread, message, None)


def _checked(content: str) -> str:
    if not content:
        raise invalid_field("content", "empty")
    check_text("content", content)
    return content
