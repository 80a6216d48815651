"""Cursors of lists that are ordered by a sequence number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_api.errors import ApiError
from assistant_api.parameters import from_cursor, pack_sequence, to_cursor, unpack_sequence


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_cursor_leads_back_to_where_it_was_made(sequence: int) -> None:
    """Cursors survive the way through a URL."""
    cursor = to_cursor(pack_sequence(sequence))
    assert from_cursor(cursor, unpack_sequence) == sequence
    assert cursor.isascii()
    assert not set("+/=&?#") & set(cursor)


def test_no_cursor_is_the_first_page() -> None:
    """A request without the parameter starts at the beginning."""
    assert from_cursor(None, unpack_sequence) is None


@pytest.mark.parametrize(
    "cursor", ["", "x", "12", "é", "AAAAAAAAAAAA", "//////////8", "__________8", to_cursor(pack_sequence(5)) + "A"]
)
def test_anything_else_is_no_cursor(cursor: str) -> None:
    """A made-up cursor is an error of the caller that names the field, never a query."""
    with pytest.raises(ApiError) as caught:
        from_cursor(cursor, unpack_sequence)
    assert (caught.value.kind.code, caught.value.field) == ("invalid_field", "cursor")
