"""The tables of people: who they are, how they stay signed in, and what is written down of what they did."""

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

from assistant_api.database.base import Base

_MOMENT = DateTime(timezone=True)
ROLES = "'owner', 'admin', 'member', 'viewer'"


class User(Base):
    """One person of the tenant."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    email_key: Mapped[str] = mapped_column(Text)  # case-folded: what makes two addresses the same
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)  # argon2id, in the PHC format
    language: Mapped[str | None] = mapped_column(Text)
    time_zone: Mapped[str | None] = mapped_column(Text)
    # Access tokens carry the version they were made for; a new role makes a new version.
    version: Mapped[int] = mapped_column(Integer, server_default="1")
    created_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    deactivated_at: Mapped[datetime | None] = mapped_column(_MOMENT)

    __table_args__ = (
        CheckConstraint(f"role IN ({ROLES})", name="role"),
        CheckConstraint("char_length(email) BETWEEN 3 AND 320 AND char_length(name) <= 200", name="lengths"),
        Index("uq_users_email_key", "email_key", unique=True),
    )


class Session(Base):
    """One sign-in on one device, until it ends."""

    __tablename__ = "sessions"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("users.id", ondelete="CASCADE"))
    device: Mapped[str] = mapped_column(Text)
    address: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(_MOMENT)
    revoked_at: Mapped[datetime | None] = mapped_column(_MOMENT)

    __table_args__ = (
        Index("ix_sessions_user_id", "user_id"),
        Index("ix_sessions_expires_at", "expires_at"),
    )


class RefreshToken(Base):
    """A refresh token, known by its SHA-256; those of one session are a family."""

    __tablename__ = "refresh_tokens"

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    session_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("sessions.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(_MOMENT)
    rotated_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    successor_hash: Mapped[bytes | None] = mapped_column(LargeBinary)

    __table_args__ = (Index("ix_refresh_tokens_session_id", "session_id"),)


class Invitation(Base):
    """The right to register once, with a role."""

    __tablename__ = "invitations"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    role: Mapped[str] = mapped_column(Text)
    email_key: Mapped[str | None] = mapped_column(Text)  # the only address that may use it
    created_by: Mapped[UUID | None] = mapped_column(Uuid, ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(_MOMENT)
    used_at: Mapped[datetime | None] = mapped_column(_MOMENT)

    __table_args__ = (
        CheckConstraint(f"role IN ({ROLES})", name="role"),
        Index("uq_invitations_token_hash", "token_hash", unique=True),
        Index("ix_invitations_created_by", "created_by"),
    )


class LoginAttempt(Base):
    """How much of its allowance an account or an address has used up: GCRA's theoretical arrival time."""

    __tablename__ = "login_attempts"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    arrival: Mapped[datetime] = mapped_column(_MOMENT)

    __table_args__ = (Index("ix_login_attempts_arrival", "arrival"),)


class Revocation(Base):
    """Access tokens that hold no more although they have not expired: of a session, or of a user below a version."""

    __tablename__ = "revocations"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    subject: Mapped[UUID] = mapped_column(Uuid)
    version: Mapped[int | None] = mapped_column(Integer)
    revoked_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())

    __table_args__ = (Index("ix_revocations_revoked_at", "revoked_at"),)


class AuditEntry(Base):
    """Something that was done, or refused. The tenant's role may add entries and read them, and nothing else."""

    __tablename__ = "audit_entries"

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(_MOMENT)
    actor_kind: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    address: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(Text)
    details: Mapped[str] = mapped_column(Text)  # a JSON object, as it was hashed
    prev_hash: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (
        Index("ix_audit_entries_action_sequence", "action", "sequence"),
        Index("ix_audit_entries_actor_sequence", "actor", "sequence"),
    )


class AuditHead(Base):
    """The last entry of the audit log. Its one row is locked by whoever adds an entry."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    sequence: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (CheckConstraint(text("id = 1"), name="single"),)
