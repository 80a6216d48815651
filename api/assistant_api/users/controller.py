"""`/api/v1/users` and `/api/v1/invitations`; `RegistrationController` is the way in."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Controller, Request, delete, get, patch, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from assistant_api import json_body
from assistant_api.auth.accounts import Accounts, origin_of
from assistant_api.auth.roles import ADMIN, needs, person
from assistant_api.auth.schemas import TokenPair
from assistant_api.database.unavailable import DATABASE_AWAY
from assistant_api.users import service
from assistant_api.users.schemas import (
    DeletionRequest,
    Export,
    InvitationList,
    InvitationRequest,
    NewInvitationView,
    ProfileChange,
    RegisterRequest,
    UserChange,
    UserPage,
    UserView,
)

Call = Request[Any, Any, State]


class RegistrationController(Controller):
    """How somebody becomes a user."""

    path = "/auth"
    tags = ["Accounts"]
    exception_handlers = DATABASE_AWAY

    @post("/register", summary="Register", status_code=201, operation_class=json_body.takes(RegisterRequest))
    async def register(self, request: Call, accounts: NamedDependency[Accounts]) -> TokenPair:
        """Register, and be signed in, as the tenant allows: freely, by invitation, or not at all."""
        asked = await json_body.read(request, RegisterRequest)
        return await service.register(accounts, asked, origin_of(request))


class ProfileController(Controller):
    """What people do with their own account."""

    path = "/users/me"
    tags = ["Accounts"]
    guards = [person]
    exception_handlers = DATABASE_AWAY

    @get("/", summary="Get one's account")
    async def get_me(self, request: Call, accounts: NamedDependency[Accounts]) -> UserView:
        """Return the caller."""
        return await service.get_user(accounts, request.auth.user_id)

    @patch("/", summary="Change one's account", operation_class=json_body.takes(ProfileChange))
    async def change_me(self, request: Call, accounts: NamedDependency[Accounts]) -> UserView:
        """Change the caller's name, language or time zone; null takes a language or time zone away."""
        asked = await json_body.read(request, ProfileChange)
        return await service.change_profile(accounts, request.auth, asked, origin_of(request))

    @get("/export", summary="Export one's data")
    async def export(self, request: Call, accounts: NamedDependency[Accounts]) -> Export:
        """Return what is kept of the caller, but conversations, each of which has an export of its own."""
        return await service.export(accounts, request.auth)

    @post(
        "/deletion", summary="Delete one's account", status_code=204, operation_class=json_body.takes(DeletionRequest)
    )
    async def delete_me(self, request: Call, accounts: NamedDependency[Accounts]) -> None:
        """Remove the caller with all sessions and conversations; the password confirms it."""
        asked = await json_body.read(request, DeletionRequest)
        await service.delete_self(accounts, request.auth, asked.password, origin_of(request))


class UserController(Controller):
    """What administrators do with people."""

    path = "/users"
    tags = ["People"]
    guards = [person, needs(ADMIN)]
    exception_handlers = DATABASE_AWAY

    @get("/", summary="List the people")
    async def list_users(
        self,
        accounts: NamedDependency[Accounts],
        limit: FromQuery[int] = 50,
        cursor: FromQuery[str | None] = None,
    ) -> UserPage:
        """Return up to `limit` people by their addresses, from `cursor` on."""
        return await service.list_users(accounts, limit, cursor)

    @get("/{user:uuid}", summary="Get a person")
    async def get_user(self, accounts: NamedDependency[Accounts], user: FromPath[UUID]) -> UserView:
        """Return one person."""
        return await service.get_user(accounts, user)

    @patch("/{user:uuid}", summary="Change a person's role", operation_class=json_body.takes(UserChange))
    async def change_user(self, request: Call, accounts: NamedDependency[Accounts], user: FromPath[UUID]) -> UserView:
        """Give another role, or let somebody in no more, or again. The last owner stays one."""
        asked = await json_body.read(request, UserChange)
        return await service.change_user(accounts, request.auth, user, asked, origin_of(request))


class InvitationController(Controller):
    """Who may register."""

    path = "/invitations"
    tags = ["People"]
    guards = [person, needs(ADMIN)]
    exception_handlers = DATABASE_AWAY

    @get("/", summary="List the invitations that can be used")
    async def list_invitations(self, accounts: NamedDependency[Accounts]) -> InvitationList:
        """Return the invitations, without their tokens, the newest first."""
        return await service.list_invitations(accounts)

    @post("/", summary="Invite somebody", status_code=201, operation_class=json_body.takes(InvitationRequest))
    async def invite(self, request: Call, accounts: NamedDependency[Accounts]) -> NewInvitationView:
        """Return an invitation with its token, which is shown this once and registers one person."""
        asked = await json_body.read(request, InvitationRequest)
        return await service.invite(accounts, request.auth, asked, origin_of(request))

    @delete("/{invitation:uuid}", summary="Withdraw an invitation", status_code=204)
    async def withdraw(self, request: Call, accounts: NamedDependency[Accounts], invitation: FromPath[UUID]) -> None:
        """Take an invitation back that nobody has used."""
        await service.withdraw(accounts, request.auth, invitation, origin_of(request))
