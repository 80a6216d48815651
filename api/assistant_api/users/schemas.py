"""What people and invitations look like on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from assistant_api.auth.roles import Role
from assistant_api.auth.schemas import Email, Name, Password, SessionView

Token = Annotated[str, msgspec.Meta(min_length=47, max_length=47, pattern=r"^inv_[A-Za-z0-9_-]{43}$")]
Language = Annotated[str, msgspec.Meta(min_length=2, max_length=35, pattern=r"^[A-Za-z0-9-]+$")]
TimeZone = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$")
]
Days = Annotated[int, msgspec.Meta(ge=1, le=30)]


class RegisterRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Register; `invitation` where the tenant asks for one."""

    email: Email
    password: Password
    name: Name
    invitation: Token | None = None


class UserView(msgspec.Struct, frozen=True):
    """A person of the tenant."""

    id: UUID
    email: str
    name: str
    role: str
    active: bool
    language: str | None
    time_zone: str | None
    created_at: datetime


class UserPage(msgspec.Struct, frozen=True):
    """People, by address."""

    data: list[UserView]
    next_cursor: str | None


class UserChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What administrators change; what is left out stays."""

    role: Role | None = None
    active: bool | None = None


class ProfileChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What people change of themselves; what is left out stays."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    language: Language | msgspec.UnsetType | None = msgspec.UNSET
    time_zone: TimeZone | msgspec.UnsetType | None = msgspec.UNSET


class DeletionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Delete oneself; the password confirms it."""

    password: Password


class ActivityView(msgspec.Struct, frozen=True):
    """An entry of the audit log about something that the person did."""

    at: datetime
    action: str
    outcome: str
    address: str


class Export(msgspec.Struct, frozen=True):
    """What is kept of a person, but conversations; of the audit log the newest entries."""

    user: UserView
    sessions: list[SessionView]
    activity: list[ActivityView]


class InvitationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Invite somebody; with `email` nobody else can use the invitation."""

    role: Role = "member"
    email: Email | None = None
    days: Days = 7


class InvitationView(msgspec.Struct, frozen=True):
    """An invitation that can be used."""

    id: UUID
    role: str
    email: str | None
    created_at: datetime
    expires_at: datetime


class NewInvitationView(InvitationView, frozen=True, kw_only=True):
    """The same with its token, which is shown this once."""

    token: str


class InvitationList(msgspec.Struct, frozen=True):
    """The invitations that can be used, the newest first."""

    data: list[InvitationView]
