"""The worker dies before or after each thing it does outside itself; the next one ends in the same state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from knowledge_world import ThreadParser, World
from structlog.testing import capture_logs

from assistant_api.knowledge import ingestion
from assistant_api.knowledge.dispatcher import Dispatcher
from assistant_api.knowledge.ingestion import Ingestion

TEXT = "\n\n".join(
    f"Paragraph {number} is about subject {number % 7} and value {number * number}." for number in range(100)
)


class Death(BaseException):
    """Nothing catches it: no lease is given back, no outcome recorded."""


class Mortal:
    """Passes calls on to `inner`; at call number `at` the worker dies, before or after the call is made."""

    def __init__(self, inner: Any, calls: Calls) -> None:
        self._inner = inner
        self._calls = calls

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(self._inner, name)

        async def passed_on(*values: Any, **named: Any) -> Any:
            self._calls.made += 1
            dies = self._calls.made == self._calls.at
            if dies and not self._calls.after:
                raise Death
            result = await call(*values, **named)
            if dies:
                raise Death
            return result

        return passed_on


class Calls:
    """How many outside calls were made, and at which one the worker dies (0: never)."""

    def __init__(self, at: int = 0, *, after: bool = False) -> None:
        self.made = 0
        self.at = at
        self.after = after


async def until_death(world: World, calls: Calls) -> None:
    """Run a worker that dies as `calls` says, and make its lease run out."""
    outside = Ingestion(world.database, Mortal(world.gateway, calls), Mortal(world.vectors, calls), ThreadParser())  # type: ignore[arg-type]
    task = asyncio.create_task(Dispatcher(world.database, outside, world.config, 1).run())
    with capture_logs():  # each death is logged, with all it knew, at length
        async with asyncio.timeout(20):
            while calls.made < calls.at:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await world.execute("UPDATE documents SET leased_until = now() - interval '1 second' WHERE lease IS NOT NULL")


@pytest.mark.timeout(300)
async def test_ingestion_ends_the_same_wherever_it_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready, with exactly its chunks, and no more vectors than the row ever accounted for."""
    monkeypatch.setattr(ingestion, "MAX_BATCH_CHUNKS", 4)
    whole = await world.add("whole.txt", TEXT)
    counted = Calls()
    outside = Ingestion(world.database, Mortal(world.gateway, counted), Mortal(world.vectors, counted), ThreadParser())  # type: ignore[arg-type]
    task = asyncio.create_task(Dispatcher(world.database, outside, world.config, 1).run())
    expected = (await world.settled(whole.id)).chunks
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert expected is not None
    assert counted.made > 4
    total = expected
    for at in range(1, counted.made + 1):
        for after in (False, True):
            document = await world.add(f"{at}-{after}.txt", TEXT + f"\n\nEnd {at} {after}.")
            await until_death(world, Calls(at, after=after))
            ((accounted,),) = await world.rows("SELECT chunks FROM documents WHERE id = :id", id=document.id)
            assert await world.vectors.count(world.base.key, document.id) <= accounted
            async with world.worker():
                ready = await world.settled(document.id)
            assert (ready.status, ready.error) == ("ready", None)
            assert await world.vectors.count(world.base.key, document.id) == ready.chunks
            total += ready.chunks or 0
    assert await world.vector_count() == total


@pytest.mark.timeout(120)
async def test_removal_ends_the_same_wherever_it_is_cut(world: World) -> None:
    """Nothing is left, whether the worker died before or after the vectors went."""
    for after in (False, True):
        async with world.worker():
            document = await world.add("a.txt", TEXT)
            await world.settled(document.id)
        await world.delete(document.id)
        await until_death(world, Calls(1, after=after))
        assert await world.rows("SELECT status FROM documents") == [("deleting",)]
        async with world.worker():
            await world.until("SELECT count(*) FROM documents", 0)
        assert await world.leftovers() == (0, 0, 0)


@pytest.mark.timeout(120)
async def test_a_deletion_while_the_worker_is_dead_wins(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a document, a dead worker, a deletion: the next worker removes what there is."""
    monkeypatch.setattr(ingestion, "MAX_BATCH_CHUNKS", 4)
    document = await world.add("a.txt", TEXT)
    await until_death(world, Calls(5, after=True))
    assert await world.vector_count() > 0
    await world.delete(document.id)
    async with world.worker():
        await world.until("SELECT count(*) FROM documents", 0)
    assert await world.leftovers() == (0, 0, 0)
