"""From text to chunks."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_text_splitter import TextSplitter

from assistant_api.knowledge import chunking, media
from assistant_api.knowledge.chunking import Chunk, chunk, headed_sections, sections
from assistant_api.knowledge.parsing import ParsingError

PROSE = (
    "The torque of the rear axle nuts is 42 newton metres. Check it after the first 50 kilometres.\n"
    "Use a calibrated wrench. Write the value into the service booklet.\n\n"
)


def texts(media_type: str, *pages: str, max_tokens: int = 40, overlap: int = 0) -> list[str]:
    return [piece.text for piece in chunk(media_type, pages, max_tokens, overlap)]


def tokens(text: str) -> int:
    """Count the tokens of a text with the splitter's own table: the smallest capacity that leaves it whole."""
    low, high = 1, max(2, len(text))
    while low < high:
        middle = (low + high) // 2
        whole = len(TextSplitter.from_tiktoken_model(chunking.TOKENS_OF, middle).chunks(text)) <= 1
        low, high = (low, middle) if whole else (middle + 1, high)
    return low


def test_no_chunk_has_more_tokens_than_allowed() -> None:
    """The limit holds for the text with its headings, in prose and in Markdown."""
    document = "# Service\n\n## Axle\n\n" + PROSE * 12
    for pieces in (texts(media.TEXT, PROSE * 12), texts(media.MARKDOWN, document)):
        assert len(pieces) > 5
        assert max(tokens(piece) for piece in pieces) <= 40


def test_nothing_is_lost() -> None:
    """Every word of a document is in some chunk, in order."""
    assert " ".join(texts(media.TEXT, PROSE * 30)).split() == (PROSE * 30).split()


def test_neighbours_share_text_when_asked_to() -> None:
    """With an overlap a chunk begins with the end of the one before."""
    pieces = texts(media.TEXT, " ".join(f"word{number}" for number in range(200)), overlap=10)
    shared = [first.split()[-1] in second.split() for first, second in pairwise(pieces)]
    assert all(shared)


def test_chunks_of_a_pdf_know_their_page() -> None:
    """A chunk never spans two pages; empty pages still count."""
    pieces = list(chunk(media.PDF, ["First.", "", PROSE * 3], 40, 0))
    assert pieces[0] == Chunk("First.", 1)
    assert {piece.page for piece in pieces[1:]} == {3}


def test_other_documents_have_no_pages() -> None:
    """A page number would be made up."""
    assert {piece.page for piece in chunk(media.TEXT, [PROSE], 40, 0)} == {None}


def test_a_markdown_chunk_carries_its_headings() -> None:
    """A paragraph that does not name its subject is found by the headings above it."""
    document = "# Handbook\n\nIntroduction.\n\n## Holidays\n\nThirty days a year.\n\n## Illness\n\nCall by 9:30."
    assert texts(media.MARKDOWN, document) == [
        "Handbook\n\nIntroduction.",
        "Handbook > Holidays\n\nThirty days a year.",
        "Handbook > Illness\n\nCall by 9:30.",
    ]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("plain", [((), "plain")]),
        ("# A\n## B\ntext\n# C", [(("A", "B"), "text"), (("C",), "")]),
        ("# A\n### C\nx\n## B\ny", [(("A", "C"), "x"), (("A", "B"), "y")]),
        ("```\n# no heading\n```\n# A\nx", [((), "```\n# no heading\n```"), (("A",), "x")]),
        ("~~~~\n```\n# no\n~~~\n# no\n~~~~\n# yes\nx", [((), "~~~~\n```\n# no\n~~~\n# no\n~~~~"), (("yes",), "x")]),
        ("#no\n####### no\n    # no", [((), "#no\n####### no\n    # no")]),
        ("# Closed ##\nx\n#\ny", [(("Closed",), "x"), ((), "y")]),
    ],
)
def test_markdown_is_cut_at_its_headings(document: str, expected: list[tuple[tuple[str, ...], str]]) -> None:
    """Headings are those of CommonMark: not in code, not deeper than six, with a space after the signs."""
    assert list(headed_sections(document)) == expected


@given(st.text(alphabet=st.sampled_from("ab. \n"), max_size=600))
@settings(max_examples=100)
def test_sections_add_up_to_the_text(text: str) -> None:
    """Cutting into sections neither loses nor repeats a character, and no section is too long."""
    length = chunking.SECTION_CHARACTERS
    try:
        chunking.SECTION_CHARACTERS = 50
        pieces = list(sections(text))
    finally:
        chunking.SECTION_CHARACTERS = length
    assert "".join(pieces) == text
    assert max(map(len, pieces), default=0) <= 50


def test_too_many_chunks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of nothing but tiny pieces is not a document."""
    monkeypatch.setattr(chunking, "MAX_CHUNKS", 3)
    with pytest.raises(ParsingError) as caught:
        texts(media.MARKDOWN, "# a\n" * 10)
    assert caught.value.code == "document_too_long"


@pytest.mark.parametrize(
    "hostile", ["a" * 20_000, "x" + "\u0301" * 20_000, "\n" * 200_000, "*a_" * 5_000, "[" * 30_000, "> " * 5_000]
)
def test_unnatural_text_takes_no_unnatural_time(hostile: str) -> None:
    """Texts that make splitters slow are cut into sections before they can."""
    started = time.process_time()
    for media_type in (media.TEXT, media.MARKDOWN):
        list(chunk(media_type, [hostile], 250, 30))
    assert time.process_time() - started < 3


def test_each_passage_of_a_long_table_begins_with_its_header() -> None:
    """A row without the names of its columns answers nothing; no row is lost, and prose around it stays prose."""
    rows = [f"| Pump {number} | {number * 7},50 | Hall {number % 5} |" for number in range(60)]
    header = "| Part | Price | Place |\n|:--|--:|---|"
    text = "\n".join(["# Parts", "", "All parts in stock.", "", header, *rows, "", "Prices without tax."])
    chunks = [piece.text for piece in chunk(media.MARKDOWN, [text], 120, 20)]
    tables = [piece for piece in chunks if "| Pump" in piece]
    assert len(tables) > 3
    assert all(piece.startswith(f"Parts\n\n{header}\n| Pump") for piece in tables)
    assert [row for piece in tables for row in piece.split("\n") if row.startswith("| Pump")] == rows
    assert chunks[0] == "Parts\n\nAll parts in stock."
    assert chunks[-1] == "Parts\n\nPrices without tax."


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n\nno delimiter row",
        "| a | b |\n|---|\n| 1 | 2 |",
        "a line\n---\nunder it | text",
        "| " + "very long name " * 100 + "| b |\n|---|---|\n" + "| 1 | 2 |\n" * 100,
    ],
)
def test_what_is_no_table_and_a_header_without_end_lose_nothing(text: str) -> None:
    """Every word comes out again."""
    chunks = [piece.text for piece in chunk(media.MARKDOWN, [text + "\n\n" + "word " * 200], 60, 0)]
    assert "".join("".join(piece.split()) for piece in chunks) == "".join((text + "word " * 200).split())
