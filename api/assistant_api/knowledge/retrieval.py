"""Find the passages that may answer a question, in several knowledge bases at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID

from assistant_api.clients import Clients, Database
from assistant_api.gateway import Gateway
from assistant_api.knowledge import repository
from assistant_api.knowledge.embedding import embed
from assistant_api.knowledge.fusion import merge
from assistant_api.knowledge.schemas import Passage
from assistant_api.knowledge.text import normalise
from assistant_api.knowledge.vectors import Hit, Vectors, VectorStoreError
from assistant_crds.contracts import KnowledgeBaseConfig
from assistant_crds.gateway_api import Purpose
from assistant_observability import genai, metrics, traces

ALPHA = 0.5  # weight of likeness next to words; measured in tools/bench/retrieval
MAX_QUERY_CHARACTERS = 4_000
DATABASE_TIMEOUT_SECONDS = 3.0
# Chunks of documents that are not ready yet, or no longer, are found too and left out: so many times as many are asked.
SURPLUS = 2

Result = TypeVar("Result")

_tracer = traces.tracer(__name__)


async def retrieve(
    query: str, knowledge_bases: list[KnowledgeBaseConfig], max_chunks: int, min_score: float, clients: Clients
) -> list[Passage]:
    """Return up to `max_chunks` passages with at least `min_score` (0..1), the best first.

    Raises when any knowledge base cannot be asked (GatewayError, GatewayUnreachableError, VectorStoreError,
    DimensionMismatchError, StoreAwayError or what the database raises): an answer from half of the knowledge would look
    like a whole one.
    """
    query = normalise(query).strip()[-MAX_QUERY_CHARACTERS:]  # a long message usually ends with its question
    if not query or not knowledge_bases or max_chunks < 1:
        return []
    for breaker in (clients.database.breaker, clients.weaviate.breaker):
        breaker.check()  # before the question's embedding is paid for
    started = time.perf_counter()
    vectors = Vectors(clients.weaviate)
    with _tracer.start_as_current_span("retrieve", attributes={"retrieval.knowledge_bases": len(knowledge_bases)}):
        async with clients.weaviate.breaker.asking(away=(VectorStoreError,), given_up=False):
            searches = await _all(
                [_search(query, base, max_chunks * SURPLUS, clients.gateway, vectors) for base in knowledge_bases]
            )
        results = [hits for _, hits in searches]
        known = await _known(clients.database, results)
        if any(hit.found.document_id not in known for hits in results for hit in hits):
            # A document was read again, or replaced, after it was found: what took its place can be found by now.
            async with clients.weaviate.breaker.asking(away=(VectorStoreError,), given_up=False):
                results = await _all(
                    [
                        vectors.search(base.key, query, vector, ALPHA, max_chunks * SURPLUS)
                        for base, (vector, _) in zip(knowledge_bases, searches, strict=True)
                    ]
                )
            known = await _known(clients.database, results)
        found = {base.name: hits for base, hits in zip(knowledge_bases, results, strict=True)}
        allowed = {identity: public for identity, public in known.items() if public is not None}
    metrics.RETRIEVAL_DURATION.observe(time.perf_counter() - started)
    return [
        Passage(
            knowledge_base=name,
            document_id=allowed[hit.found.document_id],
            document_name=hit.found.document_name,
            page=hit.found.page,
            text=hit.found.text,
            score=score,
        )
        for name, hit, score in merge(
            {name: [hit for hit in hits if hit.found.document_id in allowed] for name, hits in found.items()}, ALPHA
        )
        if score >= min_score
    ][:max_chunks]


async def _search(
    query: str, knowledge_base: KnowledgeBaseConfig, limit: int, gateway: Gateway, vectors: Vectors
) -> tuple[Sequence[float], list[Hit]]:
    result = "error"
    try:
        with _tracer.start_as_current_span(
            "search knowledge base", attributes={genai.KNOWLEDGE_BASE: knowledge_base.name}
        ):
            (vector,) = await embed(gateway, knowledge_base, [query], Purpose.SEARCH)
            hits = await vectors.search(knowledge_base.key, query, vector, ALPHA, limit)
        result = "found" if hits else "empty"
        return vector, hits
    finally:
        metrics.RETRIEVALS.labels(knowledge_base.name, result).inc()


async def _known(database: Database, found: Sequence[Sequence[Hit]]) -> dict[str, str | None]:
    """Return the found documents that exist, with the ids that people know those by that may be quoted: the ready."""
    identities = {UUID(hit.found.document_id) for hits in found for hit in hits}
    if not identities:
        return {}
    async with asyncio.timeout(DATABASE_TIMEOUT_SECONDS), database.reading() as connection:
        known = await repository.known(connection, identities)
    return {str(identity): None if public is None else str(public) for identity, public in known.items()}


async def _all(calls: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run the calls at once; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
