"""A citation's address leads to the passage in its document."""

from __future__ import annotations

import pytest
from api_world import passage

from assistant_api.knowledge.links import passage_path

DOCUMENT = "/api/v1/knowledge-bases/handbook/documents/00000000-0000-0000-0000-000000000001/content"


def test_a_pdf_is_opened_at_its_page() -> None:
    """As readers of PDF understand it."""
    assert passage_path(passage(1, page=3)) == f"{DOCUMENT}#page=3"


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("Travel > Abroad\n\nA full-day & paid: 32 euros.", "A%20full%2Dday%20%26%20paid%3A%2032%20euros."),
        ("Größe <b>", "Gr%C3%B6%C3%9Fe%20%3Cb%3E"),
        ("one two three four five six seven eight nine", "one%20two%20three%20four%20five%20six%20seven%20eight"),
    ],
)  # fmt: skip
def test_a_text_is_opened_at_the_words(text: str, fragment: str) -> None:
    """At a line of its own, not at the headings that were put before it; nothing of it is syntax."""
    assert passage_path(passage(1, page=None, text=text)) == f"{DOCUMENT}#:~:text={fragment}"


def test_a_passage_without_words_is_its_document() -> None:
    """There is nothing to look for."""
    assert passage_path(passage(1, page=None, text=" \n ")) == DOCUMENT
