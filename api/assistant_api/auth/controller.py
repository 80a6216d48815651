"""`/api/v1/auth`: sign in, stay signed in, end it. `JwksController` publishes the key that signs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from assistant_api import json_body
from assistant_api.auth import sign_in
from assistant_api.auth.accounts import Accounts, origin_of
from assistant_api.auth.roles import person
from assistant_api.auth.schemas import (
    KeySet,
    LoginRequest,
    PasswordRequest,
    RefreshRequest,
    SessionList,
    TokenPair,
)
from assistant_api.auth.service import require_identity
from assistant_api.database.unavailable import DATABASE_AWAY

SIGNED_IN = [require_identity, person]


class AuthController(Controller):
    """Tokens and sessions."""

    path = "/auth"
    tags = ["Accounts"]
    exception_handlers = DATABASE_AWAY

    @post("/login", summary="Sign in", status_code=200, operation_class=json_body.takes(LoginRequest))
    async def login(self, request: Request[Any, Any, State], accounts: NamedDependency[Accounts]) -> TokenPair:
        """Return an access token for ten minutes and a refresh token."""
        asked = await json_body.read(request, LoginRequest)
        return await sign_in.login(accounts, asked, origin_of(request))

    @post("/refresh", summary="Get the next tokens", status_code=200, operation_class=json_body.takes(RefreshRequest))
    async def refresh(self, request: Request[Any, Any, State], accounts: NamedDependency[Accounts]) -> TokenPair:
        """Exchange a refresh token, which can be used once; used again after ten seconds it ends the session."""
        asked = await json_body.read(request, RefreshRequest)
        return await sign_in.refresh(accounts, asked.refresh_token, origin_of(request))

    @post("/logout", summary="Sign out", status_code=204, guards=SIGNED_IN)
    async def logout(self, request: Request[Any, Any, State], accounts: NamedDependency[Accounts]) -> None:
        """End the session of this access token."""
        await sign_in.logout(accounts, request.auth, origin_of(request), everywhere=False)

    @post("/logout-all", summary="Sign out everywhere", status_code=204, guards=SIGNED_IN)
    async def logout_all(self, request: Request[Any, Any, State], accounts: NamedDependency[Accounts]) -> None:
        """End every session of the caller."""
        await sign_in.logout(accounts, request.auth, origin_of(request), everywhere=True)

    @get("/sessions", summary="List one's sessions", guards=SIGNED_IN)
    async def list_sessions(
        self, request: Request[Any, Any, State], accounts: NamedDependency[Accounts]
    ) -> SessionList:
        """Return the caller's sessions, the one used last first."""
        return await sign_in.list_sessions(accounts, request.auth)

    @delete("/sessions/{session:uuid}", summary="End a session", status_code=204, guards=SIGNED_IN)
    async def end_session(
        self, request: Request[Any, Any, State], accounts: NamedDependency[Accounts], session: FromPath[UUID]
    ) -> None:
        """End one of the caller's sessions."""
        await sign_in.end_session(accounts, request.auth, session, origin_of(request))

    @post(
        "/password",
        summary="Change one's password",
        status_code=204,
        guards=SIGNED_IN,
        operation_class=json_body.takes(PasswordRequest),
    )
    async def change_password(self, request: Request[Any, Any, State], accounts: NamedDependency[Accounts]) -> None:
        """Change the caller's password; every other session ends."""
        asked = await json_body.read(request, PasswordRequest)
        await sign_in.change_password(accounts, request.auth, asked, origin_of(request))

    @get("/jwks", summary="Get the keys that sign access tokens")
    async def jwks(self, accounts: NamedDependency[Accounts]) -> KeySet:
        """Return the key set (RFC 7517)."""
        return msgspec.convert((await accounts.tokens()).jwks(), KeySet)
