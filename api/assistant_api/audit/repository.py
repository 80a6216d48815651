"""The audit log in the tenant's database: entries are added and read, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.database.accounts import AuditEntry, AuditHead

entries = cast("Table", AuditEntry.__table__)
head = cast("Table", AuditHead.__table__)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries: columns with values, from `since` to before `until`."""

    equal: dict[str, str] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None


async def lock_head(connection: AsyncConnection) -> tuple[int, bytes] | None:
    """Return number and hash of the last entry; nobody adds another until the transaction ends."""
    row = (await connection.execute(select(head.c.sequence, head.c.hash).with_for_update())).one_or_none()
    return (row[0], row[1]) if row else None


async def read_head(connection: AsyncConnection) -> tuple[int, bytes] | None:
    """Return number and hash of the last entry."""
    row = (await connection.execute(select(head.c.sequence, head.c.hash))).one_or_none()
    return (row[0], row[1]) if row else None


async def append(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """Add an entry and make it the head."""
    await connection.execute(insert(entries).values(values))
    await connection.execute(update(head).values(sequence=values["sequence"], hash=values["hash"]))


async def after(connection: AsyncConnection, sequence: int, limit: int) -> Sequence[Any]:
    """Return the entries behind `sequence`, the oldest first."""
    query = select(entries).where(entries.c.sequence > sequence).order_by(entries.c.sequence).limit(limit)
    return (await connection.execute(query)).all()


async def page(connection: AsyncConnection, wanted: Filter, before: int | None, limit: int) -> Sequence[Any]:
    """Return entries, the newest first, those before `before` if it is given."""
    query = select(entries).where(*(entries.c[name] == value for name, value in wanted.equal.items()))
    if wanted.since is not None:
        query = query.where(entries.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(entries.c.at < wanted.until)
    if before is not None:
        query = query.where(entries.c.sequence < before)
    return (await connection.execute(query.order_by(entries.c.sequence.desc()).limit(limit))).all()
