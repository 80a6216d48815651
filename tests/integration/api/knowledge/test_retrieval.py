"""Questions to real knowledge bases."""

from __future__ import annotations

import pytest
from knowledge_world import World

from assistant_api.gateway import GatewayError, GatewayUnreachableError
from assistant_api.knowledge.embedding import DimensionMismatchError
from assistant_api.knowledge.retrieval import retrieve
from assistant_api.knowledge.schemas import Passage
from assistant_api.knowledge.vectors import VectorStoreError
from assistant_crds.gateway_api import Purpose

HANDBOOK = """# Handbook

## Holidays

Everyone has thirty days of paid holiday a year.

## Illness

Tell your team lead by 9:30 on the first day.
"""
PRODUCTS = """# Products

## Recall R-26-04

The left hinge of the cargo box is replaced.

## Brakes

Use mineral oil MO-5 only.
"""


async def filled(world: World) -> World:
    """The world with a document in each of its two knowledge bases."""
    handbook, products = world.tenant.knowledge_bases
    async with world.worker():
        await world.add("handbook.md", HANDBOOK, handbook)
        await world.add("products.md", PRODUCTS, products)
        await world.until("SELECT count(*) FROM documents WHERE status = 'ready'", 2)
    world.gateway.calls.clear()
    return world


async def ask(world: World, query: str, limit: int = 3, min_score: float = 0.0, bases: int = 2) -> list[Passage]:
    return await retrieve(query, world.tenant.knowledge_bases[:bases], limit, min_score, world.clients)


async def test_the_best_passage_comes_first(world: World) -> None:
    """Whichever knowledge base holds the answer, its passage leads, with where it is from."""
    await filled(world)
    for query, base, words in (
        ("How many days of holiday?", "handbook", "thirty days"),
        ("R-26-04", "products", "left hinge"),
        ("Which oil do the brakes need?", "products", "MO-5"),
    ):
        passages = await ask(world, query)
        assert words in passages[0].text
        assert (passages[0].knowledge_base, passages[0].document_name) == (base, f"{base}.md")
        assert [passage.score for passage in passages] == sorted((p.score for p in passages), reverse=True)
        assert all(0.0 <= passage.score <= 1.0 for passage in passages)
        assert len({passage.text for passage in passages}) == len(passages) == 3


async def test_each_knowledge_base_is_embedded_once_for_search(world: World) -> None:
    """One embedding per knowledge base, for the purpose `search`, so that it can be metered as such."""
    await filled(world)
    await ask(world, "holiday")
    assert sorted((name, purpose) for _, name, purpose in world.gateway.calls) == [
        ("handbook", "search"),
        ("products", "search"),
    ]


async def test_limits_of_number_and_score_hold(world: World) -> None:
    """Never more than asked for, nothing below the least score."""
    await filled(world)
    assert len(await ask(world, "holiday", limit=1)) == 1
    everything = await ask(world, "thirty days of holiday", limit=10)
    some = await ask(world, "thirty days of holiday", limit=10, min_score=everything[1].score)
    assert [passage.text for passage in some] == [passage.text for passage in everything[:2]]
    assert await ask(world, "holiday", limit=0) == []
    assert await ask(world, "  ") == []
    assert await retrieve("holiday", [], 3, 0.0, world.clients) == []


async def test_a_text_in_two_documents_is_quoted_once(world: World) -> None:
    """The same file under two names does not fill the prompt twice."""
    await filled(world)
    async with world.worker():
        await world.add("copy.md", HANDBOOK)
        await world.until("SELECT count(*) FROM documents WHERE status = 'ready'", 3)
    passages = await ask(world, "holiday", limit=10)
    assert len({passage.text for passage in passages}) == len(passages)


async def test_a_deleted_document_is_never_quoted(world: World) -> None:
    """From the moment of its deletion, while its vectors are still there."""
    await filled(world)
    (passage, *_) = await ask(world, "holiday", bases=1)
    await world.execute("UPDATE documents SET status = 'deleting' WHERE name = 'handbook.md'")
    assert await world.vector_count() > 0
    assert passage.document_id not in {found.document_id for found in await ask(world, "holiday")}
    assert await ask(world, "holiday", bases=1) == []


async def test_a_document_on_its_way_in_is_not_quoted_yet(world: World) -> None:
    """Half a document is no knowledge."""
    await filled(world)
    await world.execute("UPDATE documents SET status = 'processing' WHERE name = 'handbook.md'")
    assert await ask(world, "holiday", bases=1) == []


async def test_what_cannot_be_asked_is_an_error(world: World) -> None:
    """An answer from half of the knowledge would look like a whole one: any failure is raised as it is."""
    await filled(world)
    for error in (GatewayUnreachableError("refused"), GatewayError(429, "rate_limit_exceeded", "slow down", 2.0)):
        world.gateway.failures = [error]
        with pytest.raises(type(error)):
            await ask(world, "holiday")
    world.gateway.dimensions = 8
    with pytest.raises(DimensionMismatchError, match=r"8 dimensions.*256"):
        await ask(world, "holiday", bases=1)
    world.gateway.dimensions = 256
    operator = world.tenant.operator_vectors()
    await operator.remove_knowledge_base(world.tenant.knowledge_bases[1].key)
    await operator.close()
    with pytest.raises(VectorStoreError):
        await ask(world, "holiday")


async def test_an_empty_knowledge_base_gives_nothing(world: World) -> None:
    """No documents, no passages, no error."""
    assert await ask(world, "holiday") == []


async def test_questions_of_any_shape_are_asked(world: World) -> None:
    """Long, strange and hostile questions find something or nothing, and never break the search."""
    await filled(world)
    for query in ("x" * 100_000, "%_*?\"'\\;--", "مرحبا 世界 🚲", "{}[]()", "\n\t", "NOT AND OR", "\u0000"):
        assert len(await ask(world, query)) <= 3


async def test_the_store_still_explains_its_scores(world: World) -> None:
    """The weighing of knowledge bases rests on the store's explanation: its form is read rightly."""
    await filled(world)
    vector = (await world.gateway.embeddings(["thirty days of paid holiday"], "handbook", Purpose.SEARCH))[0]
    hits = await world.vectors.search(world.base.key, "thirty days of paid holiday", vector, 0.6, 5)
    assert hits[0].similarity is not None
    assert 0.5 < hits[0].similarity <= 1.0
    assert hits[0].keywords is not None
    assert hits[0].keywords > 1.0
