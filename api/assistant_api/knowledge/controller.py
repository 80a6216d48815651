"""`/api/v1/knowledge-bases`: documents in, documents out, and what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi.spec import (
    Encoding,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)
from litestar.params import FromPath, FromQuery
from litestar.types import ASGIApp

from assistant_api import errors
from assistant_api.auth.roles import MEMBER, needs
from assistant_api.body import read_json_as
from assistant_api.clients import Clients
from assistant_api.database.unavailable import DATABASE_AWAY
from assistant_api.errors import ApiError, respond, storage_unavailable
from assistant_api.knowledge import media, service, upload
from assistant_api.knowledge.download import Content
from assistant_api.knowledge.embedding import DimensionMismatchError
from assistant_api.knowledge.explanations import Explain, explainer
from assistant_api.knowledge.links import CONTENT
from assistant_api.knowledge.schemas import (
    DocumentPage,
    DocumentView,
    KnowledgeBaseList,
    KnowledgeBaseView,
    SearchResult,
    decode_search,
)
from assistant_api.knowledge.vectors import VectorStoreError
from assistant_api.tenant_config import ActiveConfig
from assistant_observability import logs

MAX_SEARCH_BODY_BYTES = 64 * 1024
# Each may fill its temporary file, and the pod's scratch volume is small.
MAX_CONCURRENT_UPLOADS = 4
UPLOAD_QUEUE_TIMEOUT_SECONDS = 20.0

_log = logs.logger(__name__)


@dataclass
class UploadOperation(Operation):
    """The operation with its body, which is read as it arrives and not by the framework."""

    def __post_init__(self) -> None:
        file = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="Plain text, Markdown or PDF.")
        form = Schema(type=OpenAPIType.OBJECT, required=["file"], properties={"file": file})
        kinds = Encoding(content_type=", ".join(media.ACCEPTED))
        body = OpenAPIMediaType(schema=form, encoding={"file": kinds})
        self.request_body = RequestBody(required=True, content={"multipart/form-data": body})
        again = copy(self.responses["202"]) if self.responses else None
        if isinstance(again, OpenAPIResponse) and self.responses is not None:
            again.description = "The same file was there already; this is its document."
            self.responses = {**self.responses, "200": again}


@dataclass
class SearchOperation(Operation):
    """The operation with its body."""

    def __post_init__(self) -> None:
        question = Schema(
            type=OpenAPIType.OBJECT,
            required=["query"],
            additional_properties=False,
            properties={
                "query": Schema(type=OpenAPIType.STRING, pattern=r"[^\s\p{C}]", description="With at least one word."),
                "limit": Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=service.MAX_SEARCH, default=6),
            },
        )
        self.request_body = RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=question)})


@dataclass
class ContentOperation(Operation):
    """The operation with what a document may be."""

    def __post_init__(self) -> None:
        file = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
        content = {kind: OpenAPIMediaType(schema=file) for kind in (media.PDF, media.TEXT)}
        answer = OpenAPIResponse(description="The document as it was uploaded.", content=content)
        self.responses = {**(self.responses or {}), "200": answer}


def _mismatch(request: Request[Any, Any, State], error: Exception) -> Response[bytes]:
    """Tell the caller that it is not the question that is wrong."""
    _log.warning("embedding model does not fit", reason=str(error))
    return respond(request, ApiError(errors.EMBEDDING_MISMATCH))


class KnowledgeController(Controller):
    """Knowledge bases and their documents."""

    path = "/knowledge-bases"
    tags = ["Knowledge"]
    exception_handlers = {
        **DATABASE_AWAY,
        VectorStoreError: storage_unavailable,
        DimensionMismatchError: _mismatch,
    }

    @get("/", summary="List the knowledge bases")
    async def list_knowledge_bases(
        self, active_config: NamedDependency[ActiveConfig], clients: NamedDependency[Clients]
    ) -> KnowledgeBaseList:
        """Return every knowledge base with what is in it."""
        return await service.list_knowledge_bases(active_config, clients.database)

    @get("/{name:str}", summary="Get one knowledge base")
    async def get_knowledge_base(
        self, active_config: NamedDependency[ActiveConfig], clients: NamedDependency[Clients], name: FromPath[str]
    ) -> KnowledgeBaseView:
        """Return one knowledge base with what is in it."""
        return await service.get_knowledge_base(service.find(active_config, name), clients.database)

    @post(
        "/{name:str}/documents",
        summary="Upload a document",
        status_code=202,
        operation_class=UploadOperation,
        request_max_body_size=upload.MAX_BODY_BYTES,
        guards=[needs(MEMBER)],
    )
    async def add_document(
        self,
        request: Request[Any, Any, State],
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
        name: FromPath[str],
    ) -> Response[DocumentView]:
        """Take a document in (202); it can be found once its status is `ready`.

        The same file again is answered with the same document (200). Another file of the same name replaces the
        document as soon as it is ready.
        """
        base = service.find(active_config, name)
        boundary = upload.boundary_of(request.headers.get("content-type", ""))
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > upload.MAX_BODY_BYTES:
            raise upload.too_large()
        async with _place(request.app.state):
            with upload.empty_upload() as received:
                await upload.receive(received, boundary, upload.body_of(request.receive))
                added = await service.add_document(base, received, clients.database, _explain(request))
        return Response(added.document, status_code=202 if added.created else 200)

    @get("/{name:str}/documents", summary="List documents")
    async def list_documents(
        self,
        request: Request[Any, Any, State],
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
        name: FromPath[str],
        limit: FromQuery[int] = 20,
        cursor: FromQuery[str | None] = None,
    ) -> DocumentPage:
        """Return up to `limit` documents, the newest first, from `cursor` on."""
        base = service.find(active_config, name)
        return await service.list_documents(base, clients.database, limit, cursor, _explain(request))

    @get("/{name:str}/documents/{document:str}", summary="Get one document")
    async def get_document(
        self,
        request: Request[Any, Any, State],
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
        name: FromPath[str],
        document: FromPath[str],
    ) -> DocumentView:
        """Return one document with its status."""
        base = service.find(active_config, name)
        return await service.get_document(base, clients.database, document, _explain(request))

    @get(
        f"/{{name:str}}/documents/{{document:str}}/{CONTENT}",
        summary="Read a document",
        operation_class=ContentOperation,
        media_type=media.TEXT,
    )
    async def read_document(
        self,
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
        name: FromPath[str],
        document: FromPath[str],
    ) -> ASGIApp:
        """Return the document as it was uploaded, Markdown as plain text, which browsers show; citations lead here."""
        base = service.find(active_config, name)
        return Content(clients.database, await service.find_document(base, clients.database, document))

    @delete(
        "/{name:str}/documents/{document:str}",
        summary="Delete a document",
        status_code=202,
        guards=[needs(MEMBER)],
    )
    async def delete_document(
        self,
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
        name: FromPath[str],
        document: FromPath[str],
    ) -> None:
        """Take a document out of every answer at once (202); its text and vectors are removed within seconds."""
        await service.delete_document(service.find(active_config, name), clients.database, document)

    @post("/{name:str}/reindex", summary="Read outdated documents again", status_code=202)
    async def reindex(
        self, active_config: NamedDependency[ActiveConfig], clients: NamedDependency[Clients], name: FromPath[str]
    ) -> KnowledgeBaseView:
        """Read the documents again that an earlier version has read, and those of which that has failed.

        Each is found as it was until it is ready. Repeating the call changes nothing.
        """
        return await service.reindex(service.find(active_config, name), clients.database)

    @post("/{name:str}/search", summary="Search a knowledge base", status_code=200, operation_class=SearchOperation)
    async def search(
        self,
        request: Request[Any, Any, State],
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
        name: FromPath[str],
    ) -> SearchResult:
        """Return the passages that fit a question best."""
        base = service.find(active_config, name)
        question = await read_json_as(decode_search, request.headers, request.receive, MAX_SEARCH_BODY_BYTES)
        return await service.search(base, question, clients)


@asynccontextmanager
async def _place(state: State) -> AsyncIterator[None]:
    """Hold one of the application's places for an upload; ApiError when none gets free in time."""
    places: asyncio.Semaphore = state.setdefault("upload_places", asyncio.Semaphore(MAX_CONCURRENT_UPLOADS))
    try:
        async with asyncio.timeout(UPLOAD_QUEUE_TIMEOUT_SECONDS):
            await places.acquire()
    except TimeoutError as error:
        raise ApiError(errors.TOO_MANY_UPLOADS, retry_after=UPLOAD_QUEUE_TIMEOUT_SECONDS) from error
    try:
        yield
    finally:
        places.release()


def _explain(request: Request[Any, Any, State]) -> Explain:
    return explainer(request.app.state.catalogs, request.headers.get("accept-language"))
