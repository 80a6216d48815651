"""What knowledge bases look like on the wire, and a passage as the chat gets it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a document that may answer a question; `score` is 0..1, `page` counts from 1."""

    knowledge_base: str
    document_id: str
    document_name: str
    page: int | None
    text: str
    score: float


class KnowledgeBaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A knowledge base with what is in it."""

    name: str
    display_name: str
    documents: int
    pending: int
    failed: int
    bytes: int
    max_documents: int
    max_bytes: int
    outdated: int  # documents that an earlier version of the platform has read: found as before, to be read again
    reindexing: int  # documents that are being read again


class KnowledgeBaseList(msgspec.Struct, frozen=True, kw_only=True):
    """All knowledge bases of the tenant, by name."""

    data: list[KnowledgeBaseView]


class DocumentError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a document is not ready; the code is stable."""

    code: str
    message: str


class Reindexing(msgspec.Struct, frozen=True, kw_only=True):
    """How it goes with reading a document again; meanwhile, and if it fails, it is in use as it was."""

    status: str  # pending | processing | failed
    error: DocumentError | None


class DocumentView(msgspec.Struct, frozen=True, kw_only=True):
    """A document; `pages` and `chunks` are known once it is ready (`pages` of PDFs only).

    `outdated`: an earlier version of the platform has read it; it is found as before.
    """

    id: UUID
    name: str
    media_type: str
    bytes: int
    sha256: str
    status: str  # pending | processing | ready | failed
    error: DocumentError | None
    pages: int | None
    chunks: int | None
    created_at: datetime
    updated_at: datetime
    outdated: bool
    reindexing: Reindexing | None


class DocumentPage(msgspec.Struct, frozen=True, kw_only=True):
    """Documents, the newest first; `next_cursor` asks for those after them, None at the end."""

    data: list[DocumentView]
    next_cursor: str | None


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question to one knowledge base."""

    query: str
    limit: int | float = 6  # a whole number, as JSON Schema means it: 6.0 is one


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Passages, the best first."""

    data: list[Passage]


decode_search = msgspec.json.Decoder(SearchRequest).decode
