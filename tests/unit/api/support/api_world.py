"""The API application with everything outside it replaced by objects handed to `create_app`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from assistant_api.app import create_app
from assistant_api.clients import Clients
from assistant_api.gateway import GatewayUnreachableError
from assistant_api.i18n import Catalogs
from assistant_api.knowledge.schemas import Passage
from assistant_api.middleware import RequestMiddleware
from assistant_api.tenant_config import TenantConfigHolder
from assistant_crds.contracts import (
    ApiKeyConfig,
    AssistantConfig,
    KnowledgeBaseConfig,
    TenantConfig,
    TenantIdentity,
    seal,
)

KEY = "ak_" + "k" * 43
LOCALES = Path(__file__).parents[4] / "locales"


def assistant(name: str, **changes: Any) -> AssistantConfig:
    """An assistant without knowledge; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "name": name,
        "generation": 1,
        "display_name": name.title(),
        "description": f"About {name}.",
        "instructions": "Be kind.",
        "knowledge_bases": [],
        "max_chunks": 4,
        "min_score": 0.2,
        "created": 1_700_000_000,
    }
    return AssistantConfig(**{**fields, **changes})


def knowledge_base(name: str) -> KnowledgeBaseConfig:
    """A small knowledge base."""
    return KnowledgeBaseConfig(
        name=name,
        key=f"t_0123456789_{name}",
        display_name=name.title(),
        dimensions=8,
        max_tokens=100,
        overlap_tokens=10,
        max_documents=10,
        max_bytes=10_000_000,
    )


def document(**changes: Any) -> TenantConfig:
    """A tenant with `support` (which knows `handbook`) and `plain` (which knows nothing)."""
    fields: dict[str, Any] = {
        "tenant": TenantIdentity(namespace="acme", uid="uid", key="t_0123456789"),
        "generation": "",
        "gateway_url": "http://gateway.test",
        "collection": "AssistantChunk",
        "api_keys": [ApiKeyConfig(name="first", sha256=hashlib.sha256(KEY.encode()).hexdigest())],
        "assistants": [assistant("support", knowledge_bases=["handbook"]), assistant("plain")],
        "knowledge_bases": [knowledge_base("handbook")],
    }
    return seal(TenantConfig(**{**fields, **changes}))


def passage(number: int = 1, **changes: Any) -> Passage:
    """A passage of the handbook."""
    fields: dict[str, Any] = {
        "knowledge_base": "handbook",
        "document_id": f"00000000-0000-0000-0000-{number:012}",
        "document_name": "handbook.pdf",
        "page": number,
        "text": f"Passage {number}.",
        "score": 0.9,
    }
    return Passage(**{**fields, **changes})


def completion(content: str, **changes: Any) -> dict[str, Any]:
    """A whole chat completion."""
    message = {"role": "assistant", "content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4.1-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        **changes,
    }


class FakeAnswer:
    """An answer of the gateway that is already there."""

    def __init__(self, status: int, headers: Mapping[str, str], parts: Sequence[bytes | Exception]) -> None:
        self.status = status
        self.headers = headers
        self._left = iter(parts)
        self.closed = False

    async def read(self) -> bytes:
        """The whole body."""
        parts = []
        while part := await self.next():
            parts.append(part)
        return b"".join(parts)

    async def next(self, _straight: object = None) -> bytes:
        """Part by part; an exception among the parts is raised."""
        await asyncio.sleep(0)
        part = next(self._left, b"")
        if isinstance(part, Exception):
            raise part
        return part

    def close(self) -> None:
        """Remember it."""
        self.closed = True


@dataclass
class FakeGateway:
    """Remembers what it was asked and answers what it was told to."""

    answer: FakeAnswer | Exception = field(default_factory=lambda: json_answer(completion("Hello.")))
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    down: bool = False
    report: bytes | Exception = b"{}"
    asked_usage: list[list[tuple[str, str]]] = field(default_factory=list)
    offers: bytes | Exception = b'{"data": []}'
    asked_vectors: list[dict[str, Any]] = field(default_factory=list)

    async def chat(self, body: bytes, headers: Mapping[str, str]) -> FakeAnswer:
        """Answer as told."""
        self.asked.append(msgspec.json.decode(body))
        self.headers.append(headers)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def vectors(self, body: bytes, headers: Mapping[str, str]) -> FakeAnswer:
        """Answer as told."""
        self.asked_vectors.append(msgspec.json.decode(body))
        self.headers.append(headers)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def embeddings(self, texts: Sequence[str], knowledge_base: str, purpose: str) -> list[list[float]]:
        """Nothing here needs vectors."""
        raise NotImplementedError

    async def usage(self, parameters: Sequence[tuple[str, str]]) -> bytes:
        """Answer as told."""
        self.asked_usage.append(list(parameters))
        if isinstance(self.report, Exception):
            raise self.report
        return self.report

    async def providers(self) -> bytes:
        """Answer as told."""
        if isinstance(self.offers, Exception):
            raise self.offers
        return self.offers

    async def ping(self) -> None:
        """Answer unless down."""
        if self.down:
            raise GatewayUnreachableError("down")

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class FakeStore:
    """A store that can be down, or slow."""

    error: Exception | None = None
    seconds: float = 0
    pings: int = 0
    closed: bool = False

    async def ping(self) -> None:
        """Answer unless told otherwise."""
        self.pings += 1
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error

    async def client(self) -> None:
        """The vector store's client is never used here."""

    async def close(self) -> None:
        """Remember it."""
        self.closed = True


@dataclass
class FakeRetrieval:
    """Finds what it was told to find."""

    passages: list[Passage] = field(default_factory=list)
    error: Exception | None = None
    asked: list[tuple[str, list[str], int, float]] = field(default_factory=list)

    async def __call__(
        self, query: str, bases: list[KnowledgeBaseConfig], max_chunks: int, min_score: float, clients: Clients
    ) -> list[Passage]:
        """Answer as told."""
        del clients
        self.asked.append((query, [base.name for base in bases], max_chunks, min_score))
        if self.error:
            raise self.error
        return self.passages


@dataclass
class World:
    """The application and everything around it."""

    config: TenantConfigHolder
    gateway: FakeGateway
    database: FakeStore
    redis: FakeStore
    weaviate: FakeStore
    retrieval: FakeRetrieval
    app: RequestMiddleware

    def reset(self) -> None:
        """Make everything around the application as it is in the beginning."""
        self.config.replace(document())
        for fake in (self.gateway, self.database, self.redis, self.weaviate, self.retrieval):
            vars(fake).update(vars(type(fake)()))

    @property
    def routes(self) -> Any:
        """The Litestar application inside."""
        return self.app.app


def json_answer(content: Any, status: int = 200, **headers: str) -> FakeAnswer:
    """A whole answer."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return FakeAnswer(status, {"content-type": "application/json", **names}, [body])


def stream_answer(*parts: bytes | Exception, **headers: str) -> FakeAnswer:
    """A streamed answer; each part arrives by itself."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return FakeAnswer(200, {"content-type": "text/event-stream", **names}, parts)


def chunk(content: str | None = None, finish: str | None = None, index: int = 0) -> bytes:
    """One event of a stream."""
    delta = {} if content is None else {"content": content}
    choices = [{"index": index, "delta": delta, "finish_reason": finish}]
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def make_world(tenant: TenantConfig | None = None, *, configured: bool = True) -> World:
    """An application around a configuration document, the usual one when none is given."""
    config = TenantConfigHolder(Path("/nonexistent"))
    if configured:
        config.replace(tenant or document())
    gateway, retrieval = FakeGateway(), FakeRetrieval()
    database, redis, weaviate = FakeStore(), FakeStore(), FakeStore()
    clients = Clients(gateway, database, redis, weaviate)  # type: ignore[arg-type]
    app = create_app(config, clients, Catalogs.load(LOCALES), retrieval)
    return World(config, gateway, database, redis, weaviate, retrieval, app)


@asynccontextmanager
async def client_of(world: World, key: str | None = KEY) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client that calls the application directly, without its start and stop."""
    transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)  # type: ignore[arg-type]
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as client:
        yield client
