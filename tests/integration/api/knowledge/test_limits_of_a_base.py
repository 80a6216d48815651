"""What a knowledge base may hold, on a tenant's own Postgres alone: neither a worker nor a vector store runs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from api_tenant import MIGRATIONS, knowledge_base
from sqlalchemy import text

from assistant_api.clients import Database
from assistant_api.errors import KNOWLEDGE_BASE_FULL, ApiError
from assistant_api.knowledge import service, upload
from assistant_api.knowledge.schemas import DocumentView
from assistant_cluster import stores
from assistant_crds import naming
from assistant_crds.contracts import KnowledgeBaseConfig
from assistant_operator.adapters import postgres as operator_postgres
from assistant_operator.adapters.migrations import Migrations


@dataclass
class Base:
    """One small knowledge base."""

    config: KnowledgeBaseConfig
    database: Database

    async def add(self, name: str, content: bytes) -> DocumentView:
        with upload.empty_upload() as received:
            received.name = name
            received.append(content)
            added = await service.add_document(self.config, received, self.database, lambda code, message: message)
        return added.document

    async def become(self, document: DocumentView, status: str) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(
                text("UPDATE documents SET status = :status WHERE id = :id"), {"status": status, "id": document.id}
            )

    async def stored(self) -> int:
        async with self.database.transaction() as connection:
            question = "SELECT coalesce(sum(length(content)), 0) FROM document_contents"
            return int((await connection.execute(text(question))).scalar_one())


@pytest.fixture
async def base(postgres: stores.Postgres) -> AsyncIterator[Base]:
    key, password = naming.tenant_key(str(uuid4())), secrets.token_hex(16)
    operator = operator_postgres.Postgres(postgres.dsn, Migrations(MIGRATIONS), lambda: None)
    await operator.ensure(operator_postgres.Database(key, password, 12))
    database = Database(f"postgresql://{naming.login_role(key)}:{password}@{postgres.address}/{key}")
    yield Base(knowledge_base(key, "small", max_documents=3, max_bytes=1000), database)
    await database.close()


async def test_many_uploads_at_once_keep_to_the_number_of_documents(base: Base) -> None:
    """Of uploads that come at once as many are taken as fit; the others are told that it is full."""
    found = await asyncio.gather(*(base.add(f"{n}.txt", b"x") for n in range(8)), return_exceptions=True)
    assert sum(isinstance(one, DocumentView) for one in found) == 3
    assert {one.kind for one in found if isinstance(one, ApiError)} == {KNOWLEDGE_BASE_FULL}


async def test_all_versions_that_are_stored_count(base: Base) -> None:
    """The version in use and the one that shall replace it fit together, or the new one is refused."""
    first = await base.add("a.txt", b"1" * 600)
    await base.become(first, "ready")
    with pytest.raises(ApiError) as refused:
        await base.add("a.txt", b"2" * 401)
    assert refused.value.kind == KNOWLEDGE_BASE_FULL
    await base.add("a.txt", b"2" * 400)
    assert await base.stored() == 1000


async def test_new_versions_in_a_row_store_no_more_than_allowed(base: Base) -> None:
    """While no worker runs, a version that waits gives way to the next one, with its bytes."""
    for number in range(6):
        await base.add("a.txt", str(number).encode() * 900)
        assert await base.stored() == 900


async def test_what_is_deleted_stores_nothing(base: Base) -> None:
    """Uploading and deleting while no worker runs stores no more than allowed either."""
    for number in range(4):
        document = await base.add(f"{number}.txt", b"x" * 900)
        await service.delete_document(base.config, base.database, str(document.id))
        assert await base.stored() == 0


async def test_a_full_knowledge_base_takes_new_versions_of_what_it_holds(base: Base) -> None:
    """A new version is no further document, however many versions of others wait."""
    for name in ("a.txt", "b.txt", "c.txt"):
        await base.become(await base.add(name, b"1"), "ready")
    for name in ("a.txt", "b.txt", "c.txt"):
        await base.add(name, b"2")
    with pytest.raises(ApiError):
        await base.add("d.txt", b"1")


async def test_idle_connections_are_closed_but_one(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crowd of questions the pool keeps what it needs: connections that rest are closed by the server."""
    monkeypatch.setattr("assistant_api.clients.IDLE_TIMEOUT_SECONDS", 1)
    async with asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(base.database.ping())
    question = text("SELECT count(*) FROM pg_stat_activity WHERE usename = current_user")
    async with asyncio.timeout(20):
        while True:
            async with base.database.reading() as connection:
                if (await connection.execute(question)).scalar_one() == 1:
                    break
            await asyncio.sleep(0.2)
