"""Chunks in Weaviate: one vector tenant per knowledge base, one object per chunk.

Every object's UUID follows from its document and its place in it, so that writing a document again overwrites what
an interrupted attempt left. Nothing is believed that can be counted: a deletion is done when a count says zero.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol
from uuid import NAMESPACE_URL, UUID, uuid5

from assistant_api.knowledge.folding import spellings, widened
from assistant_crds.naming import VECTOR_SPELLINGS

if TYPE_CHECKING:  # importing it costs 0.4 s and 28 MiB: it is done with the first connection
    from weaviate import WeaviateAsyncClient
    from weaviate.collections import CollectionAsync

    from assistant_api.knowledge.chunking import Chunk  # with it comes the splitter, which the API never needs

SEARCH_TIMEOUT_SECONDS = 5.0
WRITE_TIMEOUT_SECONDS = 12.0  # shorter than a job's lease: a write must not outlive the right to make it
COUNT_TIMEOUT_SECONDS = 10.0
# Weaviate deletes at most 10,000 objects per call; rounds without progress mean that something else is wrong.
_MAX_DELETE_ROUNDS = 20
_PROPERTIES = ["document_id", "chunk_index", "document_name", "page", "text"]
# Words as they were written come before their other spellings; measured in `tools/bench/retrieval`.
_SEARCHED = ["text", f"{VECTOR_SPELLINGS}^0.5"]
_GRPC_AWAY = frozenset({4, 8, 14})  # DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE
_CHUNK_NAMESPACE = uuid5(NAMESPACE_URL, "urn:assistantplatform:chunk")

# On a failed write the client logs the objects themselves, which are the tenant's documents.
logging.getLogger("weaviate-client").setLevel(logging.CRITICAL)


class VectorStoreError(Exception):
    """The vector store refused, or did not answer; the same call may succeed later. Names no content."""


class VectorRefusedError(VectorStoreError):
    """The vector store answered, and did not take what it was given."""


class Store(Protocol):
    """Where a connected client comes from (`clients.VectorStore`)."""

    @property
    def collection(self) -> Callable[[], str]:
        """Returns the name of the collection, as the configuration says now."""

    async def client(self) -> WeaviateAsyncClient:
        """Return the connected client."""


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk as the store gave it back."""

    document_id: str
    chunk_index: int
    document_name: str
    page: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a hybrid search found. `score` is 0..1, relative to the best of the same search.

    The other two are what the score was made from, where the store tells: the cosine similarity (-1..1) and the
    BM25 score (0 upwards), None when only the other search found the chunk.
    """

    found: Found
    score: float
    similarity: float | None
    keywords: float | None


def chunk_uuid(document: UUID, index: int) -> UUID:
    """Return the UUID of a document's chunk number `index`."""
    return uuid5(_CHUNK_NAMESPACE, f"{document}/{index}")


class Vectors:
    """The chunks of every knowledge base of the tenant; `knowledge_base` is `KnowledgeBaseConfig.key`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(
        self,
        knowledge_base: str,
        document: tuple[UUID, str],
        first_index: int,
        chunks: Sequence[Chunk],
        vectors: Sequence[Sequence[float]],
    ) -> None:
        """Write chunks of `document` (id, name), numbered from `first_index`, over whatever they replace."""
        identity, name = document
        async with self._use(knowledge_base, WRITE_TIMEOUT_SECONDS) as collection:
            from weaviate.classes.data import DataObject  # noqa: PLC0415  only now, see `_use`

            objects = [
                DataObject(
                    uuid=chunk_uuid(identity, index),
                    properties={
                        "document_id": str(identity),
                        "chunk_index": index,
                        "document_name": name,
                        "page": chunk.page,
                        "text": chunk.text,
                        VECTOR_SPELLINGS: spellings(chunk.text),
                    },
                    vector=list(vector),
                )
                for index, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True), start=first_index)
            ]
            result = await collection.data.insert_many(objects)
            if result.errors:
                first = next(iter(result.errors.values())).message
                raise VectorRefusedError(f"{len(result.errors)} of {len(objects)} chunks were refused: {first[:200]}")

    async def count(self, knowledge_base: str, document: UUID) -> int:
        """Return how many chunks of `document` the store holds."""
        async with self._use(knowledge_base, COUNT_TIMEOUT_SECONDS) as collection:
            answer = await collection.aggregate.over_all(filters=_of(document), total_count=True)
            return int(answer.total_count or 0)

    async def remove(self, knowledge_base: str, document: UUID, from_index: int = 0) -> int:
        """Remove the chunks of `document` numbered `from_index` and above; return how many chunks are left."""
        left = await self.count(knowledge_base, document)
        from weaviate.classes.query import Filter  # noqa: PLC0415  only now, see `_use`

        where = _of(document)
        if from_index:
            where = where & Filter.by_property("chunk_index").greater_or_equal(from_index)
        for _ in range(_MAX_DELETE_ROUNDS):
            if left <= from_index:
                break
            async with self._use(knowledge_base, WRITE_TIMEOUT_SECONDS) as collection:
                await collection.data.delete_many(where)
            left = await self.count(knowledge_base, document)
        return left

    async def search(
        self, knowledge_base: str, query: str, vector: Sequence[float], alpha: float, limit: int
    ) -> list[Hit]:
        """Return the best `limit` chunks by words and by likeness, which weighs `alpha` (0..1); the best first."""
        async with self._use(knowledge_base, SEARCH_TIMEOUT_SECONDS) as collection:
            from weaviate.classes.query import HybridFusion, MetadataQuery  # noqa: PLC0415  only now, see `_use`
            from weaviate.exceptions import WeaviateQueryError  # noqa: PLC0415

            hybrid = partial(
                collection.query.hybrid,
                vector=list(vector),
                alpha=alpha,
                limit=limit,
                fusion_type=HybridFusion.RELATIVE_SCORE,
                return_metadata=MetadataQuery(score=True, explain_score=True),
                return_properties=_PROPERTIES,
            )
            try:
                answer = await hybrid(widened(query), query_properties=_SEARCHED)
            except WeaviateQueryError as error:
                # A collection that the operator has not widened yet, such as one from a backup, is searched as it is.
                if VECTOR_SPELLINGS not in str(error):
                    raise
                answer = await hybrid(query, query_properties=["text"])
        return hits_of(answer.objects)

    @asynccontextmanager
    async def _use(self, knowledge_base: str, seconds: float) -> AsyncIterator[CollectionAsync[Any, Any]]:
        """Give the knowledge base's part of the collection for `seconds`; whatever fails is a VectorStoreError.

        Connecting imports Weaviate's package, in a thread. Nothing else may import of it before that is done: two
        threads that import it at once can each be given half of it.
        """
        try:
            async with asyncio.timeout(seconds):
                client = await self._store.client()
                yield client.collections.use(self._store.collection()).with_tenant(knowledge_base)
        except TimeoutError as error:
            raise VectorStoreError("The vector store did not answer in time.") from error
        except _refusals() as error:
            raise _meaning(error)(f"The vector store refused: {type(error).__name__}.") from error
        except _client_errors() as error:
            raise VectorStoreError(f"The vector store failed: {type(error).__name__}.") from error


@cache
def _client_errors() -> tuple[type[Exception], ...]:
    import httpx  # noqa: PLC0415  see TYPE_CHECKING above
    from weaviate.exceptions import WeaviateBaseError  # noqa: PLC0415

    return (WeaviateBaseError, httpx.HTTPError, OSError)


@cache
def _refusals() -> tuple[type[Exception], ...]:
    from weaviate.exceptions import (  # noqa: PLC0415  see TYPE_CHECKING above
        InsufficientPermissionsError,
        UnexpectedStatusCodeError,
        WeaviateInsertManyAllFailedError,
    )

    return (InsufficientPermissionsError, UnexpectedStatusCodeError, WeaviateInsertManyAllFailedError)


# The explanation is meant for people, so its form may change; without it the relative score stands alone.
_ORIGINAL = re.compile(r"Result Set (vector|keyword),\w+\) Document \S+: original score (-?[\d.]+(?:[eE][+-]?\d+)?)")


def hits_of(objects: Iterable[Any]) -> list[Hit]:
    """Return the hits among a search's objects.

    A chunk that is deleted between being ranked and being read comes back without its properties: it is no hit.
    """
    return [_hit(item.properties, item.metadata) for item in objects if item.properties.get("document_id")]


def _hit(properties: Any, metadata: Any) -> Hit:
    original = {kind: float(score) for kind, score in _ORIGINAL.findall(metadata.explain_score or "")}
    return Hit(
        found=_found(properties),
        score=min(1.0, max(0.0, metadata.score or 0.0)),
        similarity=original.get("vector"),
        keywords=original.get("keyword"),
    )


def _meaning(error: Exception) -> type[VectorStoreError]:
    status = getattr(error, "status_code", 0)  # of HTTP, or of gRPC, whose codes are small
    return VectorStoreError if status >= 500 or status in _GRPC_AWAY else VectorRefusedError


def _of(document: UUID) -> Any:
    from weaviate.classes.query import Filter  # noqa: PLC0415

    return Filter.by_property("document_id").equal(str(document))


def _found(properties: Any) -> Found:
    page = properties.get("page")
    return Found(
        document_id=str(properties.get("document_id")),
        chunk_index=int(properties.get("chunk_index") or 0),
        document_name=str(properties.get("document_name")),
        page=None if page is None else int(page),
        text=str(properties.get("text") or ""),
    )
