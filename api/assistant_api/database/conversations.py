"""The tables of conversations: trees of messages, and what people think of answers."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from assistant_api.database.base import Base


class Conversation(Base):
    """A conversation of one caller with one assistant: a tree of messages, of which one path is active."""

    __tablename__ = "conversations"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    owner: Mapped[str] = mapped_column(Text)  # auth.schemas.Identity.user
    assistant: Mapped[str] = mapped_column(Text)
    title: Mapped[str | None] = mapped_column(Text)
    archived: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    pinned: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    # The last message of the active path; the others of the path are its ancestors.
    leaf_id: Mapped[UUID | None] = mapped_column(Uuid)
    messages: Mapped[int] = mapped_column(Integer, server_default="0")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    active_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (
        CheckConstraint("char_length(title) BETWEEN 1 AND 200", name="title"),
        # Read backwards: the list shows what is pinned first, then what was active last.
        Index("ix_conversations_list", "owner", "archived", "pinned", "active_at", "id"),
    )


class Message(Base):
    """A message of a person, or an answer. An answer that is being written belongs to the process that holds its lease.

    A lease that ran out says that the process died: whoever reads the message then shows it as `incomplete`.
    """

    __tablename__ = "messages"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True), nullable=False)
    conversation_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("conversations.id", ondelete="CASCADE"))
    parent_id: Mapped[UUID | None] = mapped_column(Uuid, ForeignKey("messages.id"))
    depth: Mapped[int] = mapped_column(Integer)  # messages before it on its path
    role: Mapped[str] = mapped_column(Text)
    content: Mapped[str] = mapped_column(Text, server_default="")
    status: Mapped[str] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(Text)  # a code of `errors.KINDS`
    model: Mapped[str | None] = mapped_column(Text)
    annotations: Mapped[str | None] = mapped_column(Text)  # JSON, as in chat completions
    input_tokens: Mapped[int | None] = mapped_column(Integer)
    output_tokens: Mapped[int | None] = mapped_column(Integer)
    omitted_turns: Mapped[int] = mapped_column(Integer, server_default="0")  # of the path, not sent to the model
    request_key: Mapped[str | None] = mapped_column(Text)  # of the request that began this answer
    fingerprint: Mapped[str | None] = mapped_column(Text)  # hexadecimal digest of what that request asked for
    lease: Mapped[UUID | None] = mapped_column(Uuid)
    leased_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    stopping: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        CheckConstraint("role IN ('user', 'assistant')", name="role"),
        CheckConstraint("status IN ('complete', 'running', 'stopped', 'incomplete', 'failed')", name="status"),
        CheckConstraint("(lease IS NULL) = (leased_until IS NULL)", name="lease"),
        # One answer at a time; two requests at once cannot both begin one.
        Index("ix_messages_running", "conversation_id", unique=True, postgresql_where=text("status = 'running'")),
        Index(
            "ix_messages_request_key",
            "conversation_id",
            "request_key",
            unique=True,
            postgresql_where=text("request_key IS NOT NULL"),
        ),
        Index("ix_messages_conversation_id_sequence", "conversation_id", "sequence", unique=True),
        Index("ix_messages_parent_id", "parent_id"),
    )


class MessageFeedback(Base):
    """What the owner of a conversation thinks of an answer."""

    __tablename__ = "message_feedback"

    message_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True)
    rating: Mapped[str] = mapped_column(Text)
    comment: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (
        CheckConstraint("rating IN ('up', 'down')", name="rating"),
        CheckConstraint("char_length(comment) BETWEEN 1 AND 2000", name="comment"),
    )
