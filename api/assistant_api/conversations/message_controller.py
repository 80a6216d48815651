"""`/api/v1/conversations/{id}/messages`: what is said, and the answers as they come."""

from __future__ import annotations

from uuid import UUID

import msgspec
from litestar import Controller, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from assistant_api import errors
from assistant_api.asgi import BufferedResponse
from assistant_api.body import read_json_as
from assistant_api.chat.stream import EVENT_STREAM
from assistant_api.clients import Clients
from assistant_api.conversations import asking, threads
from assistant_api.conversations.asking import Ask, Begun, Kind, Tools
from assistant_api.conversations.controller import MAX_BODY_BYTES, ApiRequest
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
    TurnView,
    decode_edited,
    decode_feedback,
    decode_message,
)
from assistant_api.conversations.service import check_text, conversation_id
from assistant_api.conversations.stream import LAST_EVENT_ID, AnswerStream, event, place_of
from assistant_api.conversations.threads import shown_to
from assistant_api.conversations.turns import Turns
from assistant_api.database.errors import DATABASE_ERRORS
from assistant_api.disconnect import cancel_on_disconnect
from assistant_api.errors import ApiError, invalid_field, storage_unavailable
from assistant_api.tenant_config import ActiveConfig

MAX_MESSAGE_BODY_BYTES = 256 * 1024
MAX_IDEMPOTENCY_KEY_LENGTH = 255  # characters
_PATH = "/{conversation:str}/messages"


class MessageController(Controller):
    """Messages of the caller's conversations."""

    path = "/conversations"
    tags = ["Conversations"]
    exception_handlers = dict.fromkeys(DATABASE_ERRORS, storage_unavailable)

    @get(_PATH, summary="Read a conversation")
    async def list_messages(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        conversation: FromPath[str],
        limit: FromQuery[int] = 20,
        cursor: FromQuery[str | None] = None,
    ) -> MessagePage:
        """Return the last `limit` messages of the active path, in its order; `next_cursor` asks for those before.

        A page has fewer messages when they are long.
        """
        return await threads.list_messages(
            request.auth.user, clients.database, conversation, limit=limit, cursor=cursor, shown=shown_to(request)
        )

    @post(_PATH, summary="Say something", status_code=200, operation_class=MessageOperation)
    async def say(
        self,
        request: ApiRequest,
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
        conversation: FromPath[str],
    ) -> ASGIApp:
        """Say something and get the answer: whole, or as events where `text/event-stream` is accepted.

        Both messages are kept, and the answer goes on, even when the caller goes away.
        """
        new = await read_json_as(decode_message, request.headers, request.receive, MAX_MESSAGE_BODY_BYTES)
        _check_content(new.content)
        ask = _ask(request, conversation, "message", new.parent_id, new.content)
        return await _answer(ask, request, active_config, clients)

    @get(_PATH + "/{message:str}", summary="Get one message")
    async def get_message(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        conversation: FromPath[str],
        message: FromPath[str],
    ) -> MessageView:
        """Return one message of any branch."""
        return await threads.get(request.auth.user, clients.database, conversation, message, shown_to(request))

    @get(
        _PATH + "/{message:str}/events",
        summary="Follow an answer",
        operation_class=EventsOperation,
        media_type=EVENT_STREAM,
    )
    async def follow(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        conversation: FromPath[str],
        message: FromPath[str],
    ) -> ASGIApp:
        """Return the events of an answer: all of them, or those after `Last-Event-ID`, each once.

        204 where the last one has been seen, which tells a browser not to ask again.
        """
        after = place_of(request.headers.get(LAST_EVENT_ID))
        found = await threads.find(request.auth.user, clients.database, conversation, message)
        if found.role != "assistant":
            raise ApiError(errors.MESSAGE_NOT_FOUND)
        if after is None and found.status != "running":
            return ASGIResponse(status_code=204)
        known = conversation_id(conversation)
        first = b"" if after else _started(known, found.id, found.parent_id, found.omitted_turns)
        return _stream(request, clients, known, found.id, after or 0, first)

    @post(_PATH + "/{message:str}/edit", summary="Say it differently", status_code=200, operation_class=EditOperation)
    async def edit(
        self,
        request: ApiRequest,
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
        conversation: FromPath[str],
        message: FromPath[str],
    ) -> ASGIApp:
        """Say something else instead of a message, in a branch of its own, which becomes the active one."""
        new = await read_json_as(decode_edited, request.headers, request.receive, MAX_MESSAGE_BODY_BYTES)
        _check_content(new.content)
        ask = _ask(request, conversation, "edit", threads.message_id(message), new.content)
        return await _answer(ask, request, active_config, clients)

    @post(
        _PATH + "/{message:str}/regenerate",
        summary="Answer again",
        status_code=200,
        operation_class=RegenerateOperation,
    )
    async def regenerate(
        self,
        request: ApiRequest,
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
        conversation: FromPath[str],
        message: FromPath[str],
    ) -> ASGIApp:
        """Have an answer written once more, beside the one that there is; the new one becomes the active one."""
        ask = _ask(request, conversation, "regenerate", threads.message_id(message), "")
        return await _answer(ask, request, active_config, clients)

    @post(_PATH + "/{message:str}/stop", summary="Stop an answer", status_code=202)
    async def stop(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        conversation: FromPath[str],
        message: FromPath[str],
    ) -> None:
        """Have an answer end with what there is of it, within a second or two on whatever replica it is written."""
        await threads.stop(request.auth.user, clients.database, _turns(request), conversation, message)

    @put(
        _PATH + "/{message:str}/feedback",
        summary="Rate an answer",
        status_code=204,
        operation_class=FeedbackOperation,
    )
    async def rate(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        conversation: FromPath[str],
        message: FromPath[str],
    ) -> None:
        """Say whether an answer was good, and why; it replaces what was said of it before."""
        new = await read_json_as(decode_feedback, request.headers, request.receive, MAX_BODY_BYTES)
        await threads.rate(request.auth.user, clients.database, conversation, message, new)

    @delete(_PATH + "/{message:str}/feedback", summary="Take a rating back")
    async def unrate(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        conversation: FromPath[str],
        message: FromPath[str],
    ) -> None:
        """Forget what was said of an answer."""
        await threads.rate(request.auth.user, clients.database, conversation, message, None)


def _ask(request: ApiRequest, conversation: str, kind: Kind, target: UUID | None, content: str) -> Ask:
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= MAX_IDEMPOTENCY_KEY_LENGTH and key.isascii() and key.isprintable()):
        raise invalid_field("Idempotency-Key", "range_length", low="1", high=str(MAX_IDEMPOTENCY_KEY_LENGTH))
    return Ask(
        request.auth.user,
        conversation_id(conversation),
        kind,
        target,
        content,
        key,
        errors.request_id(request.scope),
    )


async def _answer(ask: Ask, request: ApiRequest, active_config: ActiveConfig, clients: Clients) -> ASGIApp:
    turns, retrieve = _turns(request), request.app.state.retrieve
    tools = Tools(active_config, clients, turns, retrieve)
    begun = await asking.begin(ask, tools)
    if EVENT_STREAM in request.headers.get("accept", ""):
        first = await _first(begun, ask, request, clients)
        return _stream(request, clients, ask.conversation, begun.answer, 0, first)
    async with turns.reading(ask.conversation, begun.answer) as turn, cancel_on_disconnect(request.receive):
        await turn.finished()
    if turn.error is not None and not turn.length and begun.omitted_turns is not None:
        raise turn.error
    found: TurnView = await threads.turn(clients.database, ask.conversation, begun.answer, shown_to(request))
    return BufferedResponse(200, {}, msgspec.json.encode(found))


async def _first(begun: Begun, ask: Ask, request: ApiRequest, clients: Clients) -> bytes:
    found = await threads.find(ask.owner, clients.database, str(ask.conversation), str(begun.answer))
    return _started(ask.conversation, found.id, found.parent_id, found.omitted_turns)


def _started(conversation: UUID, answer: UUID, question: UUID | None, omitted: int) -> bytes:
    data = {
        "conversation_id": conversation,
        "message_id": answer,
        "user_message_id": question,
        "omitted_turns": omitted,
    }
    return event("message.started", msgspec.json.encode(data), "0")


def _stream(
    request: ApiRequest, clients: Clients, conversation: UUID, answer: UUID, after: int, first: bytes
) -> AnswerStream:
    shown, owner = shown_to(request), request.auth.user

    async def last() -> tuple[str, bytes]:
        found = await threads.get(owner, clients.database, str(conversation), str(answer), shown)
        if found.status == "running":  # another process writes it, and this one ends: ask again
            return "", b""
        name = "message.completed" if found.status in {"complete", "stopped"} else "message.failed"
        return name, msgspec.json.encode(found)

    return AnswerStream(_turns(request), conversation, answer, after, first, last)


def _turns(request: ApiRequest) -> Turns:
    turns: Turns = request.app.state.turns
    return turns


def _check_content(content: str) -> None:
    if not content:
        raise invalid_field("content", "empty")
    check_text("content", content)
