"""What the rest of the API knows about a caller, and what signing in looks like on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

API_KEY, USER = "api_key", "user"


class Identity(msgspec.Struct, frozen=True):
    """A caller that proved itself; `name` is the API key's (never the key) or the user's id.

    `role` is what an API key may do with content; who is no person has no session.
    """

    kind: str
    name: str
    role: str = "admin"
    session: UUID | None = None

    @property
    def user(self) -> str:
        """Whose usage this caller's calls are, unless a request names its end user; no person is called like this."""
        return f"{self.kind.replace('_', '-')}:{self.name}"

    @property
    def is_person(self) -> bool:
        """Whether somebody signed in."""
        return self.kind == USER

    @property
    def user_id(self) -> UUID:
        """The id of the user; ValueError for an API key."""
        return UUID(self.name)


# Nothing that a terminal or a log line would act on, and nothing that Postgres cannot store.
_LINE = r"^[^\x00-\x1f\x7f]*$"
Email = Annotated[str, msgspec.Meta(min_length=3, max_length=320, pattern=r"^[^\x00-\x20\x7f@]+@[^\x00-\x20\x7f@]+$")]
Password = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_LINE)]
Device = Annotated[str, msgspec.Meta(max_length=200, pattern=_LINE)]
RefreshToken = Annotated[str, msgspec.Meta(min_length=46, max_length=46, pattern=r"^rt_[A-Za-z0-9_-]{43}$")]


class LoginRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sign in; `device` is shown in the list of sessions, the User-Agent unless it is given."""

    email: Email
    password: Password
    device: Device | None = None


class RefreshRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exchange a refresh token."""

    refresh_token: RefreshToken


class PasswordRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Change one's own password."""

    current_password: Password
    new_password: Password


class TokenPair(msgspec.Struct, frozen=True):
    """An access token for the next minutes, and what gets the next one. Times are in seconds."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    user_id: UUID
    session_id: UUID
    role: str


class SessionView(msgspec.Struct, frozen=True):
    """One sign-in that holds."""

    id: UUID
    device: str
    address: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    current: bool


class SessionList(msgspec.Struct, frozen=True):
    """The caller's sessions, the one used last first."""

    data: list[SessionView]


class KeyView(msgspec.Struct, frozen=True):
    """A public key (RFC 7517, RFC 8037)."""

    kty: str
    crv: str
    x: str
    kid: str
    alg: str
    use: str


class KeySet(msgspec.Struct, frozen=True):
    """The keys by which access tokens can be checked."""

    keys: list[KeyView]
