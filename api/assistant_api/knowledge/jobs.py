"""The worker's side of documents: which one is to be done next, by whom, until when, and how it ended.

A document's row is its job (decision 0009). A worker claims it for a few seconds and renews the claim while it works;
a worker that dies simply stops renewing. Every change is bound to the claim's own identifier, so that a worker that
was taken for dead cannot overwrite what its successor did.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any, Literal, cast
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Float, and_, exists, func, literal, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.knowledge.repository import contents, documents, drop_contents, notify
from assistant_crds.contracts import INDEX_VERSION

LEASE_TTL_SECONDS = 20.0

_UNFINISHED = documents.c.status.in_(("pending", "processing", "deleting"))


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed document: `work` is what is to be done, `attempts` counts claims without outcome, this one included."""

    id: UUID
    lease: UUID
    work: Literal["ingest", "remove"]
    knowledge_base: str  # KnowledgeBaseConfig.key
    name: str
    media_type: str
    bytes: int
    chunks: int
    attempts: int
    retries: int
    traceparent: str | None
    age: float  # seconds since the upload when it was claimed
    first_id: UUID | None  # of a job that reads a document again


async def claim(connection: AsyncConnection, knowledge_bases: Collection[str], seconds: float) -> Job | None:
    """Claim the oldest job of these knowledge bases that is due and that nobody holds."""
    due = (
        select(documents.c.id)
        .where(
            _UNFINISHED,
            documents.c.knowledge_base.in_(knowledge_bases),
            documents.c.run_after <= func.now(),
            or_(documents.c.leased_until.is_(None), documents.c.leased_until < func.now()),
        )
        # Whoever uploads waits for it; a document that is read again is in use meanwhile.
        .order_by(documents.c.first_id.is_not(None), documents.c.sequence)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    query = (
        documents.update()
        .where(documents.c.id == due)
        .values(
            status=func.replace(documents.c.status, "pending", "processing"),
            lease=uuid4(),
            leased_until=_in(seconds),
            attempts=documents.c.attempts + 1,
            updated_at=func.now(),
        )
        .returning(
            documents.c.id,
            documents.c.lease,
            documents.c.status,
            documents.c.knowledge_base,
            documents.c.name,
            documents.c.media_type,
            documents.c.bytes,
            documents.c.chunks,
            documents.c.attempts,
            documents.c.retries,
            documents.c.traceparent,
            func.extract("epoch", func.clock_timestamp() - documents.c.created_at).cast(Float),
            documents.c.first_id,
        )
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return Job(row[0], row[1], "remove" if row.status == "deleting" else "ingest", *row[3:])


async def next_due(connection: AsyncConnection, knowledge_bases: Collection[str]) -> float | None:
    """Return in how many seconds (0 upwards) the next job of these knowledge bases is due, None if there is none."""
    due = func.min(func.greatest(documents.c.run_after, documents.c.leased_until))
    query = select(func.extract("epoch", due - func.clock_timestamp())).where(
        _UNFINISHED, documents.c.knowledge_base.in_(knowledge_bases)
    )
    seconds = cast("float | None", (await connection.execute(query)).scalar_one())
    return None if seconds is None else max(0.0, float(seconds))


async def renew(connection: AsyncConnection, job: Job, seconds: float) -> bool:
    """Hold the job for `seconds` from now; False when it is not, or no longer, this one's to do."""
    return await _change(connection, _still(job), leased_until=_in(seconds))


async def content(connection: AsyncConnection, job: Job) -> AsyncIterator[bytes]:
    """Yield the parts of a document's content in order, one at a time in memory."""
    part = 0
    holder = await _in_use(connection, job)
    query = select(contents.c.content).where(contents.c.document_id == (holder or job.id))
    while (found := (await connection.execute(query.where(contents.c.part == part))).scalar_one_or_none()) is not None:
        yield found
        part += 1


async def announce(connection: AsyncConnection, job: Job, chunks: int) -> bool:
    """Record how many vectors the document may have from now on: they are accounted for before they are written."""
    return await _change(connection, _still(job), chunks=func.greatest(documents.c.chunks, chunks))


async def succeed(connection: AsyncConnection, job: Job, pages: int | None, chunks: int) -> bool:
    """Make the document ready and the older versions of its name go; False when the job is no longer this one's.

    A version that is overtaken by a newer one, ready before it, goes itself. What has read a document again takes the
    content of the row whose place it takes; when that is not in use any more, it is not needed.
    """
    same = and_(documents.c.knowledge_base == job.knowledge_base, documents.c.name == job.name)
    # In one order everywhere, so that two versions that end at once wait for each other instead of deadlocking.
    await connection.execute(select(documents.c.id).where(same).order_by(documents.c.sequence).with_for_update())
    holder = await _in_use(connection, job)
    if job.first_id is not None and holder is None:
        return await _change(connection, _still(job), **_at_rest("deleting"), run_after=func.now())
    if not await _change(
        connection,
        _still(job),
        **_at_rest("ready"),
        index_version=INDEX_VERSION,
        error_code=None,
        error_message=None,
        pages=pages,
        chunks=chunks,
    ):
        return False
    if holder is not None:
        await connection.execute(contents.update().where(contents.c.document_id == holder).values(document_id=job.id))
    other = documents.alias()
    newer = exists().where(
        other.c.knowledge_base == documents.c.knowledge_base,
        other.c.name == documents.c.name,
        other.c.sequence > documents.c.sequence,
        other.c.status == "ready",
    )
    overtaken = (
        documents.update()
        .where(same, newer, documents.c.status != "deleting")
        .values(status="deleting", attempts=0, retries=0, run_after=func.now(), updated_at=func.now())
        .returning(documents.c.id)
    )
    await drop_contents(connection, (await connection.execute(overtaken)).scalars().all())
    await notify(connection)
    return True


async def fail(connection: AsyncConnection, job: Job, code: str, message: str) -> bool:
    """Give the document up, with the reason; its vectors must be gone by now."""
    values = {**_at_rest("failed"), "error_code": code, "error_message": message, "chunks": 0, "pages": None}
    return await _change(connection, _still(job), **values)


async def postpone(connection: AsyncConnection, job: Job, seconds: float, code: str, message: str) -> bool:
    """Have the job done again in `seconds`; until then the document shows why it waits."""
    values = {
        **_at_rest("pending" if job.work == "ingest" else "deleting"),
        "retries": documents.c.retries + 1,
        "run_after": _in(seconds),
        "error_code": code,
        "error_message": message,
    }
    return await _change(connection, _still(job), **values)


async def release(connection: AsyncConnection, job: Job) -> None:
    """Give the job back as it was, for whoever claims it next; also when its work has changed in the meantime."""
    given_back = func.replace(documents.c.status, "processing", "pending")
    held = and_(documents.c.id == job.id, documents.c.lease == job.lease)
    await _change(connection, held, lease=None, leased_until=None, attempts=0, status=given_back)
    await notify(connection)


async def forget(connection: AsyncConnection, job: Job) -> bool:
    """Remove the row of a document whose vectors have been counted to none; its content goes with it."""
    return (await connection.execute(documents.delete().where(_still(job)))).rowcount > 0


async def _in_use(connection: AsyncConnection, job: Job) -> UUID | None:
    """Return the row that is in use while this job reads its document again; None for any other job."""
    if job.first_id is None:
        return None
    known = or_(documents.c.id == job.first_id, documents.c.first_id == job.first_id)
    query = select(documents.c.id).where(
        known, documents.c.knowledge_base == job.knowledge_base, documents.c.status == "ready", documents.c.id != job.id
    )
    return (await connection.execute(query)).scalar_one_or_none()


def _still(job: Job) -> ColumnElement[bool]:
    """The row, while it is claimed by this job and is still to be ingested, or removed, as it was then."""
    status = "processing" if job.work == "ingest" else "deleting"
    return and_(documents.c.id == job.id, documents.c.lease == job.lease, documents.c.status == status)


def _at_rest(status: str) -> dict[str, Any]:
    return {
        "status": status,
        "lease": None,
        "leased_until": None,
        "attempts": 0,
        "updated_at": func.now(),
    }


def _in(seconds: float) -> ColumnElement[Any]:
    # The database's clock, not the worker's: several workers need not agree on the time.
    return func.now() + literal(seconds) * text("interval '1 second'")


async def _change(connection: AsyncConnection, where: ColumnElement[bool], **values: Any) -> bool:
    return (await connection.execute(documents.update().where(where).values(**values))).rowcount > 0
