"""A place in the list of conversations as opaque text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from assistant_api.conversations.cursor import Place
from assistant_api.errors import ApiError
from assistant_api.parameters import from_cursor, to_cursor

NOW = datetime(2026, 11, 28, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.mark.parametrize("pinned", [True, False])
def test_a_cursor_leads_back_to_its_place(pinned: bool) -> None:
    """To the microsecond, as the database orders."""
    place = Place(pinned, NOW, uuid4())
    assert from_cursor(to_cursor(place.pack()), Place.unpack) == place


@pytest.mark.parametrize("cursor", ["", "x", "é" * 34, "A" * 33, "A" * 35, "A" * 33 + "="])
def test_what_cannot_be_a_cursor_is_refused(cursor: str) -> None:
    """By its length, or by its characters."""
    with pytest.raises(ApiError) as caught:
        from_cursor(cursor, Place.unpack)
    assert caught.value.field == "cursor"


@pytest.mark.parametrize("character", ["A", "z", "_", "-"])
def test_every_text_of_the_form_is_some_place(character: str) -> None:
    """So that the OpenAPI description can say what a cursor looks like."""
    place = from_cursor(character * 34, Place.unpack)
    assert place is not None
    assert datetime(1970, 1, 1, tzinfo=UTC) <= place.active_at <= datetime.max.replace(tzinfo=UTC) + timedelta(0)
    assert isinstance(place.id, UUID)
