"""What a role may do: guards that routes name, and nothing else that decides it.

An API key may do with content what an administrator may, and nothing with people.
"""

from __future__ import annotations

from typing import Any, Literal

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from assistant_api.auth.schemas import USER, Identity
from assistant_api.errors import PERSON_REQUIRED, ROLE_REQUIRED, ApiError

Role = Literal["owner", "admin", "member", "viewer"]
VIEWER, MEMBER, ADMIN, OWNER = "viewer", "member", "admin", "owner"
_RANK = {VIEWER: 0, MEMBER: 1, ADMIN: 2, OWNER: 3}
Connection = ASGIConnection[Any, Any, Any, Any]


def at_least(role: str, needed: str) -> bool:
    """Whether `role` may do what `needed` may; an unknown role may do nothing."""
    return _RANK.get(role, -1) >= _RANK[needed]


def needs(role: str) -> Guard:
    """Return the guard that lets only callers with this role, or a higher one, pass."""

    async def guard(connection: Connection, _handler: BaseRouteHandler) -> None:
        identity: Identity = connection.scope["auth"]
        if not at_least(identity.role, role):
            await _refuse(connection, ApiError(ROLE_REQUIRED, role=role))

    return guard


async def person(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Guard: let only people pass who signed in."""
    identity: Identity = connection.scope["auth"]
    if identity.kind != USER:
        await _refuse(connection, ApiError(PERSON_REQUIRED))


async def _refuse(connection: Connection, error: ApiError) -> None:
    await connection.app.state.accounts.denied(connection)
    raise error
