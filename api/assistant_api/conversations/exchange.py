"""One request for an answer: from the caller's headers and body to the answer, whole or as server-sent events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import msgspec
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from assistant_api import errors
from assistant_api.asgi import BufferedResponse
from assistant_api.body import read_json_as
from assistant_api.chat.service import Retrieve
from assistant_api.chat.stream import EVENT_STREAM
from assistant_api.clients import Clients
from assistant_api.conversations import asking, threads
from assistant_api.conversations.asking import Ask, Kind, Tools
from assistant_api.conversations.dependencies import ApiRequest
from assistant_api.conversations.messages import StoredMessage
from assistant_api.conversations.stream import AnswerStream, event
from assistant_api.conversations.threads import Shown, Thread
from assistant_api.conversations.turns import Turns
from assistant_api.disconnect import cancel_on_disconnect
from assistant_api.errors import invalid_field
from assistant_api.tenant_config import ActiveConfig

MAX_MESSAGE_BODY_BYTES = 256 * 1024
MAX_IDEMPOTENCY_KEY_LENGTH = 255  # characters

Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request for an answer in a conversation, with everything that answering it needs."""

    request: ApiRequest
    thread: Thread
    shown: Shown
    tools: Tools

    async def read(self, decode: Callable[[bytes], Body]) -> Body:
        """Return the request's body; the ApiError names what is wrong with it."""
        return await read_json_as(decode, self.request.headers, self.request.receive, MAX_MESSAGE_BODY_BYTES)

    async def respond(self, kind: Kind, target: UUID | None, content: str) -> ASGIApp:
        """Have the assistant answer, and return the answer: whole, or as events where the caller accepts them."""
        ask = self._ask(kind, target, content)
        begun = await asking.begin(ask, self.tools)
        if EVENT_STREAM in self.request.headers.get("accept", ""):
            found = await threads.find(self.thread, str(begun.answer))
            return self.stream(begun.answer, 0, self.started(found))
        reading = self.tools.turns.reading(ask.conversation, begun.answer)
        async with reading as turn, cancel_on_disconnect(self.request.receive):
            await turn.finished()
        if turn.error is not None and not turn.length and begun.omitted_turns is not None:
            raise turn.error
        answered = await threads.turn(self.thread, begun.answer, self.shown)
        return BufferedResponse(200, {}, msgspec.json.encode(answered))

    def started(self, answer: StoredMessage) -> bytes:
        """Return the event with which the stream of an answer begins."""
        data = {
            "conversation_id": self.thread.id,
            "message_id": answer.id,
            "user_message_id": answer.parent_id,
            "omitted_turns": answer.omitted_turns,
        }
        return event("message.started", msgspec.json.encode(data), "0")

    def stream(self, answer: UUID, after: int, first: bytes) -> AnswerStream:
        """Return the events of an answer after the character `after`, with `first` before them."""

        async def last() -> tuple[str, bytes]:
            found = await threads.get(self.thread, str(answer), self.shown)
            if found.status == "running":  # another process writes it, and this one ends: ask again
                return "", b""
            name = "message.completed" if found.status in {"complete", "stopped"} else "message.failed"
            return name, msgspec.json.encode(found)

        return AnswerStream(self.tools.turns, self.thread.id, answer, after, first, last)

    def _ask(self, kind: Kind, target: UUID | None, content: str) -> Ask:
        key = self.request.headers.get("idempotency-key")
        if key is not None and not (
            1 <= len(key) <= MAX_IDEMPOTENCY_KEY_LENGTH and key.isascii() and key.isprintable()
        ):
            raise invalid_field("Idempotency-Key", "range_length", low="1", high=str(MAX_IDEMPOTENCY_KEY_LENGTH))
        request_id = errors.request_id(self.request.scope)
        return Ask(self.thread.owner, self.thread.id, kind, target, content, key, request_id)


def exchange(  # noqa: PLR0913, PLR0917  each is injected
    request: ApiRequest,
    thread: NamedDependency[Thread],
    shown: NamedDependency[Shown],
    active_config: NamedDependency[ActiveConfig],
    clients: NamedDependency[Clients],
    turns: NamedDependency[Turns],
    retrieve: NamedDependency[Retrieve],
) -> Exchange:
    """Return the exchange of a request; Litestar injects the arguments."""
    return Exchange(request, thread, shown, Tools(active_config, clients, turns, retrieve))
