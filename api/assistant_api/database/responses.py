"""The table of stored responses of `/v1/responses`."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, Index, Text, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from assistant_api.database.base import Base


class Response(Base):
    """One response as it was answered, and the input that came with it; those before it are found by `previous_id`.

    Both are JSON in text: Postgres' own type keeps neither the order of members nor U+0000.
    """

    __tablename__ = "responses"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    owner: Mapped[str] = mapped_column(Text)  # auth.schemas.Identity.user
    # Not a foreign key: a response outlives the one before it.
    previous_id: Mapped[UUID | None] = mapped_column(Uuid)
    input: Mapped[str] = mapped_column(Text)
    response: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        Index("ix_responses_owner_created_at", "owner", "created_at"),
        Index("ix_responses_expires_at", "expires_at"),
    )
