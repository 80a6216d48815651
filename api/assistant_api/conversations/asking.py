"""Go on with a conversation: from what a caller sends to an answer under way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid4

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api import errors
from assistant_api.assistants.service import find
from assistant_api.chat.service import Retrieve
from assistant_api.clients import Clients
from assistant_api.conversations import running
from assistant_api.conversations.answering import Question
from assistant_api.conversations.history import MAX_CONTEXT_BYTES, Said, history
from assistant_api.conversations.running import Beginning, Start, Step
from assistant_api.conversations.turns import Turns
from assistant_api.errors import ApiError, invalid_field
from assistant_api.tenant_config import ActiveConfig

MAX_MESSAGES = 2_000  # of one conversation, with all branches
MAX_DERIVED_TITLE_CHARACTERS = 80  # of a title that is taken from the first message

Kind = Literal["message", "edit", "regenerate"]
_ROLES: dict[Kind, str] = {"message": "assistant", "edit": "user", "regenerate": "assistant"}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller wants: a new message after `target` (or the active path), another version of it, or of an answer.

    `key` names the request, so that it may be sent again.
    """

    owner: str
    conversation: UUID
    kind: Kind
    target: UUID | None
    content: str
    key: str | None
    request_id: str

    @property
    def fingerprint(self) -> str:
        """Return what tells this request from another one with the same key."""
        target = None if self.target is None else str(self.target)
        return hashlib.sha256(msgspec.json.encode([self.kind, target, self.content])).hexdigest()


@dataclass(frozen=True, slots=True)
class Tools:
    """What an answer takes."""

    active_config: ActiveConfig
    clients: Clients
    turns: Turns
    retrieve: Retrieve


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer that is under way, or that the same request has begun before; `omitted_turns` is None then."""

    answer: UUID
    omitted_turns: int | None


async def begin(ask: Ask, tools: Tools) -> Begun:
    """Write the messages down and have the answer written; two round trips to the database when all goes well."""
    tools.turns.check()
    async with tools.clients.database.single() as connection:
        start = await running.start(
            connection, ask.owner, ask.conversation, ask.target, above=ask.kind != "message", most=MAX_CONTEXT_BYTES
        )
        if start is None:
            raise ApiError(errors.CONVERSATION_NOT_FOUND)
        _check_target(ask, start)
        assistant = find(tools.active_config, start.assistant)
        asked, path = _question(ask, start.path)
        sent = history([Said(step.depth, step.role, step.content) for step in path], asked)
        beginning = _beginning(ask, start.path, sent.omitted_turns)
        begun = await _try(connection, beginning)
    if begun is not True:
        if (repeated := await _repeated(ask, tools)) is not None:
            return Begun(repeated, None)
        if begun is None:
            begun = await _begin_again(beginning, tools)
        if not begun:
            raise ApiError(errors.CONVERSATION_FULL, limit=MAX_MESSAGES)
    question = Question(
        assistant.name, sent.messages, tools.active_config, tools.clients, tools.retrieve, ask.request_id
    )
    tools.turns.start(ask.conversation, beginning.answer, beginning.lease, question)
    return Begun(beginning.answer, sent.omitted_turns)


async def _try(connection: AsyncConnection, beginning: Beginning) -> bool | None:
    """Begin; False when the conversation is full, None when another answer is under way, or the key is used."""
    try:
        return await running.begin(connection, beginning, MAX_MESSAGES)
    except IntegrityError:
        return None


async def _repeated(ask: Ask, tools: Tools) -> UUID | None:
    """Return the answer that the same request has begun before."""
    if ask.key is None:
        return None
    async with tools.clients.database.reading() as connection:
        found = await running.by_key(connection, ask.conversation, ask.key)
    if found is None:
        return None
    answer, fingerprint = found
    if fingerprint != ask.fingerprint:
        raise ApiError(errors.IDEMPOTENCY_KEY_REUSED)
    return answer


async def _begin_again(beginning: Beginning, tools: Tools) -> bool:
    """Begin after another answer's process has died; ApiError while an answer is really under way."""
    async with tools.clients.database.single() as connection:
        await running.give_up(connection, beginning.conversation)
        begun = await _try(connection, beginning)
    if begun is None:
        raise ApiError(errors.ANSWER_UNDER_WAY, retry_after=1)
    return begun


def _check_target(ask: Ask, start: Start) -> None:
    if ask.target is None or start.target_role == _ROLES[ask.kind]:
        return
    if ask.kind == "message":
        raise invalid_field("parent_id", "value")
    raise ApiError(errors.MESSAGE_NOT_FOUND)


def _question(ask: Ask, path: Sequence[Step]) -> tuple[str, list[Step]]:
    """Return what is asked, and the path before it."""
    if ask.kind == "regenerate":
        return path[-1].content, list(path[:-1])
    return ask.content, list(path)


def _beginning(ask: Ask, path: Sequence[Step], omitted: int) -> Beginning:
    again = ask.kind == "regenerate"
    depth = path[-1].depth + 1 if path else 0
    return Beginning(
        conversation=ask.conversation,
        owner=ask.owner,
        answer=uuid4(),
        lease=uuid4(),
        depth=depth if again else depth + 1,
        parent=path[-1].id if path else None,
        question=None if again else uuid4(),
        content=None if again else ask.content,
        title=None if again else " ".join(ask.content.split())[:MAX_DERIVED_TITLE_CHARACTERS] or None,
        omitted=omitted,
        key=ask.key,
        fingerprint=None if ask.key is None else ask.fingerprint,
    )
