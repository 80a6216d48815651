"""Events of answers and their numbers."""

from __future__ import annotations

import pytest

from assistant_api.conversations.stream import event, place_of
from assistant_api.errors import ApiError


@pytest.mark.parametrize(
    ("number", "place"), [(None, 0), ("", 0), ("0", 0), ("17", 17), ("17.end", None), ("0.end", None)]
)
def test_a_number_says_where_to_go_on(number: str | None, place: int | None) -> None:
    """From the beginning without one; nowhere after the end."""
    assert place_of(number) == place


@pytest.mark.parametrize("number", ["-1", "x", "1.0", "1.end ", "1" * 10, "\u0661"])
def test_what_is_no_number_is_refused(number: str) -> None:
    """By the name of its header."""
    with pytest.raises(ApiError) as refused:
        place_of(number)
    assert refused.value.field == "Last-Event-ID"


def test_an_event_is_what_browsers_read() -> None:
    """Three fields and an empty line."""
    assert event("message.delta", b"{}", "3") == b"id: 3\nevent: message.delta\ndata: {}\n\n"
