"""A store is killed in the middle of a thousand uploads: what was acknowledged is there in the end, exactly once.

Sixty documents as a rule; TEST_LONG=1 makes it a thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

import msgspec
import pytest
from api_tenant import make_tenant
from knowledge_world import World

from assistant_api.database.errors import DATABASE_ERRORS
from assistant_cluster import stores
from assistant_cluster.server import Server

DOCUMENTS = 1000 if os.environ.get("TEST_LONG") == "1" else 60
KILLS = DOCUMENTS // 20
PARTS = 3  # of each document


@pytest.fixture(scope="module")
def own() -> Iterator[tuple[stores.Postgres, stores.Weaviate]]:
    """Stores of this test's own: they are killed."""
    with stores.postgres() as postgres, stores.weaviate() as weaviate:
        yield postgres, weaviate


@dataclass
class Ingest:
    """Clients that upload while a store is killed."""

    world: World
    server: Server
    acknowledged: dict[UUID, str] = field(default_factory=dict)

    async def upload(self, number: int) -> None:
        """Send a document until it is acknowledged, as a client does."""
        name = f"{number}.txt"
        text = "\n\n".join(f"Passage {part} of {name}. " + "word " * 50 for part in range(PARTS))
        for _ in range(600):
            try:
                document = await self.world.add(name, text)
            except DATABASE_ERRORS:
                await asyncio.sleep(0.1)
            else:
                self.acknowledged[document.id] = name
                return
        raise AssertionError(f"{name} was never taken")

    async def uploads(self) -> None:
        for first in range(0, DOCUMENTS, 4):
            await asyncio.gather(*(self.upload(number) for number in range(first, min(first + 4, DOCUMENTS))))

    async def kills(self) -> None:
        for number in range(1, KILLS + 1):
            while len(self.acknowledged) < number * DOCUMENTS // (KILLS + 1):  # noqa: ASYNC110 - whatever comes first
                await asyncio.sleep(0.01)
            await asyncio.to_thread(self.server.kill)
            await asyncio.to_thread(self.server.start)

    async def end(self) -> dict[UUID, int]:
        """Return the chunks of every document, once all are ready."""
        async with asyncio.timeout(1200):
            while True:
                with contextlib.suppress(*DATABASE_ERRORS):
                    rows = await self.world.rows("SELECT id, status, chunks FROM documents")
                    if all(row[1] == "ready" for row in rows):
                        return {row[0]: row[2] for row in rows}
                await asyncio.sleep(0.2)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["postgres", "weaviate"])
async def test_no_acknowledged_document_is_lost(kind: str, own: tuple[stores.Postgres, stores.Weaviate]) -> None:
    """Kill -9 again and again amid an ingest: every acknowledged document becomes ready, with each chunk once."""
    tenant = await make_tenant(*own, names=["handbook"])
    base = msgspec.structs.replace(tenant.handbook, max_documents=DOCUMENTS)
    tenant.knowledge_bases[:] = [base]
    world = World.of(tenant)
    ingest = Ingest(world, own[kind == "weaviate"].server)
    try:
        async with world.worker():
            await asyncio.gather(ingest.uploads(), ingest.kills())
            stored = await ingest.end()
        # The same content under the same name is the same document, however often its answer was lost.
        assert stored.keys() == ingest.acknowledged.keys()
        assert len(stored) == DOCUMENTS
        assert await world.vector_count() == sum(stored.values())
        for identity, chunks in stored.items():
            assert await world.vectors.count(base.key, identity) == chunks > 0
    finally:
        await world.close()
