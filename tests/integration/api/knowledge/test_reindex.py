"""Documents that an earlier version has read are read again, and stay in use until that is done."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from knowledge_world import World

from assistant_api.errors import ApiError
from assistant_api.gateway import GatewayError
from assistant_api.knowledge import retrieval, service
from assistant_api.knowledge.retrieval import retrieve
from assistant_api.knowledge.schemas import DocumentView, KnowledgeBaseView

TEXT = "The limit is 100 euros."
OTHER = "The limit is 200 euros."


async def outdated(world: World, name: str = "a.txt", text: str = TEXT) -> DocumentView:
    """A document in use that an earlier version has read; a worker has to run."""
    document = await world.add(name, text)
    await world.settled(document.id)
    await world.execute("UPDATE documents SET index_version = 0 WHERE name = :name", name=name)
    return document


async def reindex(world: World) -> KnowledgeBaseView:
    return await service.reindex(world.base, world.database)


async def current(world: World) -> None:
    """Wait until nothing is outdated and nothing is left to do."""
    async with asyncio.timeout(30):
        while await world.rows("SELECT 1 FROM documents WHERE status <> 'ready' OR index_version = 0 LIMIT 1"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def holding(world: World) -> None:
    """Wait until the worker has begun to read again, and is held."""
    async with asyncio.timeout(30):
        while not world.gateway.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def passages(world: World) -> list[tuple[str, str]]:
    found = await retrieve("the limit in euros", [world.base], 5, 0.0, world.clients)
    return [(passage.document_id, passage.text) for passage in found]


async def test_a_document_is_read_again_and_found_all_the_while(world: World) -> None:
    """It keeps its id, is listed and counted once, its bytes count once, and nothing of the old one is left."""
    async with world.worker():
        document = await outdated(world)
        assert (await world.get(document.id)).outdated
        world.gateway.gate.clear()
        queued = await reindex(world)
        assert (queued.documents, queued.outdated, queued.reindexing, queued.bytes) == (1, 1, 1, len(TEXT))
        await holding(world)
        world.gateway.gate.set()  # only for the question: the worker's call is answered with it
        assert await passages(world) == [(str(document.id), TEXT)]
        await current(world)
    view = await world.get(document.id)
    assert (view.id, view.status, view.outdated, view.reindexing, view.chunks) == (document.id, "ready", False, None, 1)
    assert await world.leftovers() == (1, 1, 1)
    assert await passages(world) == [(str(document.id), TEXT)]
    again = await world.upload("a.txt", TEXT)
    assert (again.created, again.document.id) == (False, document.id)


async def test_a_document_that_is_read_again_during_a_search_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search has found the old one, which is gone by the time it is looked up: the new one is found instead."""
    look_up, looked_up = retrieval._known, 0

    async def after_the_change(*arguments: Any) -> Any:
        nonlocal looked_up
        looked_up += 1
        if looked_up == 1:
            await reindex(world)
            await current(world)
        return await look_up(*arguments)

    monkeypatch.setattr(retrieval, "_known", after_the_change)
    async with world.worker():
        document = await outdated(world)
        assert await passages(world) == [(str(document.id), TEXT)]
    assert looked_up == 2


async def test_until_it_is_ready_the_old_one_is_in_use(world: World) -> None:
    """While a worker reads it again, the document is ready, and found by the id and text it had."""
    async with world.worker():
        document = await outdated(world)
    await reindex(world)
    for status in ("pending", "processing", "failed"):
        await world.execute("UPDATE documents SET status = :status WHERE first_id IS NOT NULL", status=status)
        view = await world.get(document.id)
        assert view.reindexing is not None
        assert (view.status, view.outdated, view.reindexing.status) == ("ready", True, status)
        assert await passages(world) == [(str(document.id), TEXT)]
        page = await service.list_documents(world.base, world.database, 10, None, lambda code, message: message)
        assert page.data == [view]
        base = await service.get_knowledge_base(world.base, world.database)
        assert (base.documents, base.pending, base.failed) == (1, 0, 0)


async def test_asking_twice_queues_nothing_twice(world: World) -> None:
    """However often and from wherever it is asked for; what is current is left alone."""
    async with world.worker():
        await outdated(world)
        await outdated(world, "b.txt")
        kept = await world.add("c.txt", "Current.")
        await world.settled(kept.id)
    await asyncio.gather(*(reindex(world) for _ in range(5)))
    assert await world.rows("SELECT name FROM documents WHERE first_id IS NOT NULL ORDER BY 1") == [
        ("a.txt",),
        ("b.txt",),
    ]


async def test_what_cannot_be_read_again_stays_as_it_was_and_says_why(world: World) -> None:
    """The failure is shown on the document; asking again tries it again."""
    async with world.worker():
        document = await outdated(world)
        world.gateway.failures = [GatewayError(400, "invalid_value", "not this", None)]
        await reindex(world)
        await world.until("SELECT count(*) FROM documents WHERE first_id IS NOT NULL AND status = 'failed'", 1)
        view = await world.get(document.id)
        assert (view.status, view.outdated, view.error) == ("ready", True, None)
        assert view.reindexing is not None
        assert view.reindexing.error is not None
        assert (view.reindexing.status, view.reindexing.error.code) == ("failed", "embedding_refused")
        assert await passages(world) == [(str(document.id), TEXT)]
        await reindex(world)
        await current(world)
    assert await world.leftovers() == (1, 1, 1)


@pytest.mark.parametrize("while_reading", [False, True])
async def test_the_last_upload_wins(world: World, while_reading: bool) -> None:
    """A new version that comes while its document is read again takes its place, whichever is ready first."""
    async with world.worker():
        document = await outdated(world)
    async with contextlib.AsyncExitStack() as stack:
        await reindex(world)
        if while_reading:
            world.gateway.gate.clear()
            await stack.enter_async_context(world.worker())
            await holding(world)
        new = await world.add("a.txt", OTHER)
        world.gateway.gate.set()
        if not while_reading:
            await stack.enter_async_context(world.worker())
        await current(world)
    assert await passages(world) == [(str(new.id), OTHER)]
    assert await world.leftovers() == (1, 1, 1)
    with pytest.raises(ApiError):
        await world.get(document.id)


async def test_a_failed_newer_version_is_not_overtaken(world: World) -> None:
    """Who has sent a newer file that cannot be read still sees that; the old one waits."""
    async with world.worker():
        await outdated(world)
        broken = await world.add("a.txt", b"\x00\x01\x02\x03" * 50 + b"%PDF-1.7 not really")
        assert (await world.settled(broken.id)).status == "failed"
        await reindex(world)
    assert await world.rows("SELECT count(*) FROM documents WHERE first_id IS NOT NULL") == [(0,)]


async def test_a_deletion_wins(world: World) -> None:
    """A document that is deleted while it is read again is gone, with both of its vectors."""
    async with world.worker():
        document = await outdated(world)
        world.gateway.gate.clear()
        await reindex(world)
        await holding(world)
        await world.delete(document.id)
        world.gateway.gate.set()
        await world.until("SELECT count(*) FROM documents", 0)
    assert await world.leftovers() == (0, 0, 0)


async def test_the_operator_counts_and_queues_the_same(world: World) -> None:
    """It sees how many are outdated, and has them read again as the API does, with its own rights."""
    operator = world.tenant.operator_database()
    async with world.worker():
        await outdated(world)
        await outdated(world, "b.txt")
    rows = await operator.rows(world.tenant.key, [world.base.key])
    assert (rows[world.base.key].documents, rows[world.base.key].outdated) == (2, 2)
    assert await operator.reindex(world.tenant.key, world.base.key) == 2
    assert await operator.reindex(world.tenant.key, world.base.key) == 0
    rows = await operator.rows(world.tenant.key, [world.base.key])
    assert (rows[world.base.key].documents, rows[world.base.key].pending, rows[world.base.key].outdated) == (2, 2, 2)
    async with world.worker():
        await current(world)
    rows = await operator.rows(world.tenant.key, [world.base.key])
    assert (rows[world.base.key].documents, rows[world.base.key].pending, rows[world.base.key].outdated) == (2, 0, 0)


async def test_a_document_may_be_read_again_and_again(world: World) -> None:
    """Its id stays the same for ever."""
    async with world.worker():
        document = await outdated(world)
        for _ in range(2):
            await world.execute("UPDATE documents SET index_version = 0")
            await reindex(world)
            await current(world)
        assert (await world.get(document.id)).id == document.id
        await world.delete(document.id)
        await world.until("SELECT count(*) FROM documents", 0)
    assert await world.leftovers() == (0, 0, 0)
