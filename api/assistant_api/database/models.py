"""The tables of a tenant's database.

The models are the schema's single description: a test compares them with what the migrations make. Queries use
SQLAlchemy Core on these tables (an ORM load costs many times a plain query).
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from assistant_api.database.accounts import User
from assistant_api.database.base import Base
from assistant_api.database.conversations import Conversation, Message, MessageFeedback
from assistant_api.database.responses import Response

__all__ = ["Base", "Conversation", "Document", "DocumentContent", "Message", "MessageFeedback", "Response", "User"]


class Document(Base):
    """One uploaded document, and at the same time the job that brings it into, or out of, the vector store.

    `status` says what is to be done: `pending` and `processing` rows are to be ingested, `deleting` rows are to be
    removed together with their vectors, `ready` and `failed` rows are at rest.
    """

    __tablename__ = "documents"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    # Total order of uploads: pages of the list, and which version of a name is the newer one.
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True), nullable=False)
    knowledge_base: Mapped[str] = mapped_column(Text)  # KnowledgeBaseConfig.key
    name: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(Text)  # hexadecimal
    status: Mapped[str] = mapped_column(Text, server_default="pending")
    error_code: Mapped[str | None] = mapped_column(Text)
    error_message: Mapped[str | None] = mapped_column(Text)
    pages: Mapped[int | None] = mapped_column(Integer)
    # Upper bound of this document's vectors at any moment; exact once the document is ready.
    chunks: Mapped[int] = mapped_column(Integer, server_default="0")
    # Of parser and index (`contracts.INDEX_VERSION`), when the document became ready; 0 before there were any.
    index_version: Mapped[int] = mapped_column(Integer, server_default="0")
    # Of a row that reads a document again: the id by which the document is known. Such a row has no content before it
    # is ready: it takes that of the row whose place it takes.
    first_id: Mapped[UUID | None] = mapped_column(Uuid)

    # The job. `attempts` counts claims that ended without any outcome (the worker died), `retries` those that ended
    # in a failure that may pass.
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    retries: Mapped[int] = mapped_column(Integer, server_default="0")
    run_after: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    lease: Mapped[UUID | None] = mapped_column(Uuid)
    leased_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    traceparent: Mapped[str | None] = mapped_column(Text)

    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'processing', 'ready', 'failed', 'deleting')", name="status"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 255", name="name"),
        CheckConstraint("bytes >= 0 AND chunks >= 0", name="sizes"),
        CheckConstraint("(lease IS NULL) = (leased_until IS NULL)", name="lease"),
        Index("ix_documents_knowledge_base_sequence", "knowledge_base", "sequence", unique=True),
        Index("ix_documents_knowledge_base_name", "knowledge_base", "name"),
        Index("ix_documents_first_id", "first_id", postgresql_where=text("first_id IS NOT NULL")),
        Index(
            "ix_documents_jobs",
            "sequence",
            postgresql_where=text("status IN ('pending', 'processing', 'deleting')"),
        ),
    )


class DocumentContent(Base):
    """The bytes of a document, in parts of at most 1 MiB, so that neither side ever holds two copies of a big one."""

    __tablename__ = "document_contents"

    document_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True)
    part: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    content: Mapped[bytes] = mapped_column(LargeBinary)
