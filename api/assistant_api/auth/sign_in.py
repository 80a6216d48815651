"""Signing in, staying signed in, and ending it."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.audit.service import Event, Origin
from assistant_api.auth import repository, throttle
from assistant_api.auth.accounts import Accounts
from assistant_api.auth.passwords import check_strength
from assistant_api.auth.schemas import (
    USER,
    Identity,
    LoginRequest,
    PasswordRequest,
    SessionList,
    SessionView,
    TokenPair,
)
from assistant_api.auth.tokens import ACCESS_TOKEN_TTL_SECONDS, Subject
from assistant_api.errors import (
    INVALID_CREDENTIALS,
    INVALID_REFRESH_TOKEN,
    INVALID_TOKEN,
    REFRESH_TOKEN_REUSED,
    SESSION_NOT_FOUND,
    TOO_MANY_ATTEMPTS,
    ApiError,
    Kind,
)
from assistant_api.users import repository as people
from assistant_api.users.first_owner import ensure_owner

SESSION_TTL = timedelta(days=30)
REFRESH_TOKEN_TTL = timedelta(days=14)
REFRESH_RETRY_WINDOW = timedelta(seconds=10)  # a client that lost the answer asks again with the same token
MAX_SESSIONS = 50


def token_hash(token: str) -> bytes:
    """Return what is stored of a token; it has 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).digest()


async def login(accounts: Accounts, request: LoginRequest, origin: Origin) -> TokenPair:
    """Sign somebody in. Whether the account, or only the password, is wrong shows neither in words nor in time."""
    await accounts.tokens()
    await ensure_owner(accounts, origin)
    key = people.email_key(request.email)
    async with accounts.database.transaction() as connection:
        wait = await throttle.take(connection, throttle.address(origin.address), throttle.ADDRESS)
        if wait is None:
            wait = await throttle.take(connection, throttle.account(key), throttle.ACCOUNT)
        user = await people.by_email(connection, key) if wait is None else None
    if wait is not None:
        raise ApiError(TOO_MANY_ATTEMPTS, retry_after=wait)
    right = await accounts.passwords.verify(user.password_hash if user else None, request.password)
    if user is None or not right or user.deactivated_at is not None:
        await _failed(accounts, "sign_in", user.id if user else None, origin)
        raise ApiError(INVALID_CREDENTIALS)
    fresh_hash = None
    if accounts.passwords.is_outdated(user.password_hash):
        fresh_hash = await accounts.passwords.hash(request.password)
    async with accounts.database.transaction() as connection:
        now = await people.locked(connection, user.id)
        # It may have been changed while the password was compared.
        if now is None or now.deactivated_at is not None or now.password_hash != user.password_hash:
            raise ApiError(INVALID_CREDENTIALS)
        if fresh_hash is not None:
            await people.change(connection, user.id, password_hash=fresh_hash)
        await throttle.forgive(connection, throttle.account(key))
        await repository.prune(connection)
        pair = await open_session(accounts, connection, now, request.device, origin)
        event = Event("sign_in", "success", USER, str(user.id), str(pair.session_id))
        await accounts.audit.record(connection, event, origin)
    return pair


async def open_session(
    accounts: Accounts, connection: AsyncConnection, user: Any, device: str | None, origin: Origin
) -> TokenPair:
    """Begin a session of a user, whose row is locked; the oldest ends when there are too many."""
    others = [row.id for row in await repository.of_user(connection, user.id)]
    if len(others) >= MAX_SESSIONS:
        await repository.revoke(connection, user.id, others[MAX_SESSIONS - 1 :])
    session = repository.NewSession(uuid4(), user.id, device or origin.device, origin.address, SESSION_TTL)
    await repository.add_session(connection, session)
    refresh_token = f"rt_{secrets.token_urlsafe(32)}"
    await repository.add_token(connection, token_hash(refresh_token), session.id, REFRESH_TOKEN_TTL)
    return await _pair(accounts, user, session.id, refresh_token)


async def refresh(accounts: Accounts, refresh_token: str, origin: Origin) -> TokenPair:
    """Exchange a refresh token for the next pair.

    The token was exchanged before: within RETRY the caller gets the same successor, unless that was used already.
    Otherwise two hold the token, one of whom stole it, so the session ends.
    """
    await accounts.tokens()
    presented = token_hash(refresh_token)
    successor = accounts.successor(refresh_token)
    refusal: Kind | None = None
    async with accounts.database.transaction() as connection:
        session = await repository.locked_session(connection, presented)
        token = await repository.held(connection, presented) if session else None
        user = await people.by_id(connection, session.user_id) if session else None
        if session is None or token is None or user is None:
            raise ApiError(INVALID_REFRESH_TOKEN)
        if session.revoked_at or session.expired or user.deactivated_at or token.expires_at < token.now:
            raise ApiError(INVALID_REFRESH_TOKEN)
        if token.rotated_at is None:
            await repository.add_token(connection, token_hash(successor), session.id, REFRESH_TOKEN_TTL)
            await repository.rotate(connection, presented, token_hash(successor), session.id, origin.address)
        elif not await _is_retry(connection, token):
            await repository.revoke(connection, user.id, [session.id])
            event = Event("refresh_token_reuse", "denied", USER, str(user.id), str(session.id))
            await accounts.audit.record(connection, event, origin)
            refusal = REFRESH_TOKEN_REUSED
        elif token.successor_hash != token_hash(successor):
            raise ApiError(INVALID_REFRESH_TOKEN)  # another signing key came into use in these seconds
    if refusal is not None:
        accounts.revocations.forget()
        raise ApiError(refusal)
    return await _pair(accounts, user, session.id, successor)


async def _is_retry(connection: AsyncConnection, token: repository.Held) -> bool:
    if token.rotated_at is None or token.successor_hash is None or token.now - token.rotated_at > REFRESH_RETRY_WINDOW:
        return False
    following = await repository.held(connection, token.successor_hash)
    return following is not None and following.rotated_at is None


async def logout(accounts: Accounts, identity: Identity, origin: Origin, *, everywhere: bool) -> None:
    """End the caller's session, or all sessions of the caller."""
    only = None if everywhere or identity.session is None else [identity.session]
    async with accounts.database.transaction() as connection:
        ended = await repository.revoke(connection, identity.user_id, only)
        event = Event(
            "sign_out_everywhere" if everywhere else "sign_out",
            actor_kind=USER,
            actor=identity.name,
            target=str(identity.session),
            details={"sessions": str(len(ended))},
        )
        await accounts.audit.record(connection, event, origin)
    accounts.revocations.forget()


async def list_sessions(accounts: Accounts, identity: Identity) -> SessionList:
    """Return the caller's sessions."""
    async with accounts.database.reading() as connection:
        rows = await repository.of_user(connection, identity.user_id)
    return SessionList([session_view(row, identity.session) for row in rows])


def session_view(row: Any, current: UUID | None) -> SessionView:
    """Return a session as its user sees it."""
    return SessionView(
        id=row.id,
        device=row.device,
        address=row.address,
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
        expires_at=row.expires_at,
        current=row.id == current,
    )


async def end_session(accounts: Accounts, identity: Identity, session: UUID, origin: Origin) -> None:
    """End one of the caller's sessions; somebody else's does not exist."""
    async with accounts.database.transaction() as connection:
        if not await repository.revoke(connection, identity.user_id, [session]):
            raise ApiError(SESSION_NOT_FOUND)
        event = Event("session_revoked", actor_kind=USER, actor=identity.name, target=str(session))
        await accounts.audit.record(connection, event, origin)
    accounts.revocations.forget()


async def change_password(accounts: Accounts, identity: Identity, request: PasswordRequest, origin: Origin) -> None:
    """Change the caller's password; every other session ends."""
    user = await confirm(accounts, identity, "current_password", request.current_password, origin)
    await check_strength("new_password", request.new_password, user.email, user.name)
    fresh = await accounts.passwords.hash(request.new_password)
    async with accounts.database.transaction() as connection:
        now = await people.locked(connection, user.id)
        if now is None or now.password_hash != user.password_hash:
            raise ApiError(INVALID_TOKEN)
        await people.change(connection, user.id, password_hash=fresh)
        others = [row.id for row in await repository.of_user(connection, user.id) if row.id != identity.session]
        await repository.revoke(connection, user.id, others)
        event = Event("password_changed", actor_kind=USER, actor=identity.name, target=identity.name)
        await accounts.audit.record(connection, event, origin)
    accounts.revocations.forget()


async def confirm(accounts: Accounts, identity: Identity, field: str, password: str, origin: Origin) -> Any:
    """Return the caller's row if this is its password; wrong ones are counted like those of a sign-in."""
    async with accounts.database.transaction() as connection:
        user = await people.by_id(connection, identity.user_id)
        if user is None:
            raise ApiError(INVALID_TOKEN)
        wait = await throttle.take(connection, throttle.account(user.email_key), throttle.ACCOUNT)
    if wait is not None:
        raise ApiError(TOO_MANY_ATTEMPTS, retry_after=wait)
    if not await accounts.passwords.verify(user.password_hash, password):
        await _failed(accounts, "password_confirmation", user.id, origin)
        raise ApiError(INVALID_CREDENTIALS, field=field)
    return user


async def _failed(accounts: Accounts, action: str, user: UUID | None, origin: Origin) -> None:
    async with accounts.database.transaction() as connection:
        event = Event(action, "failure", target=str(user) if user else "")
        await accounts.audit.record(connection, event, origin)


async def _pair(accounts: Accounts, user: Any, session: UUID, refresh_token: str) -> TokenPair:
    subject = Subject(user.id, session, user.role, user.version)
    return TokenPair(
        access_token=(await accounts.tokens()).issue(subject, accounts.tenant),
        token_type="Bearer",  # noqa: S106  its name in RFC 6750
        expires_in=ACCESS_TOKEN_TTL_SECONDS,
        refresh_token=refresh_token,
        refresh_expires_in=int(REFRESH_TOKEN_TTL.total_seconds()),
        user_id=user.id,
        session_id=session,
        role=user.role,
    )
