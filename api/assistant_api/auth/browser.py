"""`/api/v1/auth/cookie`: what the page signs in and out by. It is the page's own, and not described at `/schema`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, post
from litestar.datastructures import State
from litestar.di import NamedDependency

from assistant_api import json_body
from assistant_api.auth import sign_in
from assistant_api.auth.accounts import Accounts, origin_of
from assistant_api.auth.cookies import cookies, from_the_page, no_cookies, refresh_token_of
from assistant_api.auth.roles import person
from assistant_api.auth.schemas import LoginRequest, TokenPair
from assistant_api.auth.service import require_identity
from assistant_api.database.unavailable import DATABASE_AWAY
from assistant_api.errors import INVALID_REFRESH_TOKEN, ApiError
from assistant_api.users import service as people
from assistant_api.users.schemas import RegisterRequest

Call = Request[Any, Any, State]


class SignedIn(msgspec.Struct, frozen=True):
    """Who signed in; the tokens are in cookies."""

    user_id: UUID
    session_id: UUID
    role: str


class BrowserController(Controller):
    """Sessions of browsers."""

    path = "/auth/cookie"
    include_in_schema = False
    guards = [from_the_page]
    exception_handlers = DATABASE_AWAY

    @post("/login", status_code=200)
    async def login(self, request: Call, accounts: NamedDependency[Accounts]) -> Response[SignedIn]:
        """Sign in."""
        asked = await json_body.read(request, LoginRequest)
        return _signed_in(request, await sign_in.login(accounts, asked, origin_of(request)), 200)

    @post("/register", status_code=201)
    async def register(self, request: Call, accounts: NamedDependency[Accounts]) -> Response[SignedIn]:
        """Register, and be signed in."""
        asked = await json_body.read(request, RegisterRequest)
        return _signed_in(request, await people.register(accounts, asked, origin_of(request)), 201)

    @post("/refresh", status_code=200)
    async def refresh(self, request: Call, accounts: NamedDependency[Accounts]) -> Response[SignedIn]:
        """Go on with a session whose access token has expired."""
        token = refresh_token_of(request)
        if not token:
            raise ApiError(INVALID_REFRESH_TOKEN)
        return _signed_in(request, await sign_in.refresh(accounts, token, origin_of(request)), 200)

    @post("/logout", status_code=204, guards=[require_identity, person])
    async def logout(self, request: Call, accounts: NamedDependency[Accounts]) -> Response[None]:
        """Sign out, and take the cookies away."""
        await sign_in.logout(accounts, request.auth, origin_of(request), everywhere=False)
        return Response(None, status_code=204, cookies=no_cookies(request))


def _signed_in(request: Call, pair: TokenPair, status: int) -> Response[SignedIn]:
    content = SignedIn(pair.user_id, pair.session_id, pair.role)
    return Response(content, status_code=status, cookies=cookies(request, pair))
