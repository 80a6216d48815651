"""What a tenant may do with its knowledge bases, apart from asking them in a chat."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from assistant_api import errors
from assistant_api.clients import Clients, Database
from assistant_api.errors import ApiError, invalid_field
from assistant_api.knowledge import media, repository
from assistant_api.knowledge.explanations import Explain
from assistant_api.knowledge.repository import NewDocument, StoredDocument, Usage
from assistant_api.knowledge.retrieval import retrieve
from assistant_api.knowledge.schemas import (
    DocumentError,
    DocumentPage,
    DocumentView,
    KnowledgeBaseList,
    KnowledgeBaseView,
    Reindexing,
    SearchRequest,
    SearchResult,
)
from assistant_api.knowledge.upload import Upload
from assistant_api.parameters import check_limit, from_cursor, identifier, pack_sequence, to_cursor, unpack_sequence
from assistant_api.tenant_config import ActiveConfig
from assistant_crds.contracts import KnowledgeBaseConfig
from assistant_observability import traces

MAX_SEARCH = 50


def find(active_config: ActiveConfig, name: str) -> KnowledgeBaseConfig:
    """Return the knowledge base called `name`; ApiError when there is none."""
    base = active_config.knowledge_bases.get(name)
    if base is None:
        raise ApiError(errors.KNOWLEDGE_BASE_NOT_FOUND, knowledge_base=name)
    return base


async def list_knowledge_bases(active_config: ActiveConfig, database: Database) -> KnowledgeBaseList:
    """Return every knowledge base with what is in it."""
    bases = sorted(active_config.knowledge_bases.values(), key=lambda base: base.name)
    usage = await _usage(database, bases)
    return KnowledgeBaseList(data=[_base_view(base, usage.get(base.key, Usage())) for base in bases])


async def get_knowledge_base(base: KnowledgeBaseConfig, database: Database) -> KnowledgeBaseView:
    """Return one knowledge base with what is in it."""
    return _base_view(base, (await _usage(database, [base])).get(base.key, Usage()))


@dataclass(frozen=True, slots=True)
class Added:
    """A document after its upload; `created` is False when it was there already."""

    document: DocumentView
    created: bool


async def add_document(base: KnowledgeBaseConfig, upload: Upload, database: Database, explain: Explain) -> Added:
    """Take a document in; the worker does the rest.

    The same bytes under the same name are the same document: it is returned, and tried again if it had failed.
    Other bytes under a known name are its new version: the one in use stays until the new one is ready, and both count
    until then.
    """
    media_type = media.recognise(upload.name, upload.head)
    if media_type is None:
        reason = errors.Reason("document_type", {"endings": ", ".join(media.ENDINGS)})
        raise ApiError(errors.UNSUPPORTED_MEDIA_TYPE, field="file", reason=reason)
    carrier: dict[str, str] = {}
    traces.inject(carrier)
    traceparent = carrier.get("traceparent")
    async with database.long, database.transaction() as connection:
        await repository.lock(connection, base.key)
        present = await repository.newest(connection, base.key, upload.name)
        if present is not None and present.sha256 == upload.sha256:
            if present.status == "failed":
                present = await repository.restart(connection, present.id, traceparent)
                await repository.notify(connection)
            return Added(document_view(present, explain), created=False)
        if present is not None:
            await repository.supersede(connection, base.key, upload.name)
        # Versions that stay until this one is ready are stored beside it, so they count.
        others, size = await repository.stored(connection, base.key, upload.name)
        if others + 1 > base.max_documents or size + upload.size > base.max_bytes:
            raise ApiError(errors.KNOWLEDGE_BASE_FULL, knowledge_base=base.name)
        stored = await repository.insert(
            connection,
            NewDocument(uuid4(), base.key, upload.name, media_type, upload.size, upload.sha256, traceparent),
        )
        for part, content in enumerate(upload.parts()):
            await repository.insert_part(connection, stored.id, part, content)
        await repository.notify(connection)
    return Added(document_view(stored, explain), created=True)


async def list_documents(
    base: KnowledgeBaseConfig, database: Database, limit: int, cursor: str | None, explain: Explain
) -> DocumentPage:
    """Return a page of documents, the newest first."""
    check_limit(limit)
    before = from_cursor(cursor, unpack_sequence)
    async with database.reading() as connection:
        rows, following = await repository.page(connection, base.key, limit, before)
    return DocumentPage(
        data=[document_view(row, explain) for row in rows],
        next_cursor=None if following is None else to_cursor(pack_sequence(following)),
    )


async def get_document(base: KnowledgeBaseConfig, database: Database, document: str, explain: Explain) -> DocumentView:
    """Return one document."""
    return document_view(await find_document(base, database, document), explain)


async def find_document(base: KnowledgeBaseConfig, database: Database, document: str) -> StoredDocument:
    """Return one document's row; ApiError when it is not in this knowledge base."""
    identity = _identity(document)
    async with database.reading() as connection:
        stored = await repository.get(connection, base.key, identity)
    if stored is None:
        raise ApiError(errors.DOCUMENT_NOT_FOUND)
    return stored


async def delete_document(base: KnowledgeBaseConfig, database: Database, document: str) -> None:
    """Take a document out of every answer and list at once; the worker removes what is stored of it."""
    identity = _identity(document)
    async with database.transaction() as connection:
        if not await repository.mark_deleting(connection, base.key, identity):
            raise ApiError(errors.DOCUMENT_NOT_FOUND)
        await repository.notify(connection)


async def reindex(base: KnowledgeBaseConfig, database: Database) -> KnowledgeBaseView:
    """Have documents of earlier versions read again, each in use as it is until then; return what is in the base."""
    async with database.long, database.transaction() as connection:
        await repository.reindex(connection, base.key)
    return await get_knowledge_base(base, database)


async def search(base: KnowledgeBaseConfig, request: SearchRequest, clients: Clients) -> SearchResult:
    """Return the best passages of one knowledge base."""
    if not request.query.strip():
        raise invalid_field("query", "empty")
    if not 1 <= request.limit <= MAX_SEARCH or request.limit % 1:
        raise invalid_field("limit", "range", low="1", high=str(MAX_SEARCH))
    return SearchResult(data=await retrieve(request.query, [base], int(request.limit), 0.0, clients))


def document_view(stored: StoredDocument, explain: Explain) -> DocumentView:
    """Return a document as the API shows it."""
    ready = stored.status == "ready"
    return DocumentView(
        id=stored.public_id,
        name=stored.name,
        media_type=stored.media_type,
        bytes=stored.bytes,
        sha256=stored.sha256,
        status=stored.status,
        error=_error(stored.error_code, stored.error_message, explain),
        pages=stored.pages if ready else None,
        chunks=stored.chunks if ready else None,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
        outdated=stored.outdated,
        reindexing=None
        if stored.again_status is None
        else Reindexing(
            status=stored.again_status, error=_error(stored.again_error_code, stored.again_error_message, explain)
        ),
    )


def _error(code: str | None, message: str | None, explain: Explain) -> DocumentError | None:
    return None if code is None else DocumentError(code=code, message=explain(code, message or ""))


async def _usage(database: Database, bases: list[KnowledgeBaseConfig]) -> dict[str, Usage]:
    async with database.reading() as connection:
        return await repository.usage(connection, [base.key for base in bases])


def _base_view(base: KnowledgeBaseConfig, usage: Usage) -> KnowledgeBaseView:
    return KnowledgeBaseView(
        name=base.name,
        display_name=base.display_name,
        documents=usage.documents,
        pending=usage.pending,
        failed=usage.failed,
        bytes=usage.bytes,
        max_documents=base.max_documents,
        max_bytes=base.max_bytes,
        outdated=usage.outdated,
        reindexing=usage.reindexing,
    )


def _identity(document: str) -> UUID:
    return identifier(document, errors.DOCUMENT_NOT_FOUND)
