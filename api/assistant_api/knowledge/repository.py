"""Documents in the tenant's database, as the API sees them. The worker's side of the same rows is in `jobs.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    Select,
    Table,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.database.models import Document, DocumentContent
from assistant_crds.contracts import INDEX_VERSION

documents = cast("Table", Document.__table__)
contents = cast("Table", DocumentContent.__table__)

CHANNEL = "documents"  # NOTIFY: there is work for the worker
MAX_PART_BYTES = 1 << 20

_SHOWN = (
    documents.c.id,
    documents.c.sequence,
    documents.c.name,
    documents.c.media_type,
    documents.c.bytes,
    documents.c.sha256,
    documents.c.status,
    documents.c.error_code,
    documents.c.error_message,
    documents.c.pages,
    documents.c.chunks,
    documents.c.created_at,
    documents.c.updated_at,
    documents.c.index_version,
    documents.c.first_id,
)
_VISIBLE = documents.c.status != "deleting"
# What reads a document again is no document of its own before it is ready.
_OWN = and_(_VISIBLE, or_(documents.c.first_id.is_(None), documents.c.status == "ready"))
_OUTDATED = and_(documents.c.status == "ready", documents.c.index_version < INDEX_VERSION)
_again = documents.alias("again")
_LEAVING: dict[str, Any] = {
    "status": "deleting",
    "attempts": 0,
    "retries": 0,
    "run_after": func.now(),
    "updated_at": func.now(),
}


# Documents have numbers from 1 on.
_PLACE = text(
    "INSERT INTO documents (id, sequence, knowledge_base, name, media_type, bytes, sha256, status)"
    " OVERRIDING SYSTEM VALUE VALUES (:id, -1, :knowledge_base, 'upload', '', 0, '', 'deleting')"
).bindparams(bindparam("id", type_=Uuid))

# Asked for every question to an assistant: built once, and one array instead of a list of any length.
_KNOWN = select(
    documents.c.id,
    case((documents.c.status == "ready", func.coalesce(documents.c.first_id, documents.c.id)), else_=None),
).where(documents.c.id == any_(bindparam("identities", type_=ARRAY(Uuid))), _VISIBLE)


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """One document's row, without its content. `id` is the row's; people know the document by `public_id`."""

    id: UUID
    sequence: int
    name: str
    media_type: str
    bytes: int
    sha256: str
    status: str
    error_code: str | None
    error_message: str | None
    pages: int | None
    chunks: int
    created_at: datetime
    updated_at: datetime
    index_version: int
    first_id: UUID | None
    # How it goes with reading it again, if that was asked for and is not done.
    again_status: str | None = None
    again_error_code: str | None = None
    again_error_message: str | None = None

    @property
    def public_id(self) -> UUID:
        """The id that the document has kept since it was uploaded."""
        return self.first_id or self.id

    @property
    def outdated(self) -> bool:
        """Whether an earlier version of parser or index read it."""
        return self.status == "ready" and self.index_version < INDEX_VERSION


@dataclass(frozen=True, slots=True)
class NewDocument:
    """What an upload brings."""

    id: UUID
    knowledge_base: str  # KnowledgeBaseConfig.key
    name: str
    media_type: str
    bytes: int
    sha256: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """How much a knowledge base holds, of everything but what is being removed."""

    documents: int = 0
    pending: int = 0
    failed: int = 0
    bytes: int = 0
    outdated: int = 0  # read by an earlier version
    reindexing: int = 0  # being read again


async def lock(connection: AsyncConnection, knowledge_base: str) -> None:
    """Let no other upload into the knowledge base until the transaction ends: limits are checked, then used.

    A row that only this transaction sees holds a place in a unique index, for which others wait. Advisory locks would
    be simpler, but who may take one may take so many that the server has none left for anybody: it refuses them.
    """
    placeholder = {"id": uuid4(), "knowledge_base": knowledge_base}
    await connection.execute(_PLACE, placeholder)
    await connection.execute(documents.delete().where(documents.c.id == placeholder["id"]))


async def newest(connection: AsyncConnection, knowledge_base: str, name: str) -> StoredDocument | None:
    """Return the newest version of the document called `name`."""
    query = _shown(knowledge_base).where(documents.c.name == name).order_by(documents.c.sequence.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return _stored(row) if row else None


async def usage(connection: AsyncConnection, knowledge_bases: Collection[str]) -> dict[str, Usage]:
    """Return the usage of each knowledge base that holds anything."""
    query = (
        select(
            documents.c.knowledge_base,
            func.count().filter(_OWN),
            func.count().filter(_OWN, documents.c.status.in_(("pending", "processing"))),
            func.count().filter(_OWN, documents.c.status == "failed"),
            func.coalesce(func.sum(documents.c.bytes).filter(_OWN), 0),
            func.count().filter(_OUTDATED),
            func.count().filter(documents.c.first_id.is_not(None), documents.c.status.in_(("pending", "processing"))),
        )
        .where(documents.c.knowledge_base.in_(knowledge_bases), _VISIBLE)
        .group_by(documents.c.knowledge_base)
    )
    return {row[0]: Usage(*(int(value) for value in row[1:])) for row in await connection.execute(query)}


async def supersede(connection: AsyncConnection, knowledge_base: str, name: str) -> None:
    """Have those versions of `name` go that a new one makes needless: what waits, and what failed.

    The one that is in use stays until the new one is ready, and one that is being worked on may still become ready.
    """
    needless = and_(
        documents.c.knowledge_base == knowledge_base,
        documents.c.name == name,
        documents.c.status.in_(("pending", "failed")),
    )
    query = documents.update().where(needless).values(**_LEAVING).returning(documents.c.id)
    await drop_contents(connection, (await connection.execute(query)).scalars().all())


async def drop_contents(connection: AsyncConnection, identities: Iterable[UUID]) -> None:
    """Remove the contents of documents that are to go: nobody needs them any more, and they count no longer."""
    await connection.execute(contents.delete().where(contents.c.document_id.in_(list(identities))))


async def stored(connection: AsyncConnection, knowledge_base: str, but_for: str) -> tuple[int, int]:
    """Return how many names other than `but_for` it holds, and the bytes of all versions of all names."""
    query = select(
        func.count(documents.c.name.distinct()).filter(documents.c.name != but_for),
        func.coalesce(func.sum(documents.c.bytes), 0),
    ).where(documents.c.knowledge_base == knowledge_base, _OWN)
    names, size = (await connection.execute(query)).one()
    return int(names), int(size)


async def insert(connection: AsyncConnection, document: NewDocument) -> StoredDocument:
    """Add a document that is to be ingested; its content comes with `insert_part`."""
    query = (
        documents.insert()
        .values(
            id=document.id,
            knowledge_base=document.knowledge_base,
            name=document.name,
            media_type=document.media_type,
            bytes=document.bytes,
            sha256=document.sha256,
            traceparent=document.traceparent,
        )
        .returning(*_SHOWN)
    )
    return _stored((await connection.execute(query)).one())


async def insert_part(connection: AsyncConnection, document: UUID, part: int, content: bytes) -> None:
    """Add the bytes number `part * PART_BYTES` and following of a document."""
    await connection.execute(contents.insert().values(document_id=document, part=part, content=content))


async def piece(connection: AsyncConnection, document: UUID, start: int, size: int) -> bytes:
    """Return up to `size` bytes of a document from `start` on, of one part; none when there are no more.

    Of contents as they are stored (EXTERNAL), Postgres reads only what is asked for.
    """
    part, within = divmod(start, MAX_PART_BYTES)
    query = select(func.substring(contents.c.content, within + 1, size)).where(
        contents.c.document_id == document, contents.c.part == part
    )
    return (await connection.execute(query)).scalar_one_or_none() or b""


async def restart(connection: AsyncConnection, document: UUID, traceparent: str | None) -> StoredDocument:
    """Have a failed document ingested again."""
    query = (
        documents.update()
        .where(documents.c.id == document)
        .values(
            status="pending",
            error_code=None,
            error_message=None,
            attempts=0,
            retries=0,
            run_after=func.now(),
            traceparent=traceparent,
            updated_at=func.now(),
        )
        .returning(*_SHOWN)
    )
    return _stored((await connection.execute(query)).one())


async def reindex(connection: AsyncConnection, knowledge_base: str) -> None:
    """Have every document that an earlier version has read, or could not read again, be read again."""
    await connection.execute(select(func.reindex_knowledge_base(knowledge_base, INDEX_VERSION)))


async def notify(connection: AsyncConnection) -> None:
    """Wake the worker when the transaction has been committed."""
    await connection.execute(select(func.pg_notify(CHANNEL, "")))


async def get(connection: AsyncConnection, knowledge_base: str, document: UUID) -> StoredDocument | None:
    """Return one document, None when it is not in this knowledge base or is being removed."""
    row = (await connection.execute(_shown(knowledge_base).where(_known_as(document)))).one_or_none()
    return _stored(row) if row else None


async def page(
    connection: AsyncConnection, knowledge_base: str, limit: int, before: int | None
) -> tuple[list[StoredDocument], int | None]:
    """Return up to `limit` documents, the newest first, and where the next page begins (None at the end)."""
    query = _shown(knowledge_base).order_by(documents.c.sequence.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(documents.c.sequence < before)
    rows = [_stored(row) for row in await connection.execute(query)]
    return rows[:limit], rows[limit - 1].sequence if len(rows) > limit else None


async def mark_deleting(connection: AsyncConnection, knowledge_base: str, document: UUID) -> bool:
    """Hand a document over to the worker for removal; False when there is none.

    A worker that has it under way keeps its lease until it notices, so that nothing is written after the removal.
    """
    query = (
        documents.update()
        .where(_known_as(document), documents.c.knowledge_base == knowledge_base, _VISIBLE)
        .values(**_LEAVING)
        .returning(documents.c.id)
    )
    identities = (await connection.execute(query)).scalars().all()
    await drop_contents(connection, identities)
    return bool(identities)


async def known(connection: AsyncConnection, identities: Iterable[UUID]) -> dict[UUID, UUID | None]:
    """Return those of `identities` that are not deleted, with the id by which people know each that is ready."""
    rows = await connection.execute(_KNOWN, {"identities": list(identities)})
    return {row[0]: row[1] for row in rows}


def _shown(knowledge_base: str) -> Select[Any]:
    again = and_(
        _again.c.first_id == func.coalesce(documents.c.first_id, documents.c.id),
        _again.c.knowledge_base == documents.c.knowledge_base,
        _again.c.status.in_(("pending", "processing", "failed")),
    )
    return (
        select(*_SHOWN, _again.c.status, _again.c.error_code, _again.c.error_message)
        .select_from(documents.outerjoin(_again, again))
        .where(documents.c.knowledge_base == knowledge_base, _OWN)
    )


def _known_as(document: UUID) -> ColumnElement[bool]:
    return or_(documents.c.id == document, documents.c.first_id == document)


def _stored(row: Row[Any] | Sequence[Any]) -> StoredDocument:
    return StoredDocument(*row)
