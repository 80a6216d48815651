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
from assistant_api.errors import ApiError
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
    assert {one.code for one in found if isinstance(one, ApiError)} == {"knowledge_base_full"}
