"""Cursors and identifiers."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_api.knowledge.repository import from_cursor, to_cursor
from assistant_api.knowledge.vectors import chunk_uuid


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_cursor_leads_back_to_where_it_was_made(sequence: int) -> None:
    """Cursors survive the way through a URL."""
    cursor = to_cursor(sequence)
    assert from_cursor(cursor) == sequence
    assert cursor.isascii()
    assert not set("+/=&?#") & set(cursor)


@pytest.mark.parametrize(
    "cursor", ["", "x", "12", "é", "AAAAAAAAAAAA", "//////////8", "__________8", to_cursor(5) + "A"]
)
def test_anything_else_is_no_cursor(cursor: str) -> None:
    """A made-up cursor is an error of the caller, never a query."""
    with pytest.raises(ValueError, match="not a cursor"):
        from_cursor(cursor)


def test_a_chunks_uuid_follows_from_its_document_and_place() -> None:
    """Writing the same chunk again overwrites it, on every worker of every version."""
    document = UUID("6f0d3a51-8a8e-4f0c-9f0e-2b8a4c1d7e11")
    assert chunk_uuid(document, 0) == UUID("328f3f7f-0493-54b1-9bba-b748557cb7af")
    assert len({chunk_uuid(document, index) for index in range(100)}) == 100
