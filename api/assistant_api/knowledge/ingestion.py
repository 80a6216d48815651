"""Bring one document into the vector store, or out of it. Every step may be repeated; the end is the same.

The order of steps keeps two things true whenever the worker dies: no vector exists that the document's row does not
account for, and a document is ready only when all of its chunks have been counted in the store.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from assistant_api.clients import Database
from assistant_api.gateway import Gateway, GatewayError, GatewayUnreachableError
from assistant_api.knowledge import jobs, media
from assistant_api.knowledge.chunking import Chunk
from assistant_api.knowledge.embedding import DimensionMismatchError, embed
from assistant_api.knowledge.jobs import Job
from assistant_api.knowledge.lease import Lease
from assistant_api.knowledge.parser import Parsed, ParseFailed, ParseRequest
from assistant_api.knowledge.sandbox import ParserUnavailableError, Sandbox
from assistant_api.knowledge.vectors import Vectors, VectorStoreError
from assistant_crds.contracts import KnowledgeBaseConfig
from assistant_crds.gateway_api import Purpose
from assistant_observability import metrics, traces

MAX_BATCH_CHUNKS = 64
MAX_BATCH_TOKENS = 60_000  # providers bound a request's tokens, not only its texts
MAX_CONCURRENT_BATCHES = 2
MAX_EMBED_ATTEMPTS = 4
EMBED_BACKOFF_SECONDS = 0.5
# A limit may be raised at any time: a document that waits for one looks that often, not only in the next period.
MAX_LIMIT_WAIT_SECONDS = 60.0
MAX_EMBED_WAIT_SECONDS = 15.0  # a provider that asks for more has the document wait in the queue instead

_tracer = traces.tracer(__name__)


class RejectedError(Exception):
    """The document itself cannot be ingested, now or later; code and message are for whoever uploaded it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message


class UnavailableError(Exception):
    """Something the document needs is away or not ready; the same work may succeed later."""

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Ingestion:
    """What turning documents into vectors needs."""

    database: Database
    gateway: Gateway
    vectors: Vectors
    sandbox: Sandbox

    async def ingest(self, job: Job, lease: Lease, knowledge_base: KnowledgeBaseConfig) -> int:
        """Make the document ready and return its number of chunks.

        Raises RejectedError, UnavailableError, VectorStoreError, or what the database raises.
        """
        with _stage("parse"):
            parsed = await self._parse(job, knowledge_base)
        total = len(parsed.chunks)
        # From here on the store may hold this many: the row says so before the first one is written.
        await lease.change(jobs.announce, total)
        with _stage("embed"):
            await self._write_all(job, lease, knowledge_base, parsed.chunks)
        with _stage("verify"):
            await lease.secure()
            # Chunks of an earlier attempt that cut the document into more pieces.
            left = await self.vectors.remove(job.knowledge_base, job.id, from_index=total)
            if left != total:
                raise VectorStoreError(f"The vector store holds {left} of {total} chunks.")
        await lease.change(jobs.succeed, parsed.pages if job.media_type == media.PDF else None, total)
        return total

    async def remove(self, job: Job, lease: Lease) -> None:
        """Remove the document: first its vectors, counted to none, then its row."""
        with _stage("remove"):
            await self._remove_vectors(job, lease)
            await lease.change(jobs.forget)

    async def give_up(self, job: Job, lease: Lease, error: RejectedError) -> None:
        """Mark the document failed, once nothing of it is left in the vector store."""
        if job.chunks or error.code in _AFTER_WRITING:
            await self._remove_vectors(job, lease)
        await lease.change(jobs.fail, error.code, error.message)

    async def _remove_vectors(self, job: Job, lease: Lease) -> None:
        await lease.secure()
        left = await self.vectors.remove(job.knowledge_base, job.id)
        if left:
            raise VectorStoreError(f"{left} chunks are left in the vector store.")

    async def _parse(self, job: Job, knowledge_base: KnowledgeBaseConfig) -> Parsed:
        request = ParseRequest(job.media_type, job.bytes, knowledge_base.max_tokens, knowledge_base.overlap_tokens)
        async with aclosing(self._content(job)) as content:
            try:
                result = await self.sandbox.parse(request, content)
            except ParserUnavailableError as error:
                raise UnavailableError("parser_unavailable", "No parser could be started.") from error
        if isinstance(result, ParseFailed):
            raise RejectedError(result.code, result.message)
        return result

    async def _content(self, job: Job) -> AsyncGenerator[bytes, None]:
        size = 0
        async with self.database.long, self.database.transaction() as connection:
            async for part in jobs.content(connection, job):
                size += len(part)
                yield part
        if size != job.bytes:
            # The row went while it was read, or was never whole; the parser must not wait for the rest.
            raise UnavailableError("content_missing", "The document's content could not be read.")

    async def _write_all(
        self, job: Job, lease: Lease, knowledge_base: KnowledgeBaseConfig, chunks: Sequence[Chunk]
    ) -> None:
        """Embed and write all chunks, a few batches at a time."""
        size = max(1, min(MAX_BATCH_CHUNKS, MAX_BATCH_TOKENS // knowledge_base.max_tokens))
        running: set[asyncio.Task[None]] = set()
        try:
            for first in range(0, len(chunks), size):
                if len(running) >= MAX_CONCURRENT_BATCHES:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                batch = chunks[first : first + size]
                running.add(asyncio.create_task(self._write(job, lease, knowledge_base, first, batch)))
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in running:
                task.cancel()
            # Not one may still be writing when the lease is given back.
            await asyncio.gather(*running, return_exceptions=True)

    async def _write(
        self, job: Job, lease: Lease, knowledge_base: KnowledgeBaseConfig, first: int, chunks: Sequence[Chunk]
    ) -> None:
        vectors = await self._embed(knowledge_base, [chunk.text for chunk in chunks])
        await lease.secure()
        await self.vectors.write(job.knowledge_base, (job.id, job.name), first, chunks, vectors)
        metrics.CHUNKS.labels(knowledge_base.name).inc(len(chunks))

    async def _embed(self, knowledge_base: KnowledgeBaseConfig, texts: list[str]) -> list[list[float]]:
        for attempt in range(1, MAX_EMBED_ATTEMPTS + 1):
            try:
                return await embed(self.gateway, knowledge_base, texts, Purpose.INGEST)
            except DimensionMismatchError as error:
                raise RejectedError(MISMATCH, str(error)) from error
            except (GatewayError, GatewayUnreachableError) as error:
                wait = _wait(error, attempt)
                if attempt == MAX_EMBED_ATTEMPTS or wait is None:
                    raise _explain(error) from error
                await asyncio.sleep(wait)
        raise AssertionError("unreachable")


REFUSED = "embedding_refused"
MISMATCH = "dimension_mismatch"
# Failures that can only come after chunks may have been written.
_AFTER_WRITING = frozenset({REFUSED, MISMATCH})


# Limits that do not pass in seconds, and a price that somebody has to add: the document waits and shows why.
_WAITING_FOR_LIMITS = {
    "budget_exhausted": "The budget is used up",
    "tokens_exhausted": "The tokens of the day are used up",
    "price_unknown": "No price is known for the embedding model, and a budget applies",
}


def _wait(error: GatewayError | GatewayUnreachableError, attempt: int) -> float | None:
    """Return how long to wait before asking again, None when the document should rather wait in the queue."""
    if isinstance(error, GatewayError):
        if not error.transient or error.code in _WAITING_FOR_LIMITS:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= MAX_EMBED_WAIT_SECONDS else None
    return float(EMBED_BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(0.8, 1.2))  # noqa: S311  no secret


def _explain(error: GatewayError | GatewayUnreachableError) -> RejectedError | UnavailableError:
    if isinstance(error, GatewayUnreachableError):
        return UnavailableError("embedding_unavailable", "The gateway cannot be reached.")
    if error.code in _WAITING_FOR_LIMITS and error.status in {403, 429}:
        message = f"{_WAITING_FOR_LIMITS[error.code]}; the document is tried again: {error.message[:300]}"
        return UnavailableError(
            error.code, message, min(error.retry_after or MAX_LIMIT_WAIT_SECONDS, MAX_LIMIT_WAIT_SECONDS)
        )
    if error.status in {400, 413, 422}:
        return RejectedError(REFUSED, f"The embedding model refused the document: {error.message[:300]}")
    # 401, 403 and 404 are about this pod's token or a policy that has not arrived: they pass.
    return UnavailableError(
        "embedding_unavailable", f"The embedding model does not answer: {error.message[:300]}", error.retry_after
    )


@contextmanager
def _stage(name: str) -> Iterator[None]:
    started = time.perf_counter()
    with _tracer.start_as_current_span(f"document {name}"):
        yield
    metrics.INGEST_DURATION.labels(name).observe(time.perf_counter() - started)
