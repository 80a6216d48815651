"""What people do with their own account, and administrators with those of others."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.audit import repository as log
from assistant_api.audit.service import Event, Origin
from assistant_api.auth import repository as sessions
from assistant_api.auth import sign_in, throttle
from assistant_api.auth.accounts import Accounts
from assistant_api.auth.passwords import check_strength, normal_email
from assistant_api.auth.roles import MEMBER, OWNER, at_least
from assistant_api.auth.schemas import USER, Identity, TokenPair
from assistant_api.conversations import repository as conversations
from assistant_api.errors import (
    EMAIL_TAKEN,
    INVALID_TOKEN,
    INVITATION_INVALID,
    INVITATION_NOT_FOUND,
    LAST_OWNER,
    REGISTRATION_CLOSED,
    ROLE_REQUIRED,
    TOO_MANY_ATTEMPTS,
    USER_NOT_FOUND,
    ApiError,
    invalid_field,
)
from assistant_api.parameters import check_limit, from_cursor, to_cursor
from assistant_api.responses import repository as responses
from assistant_api.users import repository
from assistant_api.users.first_owner import ensure_owner
from assistant_api.users.repository import NewInvitation, NewUser
from assistant_api.users.schemas import (
    ActivityView,
    Export,
    InvitationList,
    InvitationRequest,
    InvitationView,
    NewInvitationView,
    ProfileChange,
    RegisterRequest,
    UserChange,
    UserPage,
    UserView,
)

MAX_INVITATIONS = 200
MAX_ACTIVITY = 1000
NO_VERSION = 2**31 - 1  # above every version: no token of the user holds
OPEN, INVITE = "Open", "Invite"


async def register(accounts: Accounts, request: RegisterRequest, origin: Origin) -> TokenPair:
    """Register and sign in, as the tenant's mode allows."""
    await accounts.tokens()
    await ensure_owner(accounts, origin)
    mode = accounts.config.current.document.registration
    if mode not in {OPEN, INVITE}:
        raise ApiError(REGISTRATION_CLOSED)
    async with accounts.database.transaction() as connection:
        wait = await throttle.take(connection, throttle.address(origin.address, "register"), throttle.REGISTRATION)
    if wait is not None:
        raise ApiError(TOO_MANY_ATTEMPTS, retry_after=wait)
    email = await normal_email(request.email)
    key = repository.email_key(email)
    async with accounts.database.transaction() as connection:  # before anything that costs
        await _role(connection, request, mode, key)
    await check_strength("password", request.password, email, request.name)
    hashed = await accounts.passwords.hash(request.password)
    async with accounts.database.transaction() as connection:
        role, invitation = await _role(connection, request, mode, key)
        new = NewUser(uuid4(), email, key, request.name, role, hashed)
        if not await repository.add(connection, new):
            raise ApiError(EMAIL_TAKEN)
        if invitation is not None:
            await repository.use_invitation(connection, invitation)
        user = await repository.by_id(connection, new.id)
        pair = await sign_in.open_session(accounts, connection, user, None, origin)
        details = {"role": role, **({"invitation": str(invitation)} if invitation else {})}
        await accounts.audit.record(
            connection, Event("registered", "success", USER, str(new.id), str(new.id), details), origin
        )
    return pair


async def _role(connection: AsyncConnection, request: RegisterRequest, mode: str, key: str) -> tuple[str, UUID | None]:
    """Return which role the caller gets, and by which invitation."""
    if request.invitation is None:
        if mode != OPEN:
            raise ApiError(INVITATION_INVALID)
        return MEMBER, None
    found = await repository.open_invitation(connection, sign_in.token_hash(request.invitation))
    if found is None or (found.email_key is not None and found.email_key != key):
        raise ApiError(INVITATION_INVALID)
    return found.role, found.id


async def invite(
    accounts: Accounts, identity: Identity, request: InvitationRequest, origin: Origin
) -> NewInvitationView:
    """Make an invitation; nobody gives a role above their own."""
    _may_give(identity, request.role)
    email = None if request.email is None else await normal_email(request.email)
    token = f"inv_{secrets.token_urlsafe(32)}"
    new = NewInvitation(
        uuid4(),
        sign_in.token_hash(token),
        request.role,
        None if email is None else repository.email_key(email),
        identity.user_id,
        timedelta(days=request.days),
    )
    async with accounts.database.transaction() as connection:
        row = await repository.invite(connection, new)
        event = Event("invited", "success", USER, identity.name, str(new.id), {"role": request.role})
        await accounts.audit.record(connection, event, origin)
    return NewInvitationView(row.id, row.role, row.email_key, row.created_at, row.expires_at, token=token)


async def list_invitations(accounts: Accounts) -> InvitationList:
    """Return the invitations that can be used."""
    async with accounts.database.reading() as connection:
        rows = await repository.open_invitations(connection, MAX_INVITATIONS)
    return InvitationList(
        [InvitationView(row.id, row.role, row.email_key, row.created_at, row.expires_at) for row in rows]
    )


async def withdraw(accounts: Accounts, identity: Identity, invitation: UUID, origin: Origin) -> None:
    """Take an invitation back."""
    async with accounts.database.transaction() as connection:
        if await repository.withdraw(connection, invitation) is None:
            raise ApiError(INVITATION_NOT_FOUND)
        event = Event("invitation_withdrawn", "success", USER, identity.name, str(invitation))
        await accounts.audit.record(connection, event, origin)


async def list_users(accounts: Accounts, limit: int, cursor: str | None) -> UserPage:
    """Return a page of people."""
    check_limit(limit)
    after = from_cursor(cursor, _email_key)
    async with accounts.database.reading() as connection:
        rows = await repository.page(connection, after, limit + 1)
    shown = rows[:limit]
    following = to_cursor(shown[-1].email_key.encode()) if len(rows) > limit else None
    return UserPage([_view(row) for row in shown], following)


async def get_user(accounts: Accounts, user: UUID) -> UserView:
    """Return a person."""
    async with accounts.database.reading() as connection:
        row = await repository.by_id(connection, user)
    if row is None:
        raise ApiError(USER_NOT_FOUND)
    return _view(row)


async def change_user(
    accounts: Accounts, identity: Identity, user: UUID, request: UserChange, origin: Origin
) -> UserView:
    """Change a role, or let somebody in no more, or again. Tokens of the former role hold no longer."""
    async with accounts.database.transaction() as connection:
        owners = await repository.lock_owners(connection)
        row = await repository.locked(connection, user)
        if row is None:
            raise ApiError(USER_NOT_FOUND)
        if row.role == OWNER:
            _may_give(identity, OWNER)
        values: dict[str, Any] = {}
        if request.role is not None and request.role != row.role:
            _may_give(identity, request.role)
            values["role"] = request.role
        if request.active is not None and request.active != (row.deactivated_at is None):
            values["deactivated_at"] = None if request.active else datetime.now(UTC)
        if not values:
            return _view(row)
        if user in owners and owners == {user}:
            raise ApiError(LAST_OWNER)
        row = await repository.change(connection, user, version=row.version + 1, **values)
        await sessions.outdate(connection, user, row.version)
        if row.deactivated_at is not None:
            await sessions.revoke(connection, user)
        details = {"role": row.role, "active": "true" if row.deactivated_at is None else "false"}
        await accounts.audit.record(
            connection, Event("user_changed", "success", USER, identity.name, str(user), details), origin
        )
    accounts.revocations.forget()
    return _view(row)


async def change_profile(accounts: Accounts, identity: Identity, request: ProfileChange, origin: Origin) -> UserView:
    """Change the caller's name, language or time zone."""
    values = {name: value for name, value in msgspec.structs.asdict(request).items() if value is not msgspec.UNSET}
    language, time_zone = values.get("language"), values.get("time_zone")
    if language is not None and language not in accounts.languages:
        raise invalid_field("language", "choices", choices=", ".join(accounts.languages))
    if time_zone is not None and not _is_time_zone(time_zone):
        raise invalid_field("time_zone", "value")
    async with accounts.database.transaction() as connection:
        row = await repository.locked(connection, identity.user_id)
        if row is None:
            raise ApiError(INVALID_TOKEN)
        if values:
            row = await repository.change(connection, identity.user_id, **values)
            details = {"changed": " ".join(sorted(values))}
            event = Event("profile_changed", "success", USER, identity.name, identity.name, details)
            await accounts.audit.record(connection, event, origin)
    return _view(row)


async def delete_self(accounts: Accounts, identity: Identity, password: str, origin: Origin) -> None:
    """Remove the caller with everything but what the audit log says of its id."""
    user = await sign_in.confirm(accounts, identity, "password", password, origin)
    async with accounts.database.transaction() as connection:
        if await repository.lock_owners(connection) == {user.id}:
            raise ApiError(LAST_OWNER)
        await sessions.outdate(connection, user.id, NO_VERSION)
        await throttle.forgive(connection, throttle.account(user.email_key))
        await conversations.delete_all(connection, identity.user)
        await responses.delete_all(connection, identity.user)
        await repository.remove(connection, user.id)
        event = Event("user_deleted", "success", USER, identity.name, identity.name)
        await accounts.audit.record(connection, event, origin)
    accounts.revocations.forget()


async def export(accounts: Accounts, identity: Identity) -> Export:
    """Return what is kept of the caller, but conversations, each of which has an export of its own."""
    async with accounts.database.reading() as connection:
        row = await repository.by_id(connection, identity.user_id)
        held = await sessions.of_user(connection, identity.user_id)
        wanted = log.Filter({"actor": identity.name})
        done = await log.page(connection, wanted, None, MAX_ACTIVITY)
    if row is None:
        raise ApiError(INVALID_TOKEN)
    return Export(
        user=_view(row),
        sessions=[sign_in.session_view(each, identity.session) for each in held],
        activity=[ActivityView(each.at, each.action, each.outcome, each.address) for each in done],
    )


def _may_give(identity: Identity, role: str) -> None:
    """Raise unless the caller has at least this role itself."""
    if not at_least(identity.role, role):
        raise ApiError(ROLE_REQUIRED, role=role)


def _is_time_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _view(row: Any) -> UserView:
    return UserView(
        id=row.id,
        email=row.email,
        name=row.name,
        role=row.role,
        active=row.deactivated_at is None,
        language=row.language,
        time_zone=row.time_zone,
        created_at=row.created_at,
    )


def _email_key(position: bytes) -> str:
    """Return the address at which a page of people ends; ValueError where there can be none."""
    after = position.decode()
    if not after or "\0" in after:
        raise ValueError("not an address")
    return after
