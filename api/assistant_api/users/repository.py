"""People and invitations in the tenant's database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.database.accounts import Invitation, User

users = cast("Table", User.__table__)
invitations = cast("Table", Invitation.__table__)
OWNER = "owner"
_ACTIVE_OWNER = (users.c.role == OWNER) & users.c.deactivated_at.is_(None)


@dataclass(frozen=True, slots=True)
class NewUser:
    """Somebody who registers."""

    id: UUID
    email: str
    email_key: str
    name: str
    role: str
    password_hash: str
    language: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """The right to register once."""

    id: UUID
    token_hash: bytes
    role: str
    email_key: str | None
    created_by: UUID
    lifetime: timedelta


def email_key(email: str) -> str:
    """Return what makes two addresses the same."""
    return email.casefold()


async def has_owner(connection: AsyncConnection) -> bool:
    """Whether there is an owner, active or not."""
    return bool((await connection.execute(select(users.c.id).where(users.c.role == OWNER).limit(1))).first())


async def add(connection: AsyncConnection, new: NewUser) -> bool:
    """Store a user; return whether the address was free."""
    values = {name: getattr(new, name) for name in NewUser.__slots__}
    query = insert_or(users).values(values).on_conflict_do_nothing(index_elements=["email_key"])
    return (await connection.execute(query.returning(users.c.id))).first() is not None


async def by_email(connection: AsyncConnection, key: str) -> Any | None:
    """Return the user with this address."""
    return (await connection.execute(select(users).where(users.c.email_key == key))).one_or_none()


async def by_id(connection: AsyncConnection, user: UUID) -> Any | None:
    """Return a user."""
    return (await connection.execute(select(users).where(users.c.id == user))).one_or_none()


async def locked(connection: AsyncConnection, user: UUID) -> Any | None:
    """Return a user whom nobody else changes until the transaction ends."""
    return (await connection.execute(select(users).where(users.c.id == user).with_for_update())).one_or_none()


async def lock_owners(connection: AsyncConnection) -> set[UUID]:
    """Return the active owners; none of them changes until the transaction ends."""
    query = select(users.c.id).where(_ACTIVE_OWNER).order_by(users.c.id).with_for_update()
    return set((await connection.execute(query)).scalars())


async def change(connection: AsyncConnection, user: UUID, **values: Any) -> Any:
    """Change columns of a user; return the user as it is then."""
    query = update(users).where(users.c.id == user).values(**values).returning(users)
    return (await connection.execute(query)).one()


async def remove(connection: AsyncConnection, user: UUID) -> None:
    """Remove a user with its sessions."""
    await connection.execute(delete(users).where(users.c.id == user))


async def page(connection: AsyncConnection, after: str | None, limit: int) -> Sequence[Any]:
    """Return users by address, those behind `after` if it is given."""
    query = select(users).order_by(users.c.email_key).limit(limit)
    if after is not None:
        query = query.where(users.c.email_key > after)
    return (await connection.execute(query)).all()


async def invite(connection: AsyncConnection, new: NewInvitation) -> Any:
    """Store an invitation; return it."""
    query = insert(invitations).values(
        id=new.id,
        token_hash=new.token_hash,
        role=new.role,
        email_key=new.email_key,
        created_by=new.created_by,
        expires_at=func.now() + new.lifetime,
    )
    return (await connection.execute(query.returning(invitations))).one()


async def open_invitation(connection: AsyncConnection, token_hash: bytes) -> Any | None:
    """Return an invitation that can be used; nobody else uses it until the transaction ends."""
    query = select(invitations).where(
        invitations.c.token_hash == token_hash,
        invitations.c.used_at.is_(None),
        invitations.c.expires_at > func.now(),
    )
    return (await connection.execute(query.with_for_update())).one_or_none()


async def use_invitation(connection: AsyncConnection, invitation: UUID) -> None:
    """Note that an invitation was used."""
    await connection.execute(update(invitations).where(invitations.c.id == invitation).values(used_at=func.now()))


async def open_invitations(connection: AsyncConnection, limit: int) -> Sequence[Any]:
    """Return the invitations that can be used, the newest first."""
    query = (
        select(invitations)
        .where(invitations.c.used_at.is_(None), invitations.c.expires_at > func.now())
        .order_by(invitations.c.created_at.desc(), invitations.c.id)
        .limit(limit)
    )
    return (await connection.execute(query)).all()


async def withdraw(connection: AsyncConnection, invitation: UUID) -> Any | None:
    """Remove an invitation that was not used; return it, or None when there is none."""
    query = delete(invitations).where(invitations.c.id == invitation, invitations.c.used_at.is_(None))
    return (await connection.execute(query.returning(invitations))).one_or_none()
