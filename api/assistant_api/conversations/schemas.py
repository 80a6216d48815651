"""What conversations look like on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from assistant_api.chat.schemas import Annotation

MAX_TITLE = 200  # characters
MAX_COMMENT = 2000  # characters
Unset = msgspec.UnsetType
UNSET = msgspec.UNSET


class ConversationView(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation; `active_message_id` is the end of its active path, `messages` counts those of all branches."""

    id: UUID
    assistant: str
    title: str | None
    archived: bool
    pinned: bool
    messages: int
    active_message_id: UUID | None
    created_at: datetime
    active_at: datetime


class ConversationPage(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations, the pinned ones first, then by their last activity; `next_cursor` is None at the end."""

    data: list[ConversationView]
    next_cursor: str | None


class NewConversation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With which assistant to begin a conversation."""

    assistant: str
    title: str | None = None


class ConversationChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays, a title of null goes."""

    title: str | Unset | None = UNSET
    archived: bool | Unset = UNSET
    pinned: bool | Unset = UNSET


class ActiveMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message whose branch becomes the active one."""

    message_id: UUID


class NewFeedback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody thinks of an answer."""

    rating: Literal["up", "down"]
    comment: str | None = None


class NewMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody says, after the answer `parent_id`; without one, at the end of the active path."""

    content: str
    parent_id: UUID | None = None


class EditedMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody would rather have said."""

    content: str


class FeedbackView(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner thinks of an answer."""

    rating: Literal["up", "down"]
    comment: str | None


class MessageError(msgspec.Struct, frozen=True, kw_only=True):
    """Why an answer did not come to its end; the code is stable."""

    code: str
    message: str


class MessageUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens that the model reported for an answer."""

    input_tokens: int
    output_tokens: int


class MessageView(msgspec.Struct, frozen=True, kw_only=True):
    """A message. `siblings` are the versions of it, itself among them, in the order in which they came.

    Of an answer: `model`, `annotations` (as in chat completions), `usage`, and `omitted_turns`, which says how many of
    the oldest turns of the path were not sent to the model because they did not fit.
    """

    id: UUID
    parent_id: UUID | None
    role: Literal["user", "assistant"]
    content: str
    status: Literal["complete", "running", "stopped", "incomplete", "failed"]
    error: MessageError | None
    model: str | None
    annotations: list[Annotation]
    usage: MessageUsage | None
    omitted_turns: int
    siblings: list[UUID]
    feedback: FeedbackView | None
    created_at: datetime
    finished_at: datetime | None


class TurnView(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and what it answers; that is None only where both are very large."""

    user_message: MessageView | None
    message: MessageView


class MessagePage(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a path, in its order; `next_cursor` asks for the messages before, None at the beginning."""

    data: list[MessageView]
    next_cursor: str | None


decode_new_conversation = msgspec.json.Decoder(NewConversation).decode
decode_change = msgspec.json.Decoder(ConversationChange).decode
decode_message = msgspec.json.Decoder(NewMessage).decode
decode_edited = msgspec.json.Decoder(EditedMessage).decode
decode_active = msgspec.json.Decoder(ActiveMessage).decode
decode_feedback = msgspec.json.Decoder(NewFeedback).decode
decode_annotations = msgspec.json.Decoder(list[Annotation]).decode
