"""Identifiers of chunks."""

from __future__ import annotations

from uuid import UUID

from assistant_api.knowledge.vectors import chunk_uuid


def test_a_chunks_uuid_follows_from_its_document_and_place() -> None:
    """Writing the same chunk again overwrites it, on every worker of every version."""
    document = UUID("6f0d3a51-8a8e-4f0c-9f0e-2b8a4c1d7e11")
    assert chunk_uuid(document, 0) == UUID("328f3f7f-0493-54b1-9bba-b748557cb7af")
    assert len({chunk_uuid(document, index) for index in range(100)}) == 100
