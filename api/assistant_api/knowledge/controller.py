"""`/api/v1/knowledge-bases`: documents in, documents out, and what they say."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
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
from assistant_api.i18n import Catalogs
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
from assistant_api.knowledge.upload import Uploads
from assistant_api.knowledge.vectors import VectorStoreError
from assistant_api.tenant_config import ActiveConfig
from assistant_crds.contracts import KnowledgeBaseConfig
from assistant_observability import logs

MAX_SEARCH_BODY_BYTES = 64 * 1024

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


def base(active_config: NamedDependency[ActiveConfig], name: FromPath[str]) -> KnowledgeBaseConfig:
    """Return the knowledge base that the path names; ApiError 404 where the tenant has none of this name."""
    return service.find(active_config, name)


def explain(request: Request[Any, Any, State], catalogs: NamedDependency[Catalogs]) -> Explain:
    """Return the function that explains documents' errors in the caller's language."""
    return explainer(catalogs, request.headers.get("accept-language"))


class KnowledgeController(Controller):
    """Knowledge bases and their documents."""

    path = "/knowledge-bases"
    tags = ["Knowledge"]
    dependencies = {"base": Provide(base, sync_to_thread=False), "explain": Provide(explain, sync_to_thread=False)}
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
        self, base: NamedDependency[KnowledgeBaseConfig], clients: NamedDependency[Clients]
    ) -> KnowledgeBaseView:
        """Return one knowledge base with what is in it."""
        return await service.get_knowledge_base(base, clients.database)

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
        base: NamedDependency[KnowledgeBaseConfig],
        clients: NamedDependency[Clients],
        explain: NamedDependency[Explain],
        uploads: NamedDependency[Uploads],
    ) -> Response[DocumentView]:
        """Take a document in (202); it can be found once its status is `ready`.

        The same file again is answered with the same document (200). Another file of the same name replaces the
        document as soon as it is ready.
        """
        boundary = upload.boundary_of(request.headers.get("content-type", ""))
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > upload.MAX_BODY_BYTES:
            raise upload.too_large()
        async with uploads.admitted():
            with upload.empty_upload() as received:
                await upload.receive(received, boundary, upload.body_of(request.receive))
                added = await service.add_document(base, received, clients.database, explain)
        return Response(added.document, status_code=202 if added.created else 200)

    @get("/{name:str}/documents", summary="List documents")
    async def list_documents(
        self,
        base: NamedDependency[KnowledgeBaseConfig],
        clients: NamedDependency[Clients],
        explain: NamedDependency[Explain],
        limit: FromQuery[int] = 20,
        cursor: FromQuery[str | None] = None,
    ) -> DocumentPage:
        """Return up to `limit` documents, the newest first, from `cursor` on."""
        return await service.list_documents(base, clients.database, limit, cursor, explain)

    @get("/{name:str}/documents/{document:str}", summary="Get one document")
    async def get_document(
        self,
        base: NamedDependency[KnowledgeBaseConfig],
        clients: NamedDependency[Clients],
        explain: NamedDependency[Explain],
        document: FromPath[str],
    ) -> DocumentView:
        """Return one document with its status."""
        return await service.get_document(base, clients.database, document, explain)

    @get(
        f"/{{name:str}}/documents/{{document:str}}/{CONTENT}",
        summary="Read a document",
        operation_class=ContentOperation,
        media_type=media.TEXT,
    )
    async def read_document(
        self,
        base: NamedDependency[KnowledgeBaseConfig],
        clients: NamedDependency[Clients],
        document: FromPath[str],
    ) -> ASGIApp:
        """Return the document as it was uploaded, Markdown as plain text, which browsers show; citations lead here."""
        return Content(clients.database, await service.find_document(base, clients.database, document))

    @delete(
        "/{name:str}/documents/{document:str}",
        summary="Delete a document",
        status_code=202,
        guards=[needs(MEMBER)],
    )
    async def delete_document(
        self,
        base: NamedDependency[KnowledgeBaseConfig],
        clients: NamedDependency[Clients],
        document: FromPath[str],
    ) -> None:
        """Take a document out of every answer at once (202); its text and vectors are removed within seconds."""
        await service.delete_document(base, clients.database, document)

    @post("/{name:str}/reindex", summary="Read outdated documents again", status_code=202)
    async def reindex(
        self, base: NamedDependency[KnowledgeBaseConfig], clients: NamedDependency[Clients]
    ) -> KnowledgeBaseView:
        """Read the documents again that an earlier version has read, and those of which that has failed.

        Each is found as it was until it is ready. Repeating the call changes nothing.
        """
        return await service.reindex(base, clients.database)

    @post("/{name:str}/search", summary="Search a knowledge base", status_code=200, operation_class=SearchOperation)
    async def search(
        self,
        request: Request[Any, Any, State],
        base: NamedDependency[KnowledgeBaseConfig],
        clients: NamedDependency[Clients],
    ) -> SearchResult:
        """Return the passages that fit a question best."""
        question = await read_json_as(decode_search, request.headers, request.receive, MAX_SEARCH_BODY_BYTES)
        return await service.search(base, question, clients)
