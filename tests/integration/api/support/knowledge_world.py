"""A tenant in real stores, a worker in this process, a gateway that can misbehave: what knowledge tests work with."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from api_tenant import DIMENSIONS, Tenant
from sqlalchemy import text

from assistant_api.clients import Clients, Database, RedisClient, VectorStore
from assistant_api.knowledge import parser, service, upload
from assistant_api.knowledge.dispatcher import Dispatcher
from assistant_api.knowledge.ingestion import Ingestion
from assistant_api.knowledge.parser import Parsed, ParseFailed, ParseRequest
from assistant_api.knowledge.schemas import DocumentView
from assistant_api.knowledge.vectors import Vectors
from assistant_api.tenant_config import TenantConfigHolder
from assistant_crds.contracts import KnowledgeBaseConfig
from assistant_crds.gateway_api import Purpose


def embed(words: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A bag of hashed words: texts that share words are near each other."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", words.lower()) or [""]:
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % dimensions] += 1.0
    return vector


@dataclass
class Embedder:
    """The gateway's embeddings in this process; `failures` come first, `gate` holds calls back while it is shut."""

    calls: list[tuple[list[str], str, Purpose]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    dimensions: int = DIMENSIONS
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def embeddings(self, texts: Sequence[str], knowledge_base: str, purpose: Purpose) -> list[list[float]]:
        """See `Gateway.embeddings`."""
        self.calls.append((list(texts), knowledge_base, purpose))
        if self.failures:
            raise self.failures.pop(0)
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        return [embed(each, self.dimensions) for each in texts]

    async def close(self) -> None:
        """See `Gateway.close`."""


class ThreadParser:
    """Parses in a thread: the parser's process has its own tests, and starting it for each of these costs a second."""

    async def parse(self, request: ParseRequest, content: AsyncIterable[bytes]) -> Parsed | ParseFailed:
        """See `Sandbox.parse`."""
        return await asyncio.to_thread(parser.answer, request, b"".join([part async for part in content]))


@dataclass
class World:
    """One tenant with its clients, and the ways a test looks at it."""

    tenant: Tenant
    database: Database
    store: VectorStore
    gateway: Embedder
    config: TenantConfigHolder

    @classmethod
    def of(cls, tenant: Tenant) -> World:
        """Return the world of a tenant; to be closed."""
        config = TenantConfigHolder.fixed(tenant.config())
        return cls(tenant, tenant.database(), tenant.vector_store(), Embedder(), config)

    async def close(self) -> None:
        """Close the connections."""
        await self.store.close()
        await self.database.close()

    @property
    def base(self) -> KnowledgeBaseConfig:
        """The first knowledge base."""
        return self.tenant.handbook

    @property
    def clients(self) -> Clients:
        """What the API would hold."""
        return Clients(self.gateway, self.database, RedisClient("redis://127.0.0.1:1"), self.store)  # type: ignore[arg-type]

    @property
    def vectors(self) -> Vectors:
        """The chunks in the vector store."""
        return Vectors(self.store)

    def dispatcher(self, concurrency: int = 4) -> Dispatcher:
        """A new worker."""
        ingestion = Ingestion(self.database, self.gateway, self.vectors, ThreadParser())  # type: ignore[arg-type]
        return Dispatcher(self.database, ingestion, self.config, concurrency)

    @contextlib.asynccontextmanager
    async def worker(self, concurrency: int = 4) -> AsyncIterator[Dispatcher]:
        """Run a worker; at the end it is stopped as by SIGTERM."""
        dispatcher = self.dispatcher(concurrency)
        task = asyncio.create_task(dispatcher.run())
        try:
            yield dispatcher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def add(self, name: str, content: bytes | str, base: KnowledgeBaseConfig | None = None) -> DocumentView:
        """Upload a document as the API does."""
        return (await self.upload(name, content, base)).document

    async def upload(self, name: str, content: bytes | str, base: KnowledgeBaseConfig | None = None) -> service.Added:
        """Upload a document and say whether it is a new one."""
        with upload.empty_upload() as received:
            received.name = name
            received.append(content.encode() if isinstance(content, str) else content)
            return await service.add_document(base or self.base, received, self.database, _as_it_is)

    async def get(self, document: UUID, base: KnowledgeBaseConfig | None = None) -> DocumentView:
        """The document as the API shows it."""
        return await service.get_document(base or self.base, self.database, str(document), _as_it_is)

    async def delete(self, document: UUID) -> None:
        """Delete a document as the API does."""
        await service.delete_document(self.base, self.database, str(document))

    async def settled(self, document: UUID, seconds: float = 15.0) -> DocumentView:
        """Wait until the document is ready or failed."""
        async with asyncio.timeout(seconds):
            while (view := await self.get(document)).status not in {"ready", "failed"}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return view

    async def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Ask the tenant's database."""
        async with self.database.transaction() as connection:
            return [tuple(row) for row in await connection.execute(text(sql), values)]

    async def until(self, sql: str, value: object, seconds: float = 15.0) -> None:
        """Wait until the tenant's database answers a question with one value."""
        async with asyncio.timeout(seconds):
            while await self.rows(sql) != [(value,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def execute(self, sql: str, **values: Any) -> None:
        """Change something in the tenant's database behind everybody's back."""
        async with self.database.transaction() as connection:
            await connection.execute(text(sql), values)

    async def vector_count(self, base: KnowledgeBaseConfig | None = None) -> int:
        """All vectors of a knowledge base, as the operator counts them."""
        operator = self.tenant.operator_vectors()
        try:
            return await operator.vectors((base or self.base).key)
        finally:
            await operator.close()

    async def leftovers(self) -> tuple[int, int, int]:
        """Numbers of documents, of stored parts, and of vectors in the first knowledge base."""
        ((documents, parts),) = await self.rows(
            "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM document_contents)"
        )
        return documents, parts, await self.vector_count()


def _as_it_is(code: str, message: str) -> str:
    del code
    return message
